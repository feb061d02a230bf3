//! The broker configurations of replication: replication factors, leadership, and fetching.

use super::super::Check::{Any, AtLeast};
use super::super::ConfigKey;
use super::super::ConfigType::{Boolean, Int, Long};
use super::super::Scope::{Cluster, Dynamic};
use super::super::key::row as broker;

/// In the order of their names.
pub(super) const ROWS: &[ConfigKey] = &[
    broker(
        "auto.leader.rebalance.enable",
        Boolean,
        Some("true"),
        Any,
        Cluster,
        "Whether partitions get their first replicas as leaders again, from time to time.",
    ),
    broker(
        "default.replication.factor",
        Int,
        Some("1"),
        AtLeast(1),
        Cluster,
        "How many replicas the partitions of a topic get whose creator does not say.",
    ),
    broker(
        "follower.replication.throttled.rate",
        Long,
        Some("9223372036854775807"),
        AtLeast(0),
        Dynamic,
        "The most bytes a second that this broker fetches from leaders for the replicas in `follower.replication.throttled.replicas`.",
    ),
    broker(
        "leader.imbalance.check.interval.seconds",
        Long,
        Some("300"),
        AtLeast(1),
        Cluster,
        "How often it is looked for partitions that are not led by their first replica.",
    ),
    broker(
        "leader.imbalance.per.broker.percentage",
        Int,
        None,
        AtLeast(0),
        Cluster,
        "How much of a broker's share may be led by others before that is put right, in percent; unset, nothing.",
    ),
    broker(
        "leader.replication.throttled.rate",
        Long,
        Some("9223372036854775807"),
        AtLeast(0),
        Dynamic,
        "The most bytes a second that this broker sends to followers of the replicas in `leader.replication.throttled.replicas`.",
    ),
    broker(
        "replica.fetch.backoff.ms",
        Int,
        Some("100"),
        AtLeast(0),
        Cluster,
        "How long a follower leaves a partition alone whose fetch failed. Apache Kafka's default is 1000.",
    ),
    broker(
        "replica.fetch.max.bytes",
        Int,
        Some("1048576"),
        AtLeast(0),
        Cluster,
        "How much a follower fetches of one partition at a time; a larger batch is fetched all the same.",
    ),
    broker(
        "replica.fetch.min.bytes",
        Int,
        Some("1"),
        AtLeast(0),
        Cluster,
        "How much a leader waits for before it answers a follower, for as long as `replica.fetch.wait.max.ms` allows.",
    ),
    broker(
        "replica.fetch.response.max.bytes",
        Int,
        Some("10485760"),
        AtLeast(0),
        Cluster,
        "How much a follower fetches at a time.",
    ),
    broker(
        "replica.fetch.wait.max.ms",
        Int,
        Some("500"),
        AtLeast(0),
        Cluster,
        "How long a leader that has nothing new waits before it answers a follower.",
    ),
    broker(
        "replica.lag.time.max.ms",
        Long,
        Some("30000"),
        AtLeast(0),
        Cluster,
        "A follower that has not caught up with its leader for this long leaves the ISR.",
    ),
];
