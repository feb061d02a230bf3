//! The settings of a whole cluster, with Kafka's broker configuration names.

use weir_settings::{BROKER, ConfigKey, Scope, broker_key};

use crate::setting::config;

config!(
    /// `spec.config` of a [`crate::KafkaCluster`].
    ClusterConfig,
    BROKER.iter().filter(|key| is_of_clusters(key)),
    |name| broker_key(name).filter(|key| is_of_clusters(key)),
    RULES,
    "Settings of all brokers under Kafka's names. They are the defaults of topics, too."
);

/// Settings that identify a broker are only on its command line.
fn is_of_clusters(key: &ConfigKey) -> bool {
    key.scope != Scope::Process
}

const RULES: &[(&str, &str)] = &[
    (
        "!has(self.log__dot__cleaner__dot__min__dot__compaction__dot__lag__dot__ms) || !has(self.log__dot__cleaner__dot__max__dot__compaction__dot__lag__dot__ms) || \
         int(self.log__dot__cleaner__dot__min__dot__compaction__dot__lag__dot__ms) <= int(self.log__dot__cleaner__dot__max__dot__compaction__dot__lag__dot__ms)",
        "log.cleaner.min.compaction.lag.ms must not be greater than log.cleaner.max.compaction.lag.ms",
    ),
    (
        "!has(self.min__dot__insync__dot__replicas) || !has(self.default__dot__replication__dot__factor) || \
         int(self.min__dot__insync__dot__replicas) <= int(self.default__dot__replication__dot__factor)",
        "min.insync.replicas must not be greater than default.replication.factor",
    ),
];
