//! The controller's state of a topic.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::types::TopicId;

use super::super::key::Key;
use super::partition::Partition;

/// A topic: its resource and the state of its partitions.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// Its immutable id (KIP-516).
    pub id: TopicId,
    /// The namespace and the name of its resource.
    pub key: Key,
    /// The resource, written by a user or by the controller. Its `partitions` and `replicas` are
    /// set.
    pub resource: weir_crds::Topic,
    /// The partitions by index. There are fewer than the resource asks for while no broker can take
    /// them.
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

    /// Whether only brokers write it (Kafka's internal topics).
    pub fn is_internal(&self) -> bool {
        is_internal(self.name())
    }
}

/// Whether this is the name of an internal topic.
pub fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}
