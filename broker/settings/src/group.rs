//! The configurations of groups (`GroupConfig`) and of client metrics subscriptions
//! (`ClientMetricsConfigs`). Such a resource exists once something is set on it.
//!
//! Weir has no share groups, streams groups or client metrics. It keeps and returns what is set for
//! them, and the documentation says that it has no effect.

use super::Check::{Any, AtLeast, Between, OneOf};
use super::ConfigType::{Boolean, Int, List, String};
use super::key::{dynamic as row, find};
use super::{Check, ConfigKey};

/// Every group configuration, in the order of their names.
pub static GROUP: &[ConfigKey] = &[
    row(
        "consumer.assignment.interval.ms",
        Int,
        "1000",
        AtLeast(0),
        "How long the group waits at least between two assignments.",
    ),
    row(
        "consumer.heartbeat.interval.ms",
        Int,
        "5000",
        AtLeast(1),
        "How often the group's members of the consumer protocol are heard of.",
    ),
    row(
        "consumer.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        "How long a member of the consumer protocol may be quiet before its partitions go to others of the group.",
    ),
    row("share.assignment.interval.ms", Int, "1000", Between(0, 15_000), SHARE),
    row("share.auto.offset.reset", String, "latest", Check::ShareReset, SHARE),
    row("share.delivery.count.limit", Int, "5", Between(2, 10), SHARE),
    row("share.heartbeat.interval.ms", Int, "5000", Between(5_000, 15_000), SHARE),
    row(
        "share.isolation.level",
        String,
        "read_uncommitted",
        OneOf(&["read_committed", "read_uncommitted"]),
        SHARE,
    ),
    row("share.partition.max.record.locks", Int, "2000", Between(100, 4_000), SHARE),
    row("share.record.lock.duration.ms", Int, "30000", Between(15_000, 60_000), SHARE),
    row("share.renew.acknowledge.enable", Boolean, "true", Any, SHARE),
    row("share.session.timeout.ms", Int, "45000", Between(45_000, 60_000), SHARE),
    row("streams.assignment.interval.ms", Int, "1000", Between(0, 15_000), STREAMS),
    row("streams.heartbeat.interval.ms", Int, "5000", Between(5_000, 15_000), STREAMS),
    row("streams.initial.rebalance.delay.ms", Int, "3000", AtLeast(0), STREAMS),
    row("streams.num.standby.replicas", Int, "0", Between(0, 2), STREAMS),
    row("streams.session.timeout.ms", Int, "45000", Between(45_000, 60_000), STREAMS),
];

/// Every configuration of a client metrics subscription, in the order of their names.
pub static CLIENT_METRICS: &[ConfigKey] = &[
    row("interval.ms", Int, "300000", Between(100, 3_600_000), METRICS),
    row("match", List, "", Any, METRICS),
    row("metrics", List, "", Any, METRICS),
];

const SHARE: &str = "For share groups. They are not served, so it has no effect.";

const STREAMS: &str = "For streams groups. They are not served, so it has no effect.";

const METRICS: &str =
    "For the metrics that clients push. They are not collected, so it has no effect.";

/// The group configuration with this name.
pub fn group_key(name: &str) -> Option<&'static ConfigKey> {
    find(GROUP, name)
}

/// The configuration of client metrics subscriptions with this name.
pub fn client_metrics_key(name: &str) -> Option<&'static ConfigKey> {
    find(CLIENT_METRICS, name)
}
