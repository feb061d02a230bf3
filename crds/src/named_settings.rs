//! The settings of groups and of client metrics subscriptions, with Kafka's names.

use weir_settings::{CLIENT_METRICS, GROUP, client_metrics_key, group_key};

use crate::setting::config;

config!(
    /// Settings of a consumer group, in `spec.consumerGroups.config` of a [`crate::KafkaCluster`].
    GroupConfig,
    GROUP.iter(),
    group_key,
    &[],
    "Settings of the group under Kafka's names. What is not set follows the cluster's configuration, then Kafka's default."
);

config!(
    /// A client metrics subscription, in `spec.clientMetrics` of a [`crate::KafkaCluster`].
    ClientMetricsConfig,
    CLIENT_METRICS.iter(),
    client_metrics_key,
    &[],
    "A subscription to the metrics of clients, under Kafka's names. They are not collected, so it has no effect."
);
