//! The settings of a topic: all of Apache Kafka 4.4's (`TopicConfig`, `LogConfig`), and Weir's own
//! `flush.mode` and `record.validation`.

use weir_settings::{TOPIC, topic_key};

use crate::setting::config;

config!(
    /// `spec.config` of a [`crate::Topic`].
    TopicConfig,
    TOPIC.iter(),
    topic_key,
    RULES,
    "Settings of the topic under Kafka's names. What is not set follows the cluster's configuration, then Kafka's default."
);

const RULES: &[(&str, &str)] = &[
    (
        "!has(self.min__dot__compaction__dot__lag__dot__ms) || !has(self.max__dot__compaction__dot__lag__dot__ms) || \
         int(self.min__dot__compaction__dot__lag__dot__ms) <= int(self.max__dot__compaction__dot__lag__dot__ms)",
        "min.compaction.lag.ms must not be greater than max.compaction.lag.ms",
    ),
    (
        "!has(self.remote__dot__storage__dot__enable) || !self.remote__dot__storage__dot__enable",
        "remote.storage.enable cannot be true: there is no tiered storage",
    ),
];
