//! PURE: the protocol that consumers of the classic protocol speak among themselves, inside
//! JoinGroup and SyncGroup (`ConsumerProtocol` in Apache Kafka): a version, and what belongs to it.
//!
//! Coordinators read it to know what groups are subscribed to, and both read and write it for
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

/// What a member says to the leader. Later versions than are known only add fields.
pub(super) fn subscription(metadata: &Bytes) -> Option<ConsumerProtocolSubscription> {
    let mut bytes = metadata.clone();
    let version = versioned(&mut bytes)?.min(*ConsumerProtocolSubscription::VERSIONS.end());
    ConsumerProtocolSubscription::decode(&mut bytes, version).ok()
}

/// What the leader says to a member.
pub(super) fn assignment(bytes: &Bytes) -> Option<ConsumerProtocolAssignment> {
    let mut bytes = bytes.clone();
    let version = versioned(&mut bytes)?.min(*ConsumerProtocolAssignment::VERSIONS.end());
    ConsumerProtocolAssignment::decode(&mut bytes, version).ok()
}

/// What a member is told that it has, in the version in which it speaks itself. Topics that are not
/// there any more are left out: they have no name.
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
    // Names come from the metadata: none is too long.
    if let Err(error) = assignment.encode(&mut bytes, version) {
        tracing::error!(%error, "an assignment cannot be encoded");
    }
    bytes.freeze()
}

/// Partitions by topic of those that are named. What is not there is left out.
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

/// What a member says that it has.
pub(super) fn owned(
    subscription: &ConsumerProtocolSubscription,
    image: &MetadataImage,
) -> Partitions {
    let named = subscription.owned_partitions.iter();
    partitions(named.map(|owned| (owned.topic.as_str(), owned.partitions.as_slice())), image)
}

/// Takes a version off the front.
fn versioned(bytes: &mut Bytes) -> Option<i16> {
    (bytes.len() >= 2).then(|| bytes.get_i16()).filter(|version| *version >= 0)
}
