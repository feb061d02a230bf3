//! The topics of a history. Each has one partition, and a name that its successors keep.

use uuid::Uuid;
use weir_protocol::types::TopicId;

/// The id of a topic. Each name is in another shard, for all topics that have had it.
pub fn topic_id(partition: usize, life: u64) -> TopicId {
    TopicId(Uuid::from_u128((u128::from(life) << 64) | (partition as u128 + 1)))
}

/// The number of the partition of the topic with this id.
pub fn partition_of(topic: TopicId) -> Option<usize> {
    (topic.0.as_u128() as u64 as usize).checked_sub(1)
}

/// The name of a topic.
pub fn topic_name(partition: usize) -> String {
    format!("t{partition}")
}
