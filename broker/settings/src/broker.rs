//! The broker and cluster configurations that have an effect in Weir, under Apache Kafka's names
//! (`KafkaConfig`).
//!
//! Configurations of Kafka that these tables lack belong to the controller, which is the operator
//! here, or to features that Weir does not have. `unused` has those that scripts set nevertheless.

mod groups;
mod logs;
mod replication;
mod topics;
mod transactions;
mod unused;

use std::sync::LazyLock;

#[cfg(test)]
pub(crate) use topics::BrokerNames;
pub(crate) use topics::broker_names;
pub use topics::topic_key_of;

use super::Check::{Any, AtLeast};
use super::ConfigKey;
use super::ConfigType::{Boolean, Int, List, Long, String};
use super::Scope::{Cluster, Dynamic, Process};
use super::key::{find, row as broker};

/// Every broker configuration, in the order of their names.
pub static BROKER: LazyLock<Vec<ConfigKey>> = LazyLock::new(|| {
    let mut rows =
        [OWN, groups::ROWS, logs::ROWS, replication::ROWS, transactions::ROWS, unused::ROWS]
            .concat();
    rows.extend(topics::rows());
    rows.sort_by_key(|row| row.name);
    rows
});

/// The broker or cluster configuration with this name.
pub fn broker_key(name: &str) -> Option<&'static ConfigKey> {
    find(&BROKER, name)
}

/// Configurations of the broker itself: its connections, its requests, its location.
const OWN: &[ConfigKey] = &[
    broker(
        "advertised.listeners",
        List,
        None,
        Any,
        Process,
        "What clients are told to connect to, by listener.",
    ),
    broker(
        "auto.create.topics.enable",
        Boolean,
        Some("true"),
        Any,
        Cluster,
        "Whether a topic is created when a client first asks for it.",
    ),
    broker("broker.id", Int, Some("-1"), Any, Process, "The broker's id in the cluster."),
    broker(
        "broker.rack",
        String,
        None,
        Any,
        Process,
        "The rack or zone that the broker stands in.",
    ),
    broker(
        "connections.max.idle.ms",
        Long,
        Some("600000"),
        AtLeast(-1),
        Cluster,
        "How long a connection may be idle before the broker closes it; negative is for ever.",
    ),
    broker(
        "delete.topic.enable",
        Boolean,
        Some("true"),
        Any,
        Cluster,
        "Whether clients may delete topics.",
    ),
    broker(
        "fetch.max.bytes",
        Int,
        Some("57671680"),
        AtLeast(1_024),
        Cluster,
        "The most bytes of records in the answer to one fetch, whatever the client asks for.",
    ),
    broker("listeners", List, Some("PLAINTEXT://:9092"), Any, Process, "Where the broker listens."),
    broker(
        "max.incremental.fetch.session.cache.slots",
        Int,
        Some("1000"),
        AtLeast(0),
        Cluster,
        "The most incremental fetch sessions at a time.",
    ),
    broker(
        "max.request.partition.size.limit",
        Int,
        Some("2000"),
        AtLeast(1),
        Cluster,
        "The most partitions in one answer to DescribeTopicPartitions.",
    ),
    broker("node.id", Int, None, AtLeast(0), Process, "The broker's id in the cluster."),
    broker(
        "num.partitions",
        Int,
        Some("1"),
        AtLeast(1),
        Cluster,
        "How many partitions a topic gets whose creator does not say.",
    ),
    broker(
        "producer.id.expiration.ms",
        Int,
        Some("86400000"),
        AtLeast(1),
        Dynamic,
        "How long a partition remembers an idempotent producer that writes nothing.",
    ),
    broker(
        "socket.request.max.bytes",
        Int,
        Some("104857600"),
        AtLeast(1),
        Cluster,
        "The largest request that the broker reads; a larger one closes the connection.",
    ),
];
