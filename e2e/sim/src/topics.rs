//! The topics of a history: each has one partition, and a name that it keeps in all its lives.

use uuid::Uuid;
use weir_protocol::types::TopicId;

/// The id of a topic: each name lies in another shard, in all the lives of the topics that bear it.
pub fn topic_id(partition: usize, life: u64) -> TopicId {
    TopicId(Uuid::from_u128((u128::from(life) << 64) | (partition as u128 + 1)))
}

/// The number of the partition of a topic with this id, and its life.
pub fn partition_of(topic: TopicId) -> Option<usize> {
    (topic.0.as_u128() as u64 as usize).checked_sub(1)
}

/// The name of a topic.
pub fn topic_name(partition: usize) -> String {
    format!("t{partition}")
}
