//! The shard that keeps a topic's partitions.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::types::TopicId;

/// The number of objects that hold partitions. The topic's id chooses one of them.
pub const SHARDS: u8 = 16;

/// The shard of a topic.
pub fn shard_of(topic: TopicId) -> u8 {
    let bits = topic.0.as_u128();
    // The id is random, so it needs no hash. The modulus fits, since SHARDS does.
    u8::try_from(bits % u128::from(SHARDS)).unwrap_or_default()
}
