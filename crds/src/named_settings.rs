//! What can be set for groups and for subscriptions to client metrics, under Kafka's names.

use crate::setting::Kind::{Boolean, Choice, Integer, Text};
use crate::setting::{Setting, config, row};

config!(
    /// Settings of a consumer group, in `spec.consumerGroups.config` of a [`crate::KafkaCluster`].
    GroupConfig,
    GROUP_SETTINGS,
    &[],
    "Settings of the group under Kafka's names. What is not set follows the cluster's configuration, then Kafka's default."
);

config!(
    /// A subscription to client metrics, in `spec.clientMetrics` of a [`crate::KafkaCluster`].
    ClientMetricsConfig,
    CLIENT_METRICS_SETTINGS,
    &[],
    "A subscription to the metrics of clients, under Kafka's names. They are not collected, so it has no effect."
);

const INT: i64 = i32::MAX as i64;
const SHARE: &str = "For share groups. They are not served, so it has no effect.";
const STREAMS: &str = "For streams groups. They are not served, so it has no effect.";
const METRICS: &str = "For the metrics that clients push. They are not collected, so it has no effect.";

#[rustfmt::skip]
const GROUP_SETTINGS: &[Setting] = &[
    row("consumer.assignment.interval.ms", Integer(0, INT), "1000", "How long the group waits at least between two assignments."),
    row("consumer.heartbeat.interval.ms", Integer(1, INT), "5000", "How often the group's members of the consumer protocol are heard of."),
    row("consumer.session.timeout.ms", Integer(1, INT), "45000", "How long a member of the consumer protocol may be quiet before its partitions go to others of the group."),
    row("share.assignment.interval.ms", Integer(0, 15_000), "1000", SHARE),
    row("share.auto.offset.reset", Text("^(earliest|latest|by_duration:P[0-9DTHMS.]{2,64})$"), "latest", SHARE),
    row("share.delivery.count.limit", Integer(2, 10), "5", SHARE),
    row("share.heartbeat.interval.ms", Integer(5_000, 15_000), "5000", SHARE),
    row("share.isolation.level", Choice(&["read_committed", "read_uncommitted"]), "read_uncommitted", SHARE),
    row("share.partition.max.record.locks", Integer(100, 4_000), "2000", SHARE),
    row("share.record.lock.duration.ms", Integer(15_000, 60_000), "30000", SHARE),
    row("share.renew.acknowledge.enable", Boolean, "true", SHARE),
    row("share.session.timeout.ms", Integer(45_000, 60_000), "45000", SHARE),
    row("streams.assignment.interval.ms", Integer(0, 15_000), "1000", STREAMS),
    row("streams.heartbeat.interval.ms", Integer(5_000, 15_000), "5000", STREAMS),
    row("streams.initial.rebalance.delay.ms", Integer(0, INT), "3000", STREAMS),
    row("streams.num.standby.replicas", Integer(0, 2), "0", STREAMS),
    row("streams.session.timeout.ms", Integer(45_000, 60_000), "45000", STREAMS),
];

#[rustfmt::skip]
const CLIENT_METRICS_SETTINGS: &[Setting] = &[
    row("interval.ms", Integer(100, 3_600_000), "300000", METRICS),
    row("match", Text("^.*$"), "", METRICS),
    row("metrics", Text("^.*$"), "", METRICS),
];
