//! The messages between consumers of the classic protocol, encoded as consumers do.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use weir_protocol::messages::consumer_protocol_assignment::TopicPartition;
use weir_protocol::messages::consumer_protocol_subscription::TopicPartition as Owned;
use weir_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription, Message};

/// The protocol version of the encoded messages.
const VERSION: i16 = 3;

/// Partitions by the names of their topics.
pub(in crate::group::tests) type Partitions = BTreeSet<(String, i32)>;

/// An encoded subscription.
pub(in crate::group::tests) fn subscription(
    topics: &[String],
    owned: &Partitions,
    generation: i32,
    rack: Option<&str>,
) -> Bytes {
    let owned = by_topic(owned).into_iter().map(|(topic, partitions)| Owned { topic, partitions });
    versioned(&ConsumerProtocolSubscription {
        topics: topics.to_vec(),
        owned_partitions: owned.collect(),
        generation_id: generation,
        rack_id: rack.map(str::to_owned),
        ..Default::default()
    })
}

/// An encoded assignment.
pub(in crate::group::tests) fn assignment(
    partitions: &Partitions,
    user_data: Option<Bytes>,
) -> Bytes {
    let topic = |(topic, partitions)| TopicPartition { topic, partitions };
    versioned(&ConsumerProtocolAssignment {
        assigned_partitions: by_topic(partitions).into_iter().map(topic).collect(),
        user_data,
    })
}

pub(super) fn by_topic(partitions: &Partitions) -> BTreeMap<String, Vec<i32>> {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(topic.clone()).or_default().push(*partition);
    }
    topics
}

fn versioned(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(VERSION);
    message.encode(&mut bytes, VERSION).unwrap();
    bytes.freeze()
}
