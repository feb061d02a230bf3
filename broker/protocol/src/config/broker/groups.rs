//! The configurations of brokers that have to do with groups and committed offsets (`GroupCoordinatorConfig`).

use super::super::Check::{AtLeast, Between, OneOf};
use super::super::ConfigKey;
use super::super::ConfigType::{Int, Long, Short, String};
use super::super::Scope::Cluster;
use super::super::row as broker;

/// In the order of their names.
pub(super) const ROWS: &[ConfigKey] = &[
    broker(
        "group.consumer.heartbeat.interval.ms",
        Int,
        Some("5000"),
        AtLeast(1),
        Cluster,
        "How often members of the consumer protocol are heard of.",
    ),
    broker(
        "group.consumer.max.size",
        Int,
        Some("2147483647"),
        AtLeast(1),
        Cluster,
        "The most members of a group of the consumer protocol.",
    ),
    broker(
        "group.consumer.migration.policy",
        String,
        Some("bidirectional"),
        OneOf(&["disabled", "downgrade", "upgrade", "bidirectional"]),
        Cluster,
        "Which groups with members may go on in the other protocol: classic ones when a member of the consumer protocol joins (upgrade), and back when the last one leaves (downgrade).",
    ),
    broker(
        "group.consumer.session.timeout.ms",
        Int,
        Some("45000"),
        AtLeast(1),
        Cluster,
        "How long a member of the consumer protocol may be quiet before its partitions go to others.",
    ),
    broker(
        "group.initial.rebalance.delay.ms",
        Int,
        Some("3000"),
        AtLeast(0),
        Cluster,
        "How long an empty group waits for more members before its first rebalance.",
    ),
    broker(
        "group.max.session.timeout.ms",
        Int,
        Some("1800000"),
        AtLeast(1),
        Cluster,
        "The longest session that a member of a classic group may ask for.",
    ),
    broker(
        "group.max.size",
        Int,
        Some("2147483647"),
        AtLeast(1),
        Cluster,
        "The most members of a classic group.",
    ),
    broker(
        "group.min.session.timeout.ms",
        Int,
        Some("6000"),
        AtLeast(1),
        Cluster,
        "The shortest session that a member of a classic group may ask for.",
    ),
    broker(
        "offset.metadata.max.bytes",
        Int,
        Some("4096"),
        AtLeast(0),
        Cluster,
        "The most bytes of metadata that a committed offset may have.",
    ),
    broker(
        "offsets.commit.timeout.ms",
        Int,
        Some("5000"),
        AtLeast(1),
        Cluster,
        "How long a commit of offsets, or what else a group coordinator writes, may take to be replicated before the client is told to ask again.",
    ),
    broker(
        "offsets.retention.check.interval.ms",
        Long,
        Some("600000"),
        AtLeast(1),
        Cluster,
        "How often it is looked for offsets and groups that nobody needs any more.",
    ),
    broker(
        "offsets.retention.minutes",
        Int,
        Some("10080"),
        AtLeast(1),
        Cluster,
        "How long the offsets of a group are kept once it is empty; those committed without a group, from their commit on.",
    ),
    broker(
        "offsets.topic.num.partitions",
        Int,
        Some("50"),
        AtLeast(1),
        Cluster,
        "How many partitions the topic of committed offsets gets.",
    ),
    broker(
        "offsets.topic.replication.factor",
        Short,
        Some("3"),
        AtLeast(1),
        Cluster,
        "How many replicas the topic of committed offsets gets. Unset, as many as the cluster is to have brokers, three at most.",
    ),
    broker(
        "offsets.topic.segment.bytes",
        Int,
        Some("104857600"),
        Between(1_048_576, i32::MAX as i64),
        Cluster,
        "The size of the segments of the topic of committed offsets.",
    ),
];
