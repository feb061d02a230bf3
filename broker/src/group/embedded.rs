//! PURE: the protocol between consumers of the classic protocol, inside JoinGroup and SyncGroup
//! (`ConsumerProtocol` in Apache Kafka): a version, and the message of that version.
//!
//! The coordinator reads it to learn the subscriptions of groups. It also reads and writes it for
//! groups that change their protocol (KIP-848).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::{Buf, BufMut, Bytes, BytesMut};
use weir_protocol::messages::consumer_protocol_assignment::TopicPartition;
use weir_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription, Message};
use weir_protocol::types::TopicId;

use super::consumer::Partitions;
use crate::metadata::MetadataImage;

/// The protocol type of consumers.
pub(super) const CONSUMER: &str = "consumer";

/// The subscription that a member sends to the group leader. Unknown later versions only add
/// fields.
pub(super) fn subscription(metadata: &Bytes) -> Option<ConsumerProtocolSubscription> {
    let mut bytes = metadata.clone();
    let version = versioned(&mut bytes)?.min(*ConsumerProtocolSubscription::VERSIONS.end());
    ConsumerProtocolSubscription::decode(&mut bytes, version).ok()
}

/// The assignment that the group leader sends to a member.
pub(super) fn assignment(bytes: &Bytes) -> Option<ConsumerProtocolAssignment> {
    let mut bytes = bytes.clone();
    let version = versioned(&mut bytes)?.min(*ConsumerProtocolAssignment::VERSIONS.end());
    ConsumerProtocolAssignment::decode(&mut bytes, version).ok()
}

/// A member's assignment, in the protocol version of its own metadata. Leaves out deleted topics,
/// which have no name.
pub(super) fn assigned(partitions: &Partitions, spoken: &Bytes, image: &MetadataImage) -> Bytes {
    let version = versioned(&mut spoken.clone())
        .unwrap_or(0)
        .min(*ConsumerProtocolAssignment::VERSIONS.end());
    let named = partitions.iter().filter_map(|(topic, partitions)| {
        Some(TopicPartition {
            topic: image.topic(TopicId(*topic))?.name.to_string(),
            partitions: partitions.iter().copied().collect(),
        })
    });
    let assignment =
        ConsumerProtocolAssignment { assigned_partitions: named.collect(), user_data: None };
    let mut bytes = BytesMut::new();
    bytes.put_i16(version);
    // Topic names come from the metadata, so none is too long.
    if let Err(error) = assignment.encode(&mut bytes, version) {
        tracing::error!(%error, "an assignment cannot be encoded");
    }
    bytes.freeze()
}

/// The named partitions by topic. Leaves out those that do not exist.
pub(super) fn partitions<'a>(
    named: impl Iterator<Item = (&'a str, &'a [i32])>,
    image: &MetadataImage,
) -> Partitions {
    let mut partitions = Partitions::new();
    for (name, indexes) in named {
        let Some(topic) = image.topic_by_name(name) else { continue };
        for index in indexes.iter().filter(|index| topic.partition(**index).is_some()) {
            partitions.entry(topic.id.0).or_default().insert(*index);
        }
    }
    partitions
}

/// The partitions that a member claims to own.
pub(super) fn owned(
    subscription: &ConsumerProtocolSubscription,
    image: &MetadataImage,
) -> Partitions {
    let named = subscription.owned_partitions.iter();
    partitions(named.map(|owned| (owned.topic.as_str(), owned.partitions.as_slice())), image)
}

/// Removes and returns the version at the start.
fn versioned(bytes: &mut Bytes) -> Option<i16> {
    (bytes.len() >= 2).then(|| bytes.get_i16()).filter(|version| *version >= 0)
}
