//! The settings that a history changes, and where the resources hold them.

use serde_json::Value;

use super::super::{TOPIC, cluster_path};

/// What both sides change: the type of the resource in Kafka's protocol, its name there, the name
/// of the setting, the path of the resource at the API server, and the place of the value in it.
pub(super) struct Setting {
    pub(super) kind: i8,
    pub(super) of: &'static str,
    pub(super) name: &'static str,
    pub(super) at: &'static [&'static str],
}

const TOPIC_CONFIG: &[&str] = &["spec", "config"];

const fn of_topic(name: &'static str) -> Setting {
    Setting { kind: 2, of: "orders", name, at: TOPIC_CONFIG }
}

const fn of_cluster(
    kind: i8,
    of: &'static str,
    name: &'static str,
    at: &'static [&'static str],
) -> Setting {
    Setting { kind, of, name, at }
}

const BROKER: &[&str] = &["spec", "brokers", "config", "0"];
const ALL_BROKERS: &[&str] = &["spec", "config"];
const GROUP: &[&str] = &["spec", "consumerGroups", "config", "g"];

/// Only clients change the first ones, only users the next ones, both the last ones.
pub(super) const OF_CLIENTS: [Setting; 7] = [
    of_topic("retention.ms"),
    of_topic("segment.ms"),
    of_topic("retention.bytes"),
    of_cluster(4, "0", "leader.replication.throttled.rate", BROKER),
    of_cluster(4, "0", "follower.replication.throttled.rate", BROKER),
    of_cluster(4, "", "log.cleaner.backoff.ms", ALL_BROKERS),
    of_cluster(32, "g", "consumer.session.timeout.ms", GROUP),
];
pub(super) const OF_USERS: [Setting; 4] = [
    of_topic("flush.ms"),
    of_topic("max.message.bytes"),
    of_cluster(4, "", "log.retention.ms", ALL_BROKERS),
    of_cluster(32, "g", "share.session.timeout.ms", GROUP),
];
pub(super) const OF_BOTH: [Setting; 2] =
    [of_topic("segment.bytes"), of_cluster(4, "", "log.retention.bytes", ALL_BROKERS)];

impl Setting {
    pub(super) fn all() -> impl Iterator<Item = &'static Self> {
        OF_CLIENTS.iter().chain(&OF_USERS).chain(&OF_BOTH)
    }

    pub(super) fn is_of_topic(&self) -> bool {
        self.kind == 2
    }

    pub(super) fn path(&self) -> String {
        if self.is_of_topic() { TOPIC.to_owned() } else { cluster_path("n") }
    }

    pub(super) fn value(&self, object: &Value) -> Option<i64> {
        self.at.iter().chain([&self.name]).try_fold(object, |of, name| of.get(name))?.as_i64()
    }

    /// A valid value for each number.
    pub(super) fn numbered(&self, number: i64) -> i64 {
        if self.kind == 32 { 45_000 + number } else { 2_000_000 + number }
    }
}
