//! In which object a topic's partitions are kept.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::types::TopicId;

/// Objects that hold partitions; a topic's is chosen by its id.
pub const SHARDS: u8 = 16;

/// The shard of a topic.
pub fn shard_of(topic: TopicId) -> u8 {
    let bits = topic.0.as_u128();
    // The id's random bits are as good as a hash of it; the modulus fits, since SHARDS does.
    u8::try_from(bits % u128::from(SHARDS)).unwrap_or_default()
}
