//! A topic as the controller knows it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::types::TopicId;

use super::super::key::Key;
use super::partition::Partition;

/// A topic: its resource and the state of its partitions.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// Its immutable id (KIP-516).
    pub id: TopicId,
    /// Where its resource lies.
    pub key: Key,
    /// The resource, whoever wrote it. Its `partitions` and `replicas` are set.
    pub resource: weir_crds::Topic,
    /// The partitions by index. Fewer than the resource asks for while no broker can take them.
    pub partitions: Vec<Partition>,
}

impl Topic {
    /// Its name in Kafka.
    pub fn name(&self) -> &str {
        self.resource.topic_name()
    }

    /// The number of partitions that its resource asks for.
    pub fn partitions_wanted(&self) -> usize {
        self.resource
            .spec
            .partitions
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or_default()
    }

    /// Whether the brokers keep it for themselves.
    pub fn is_internal(&self) -> bool {
        is_internal(self.name())
    }
}

/// Whether brokers keep the topic of this name for themselves.
pub fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}
