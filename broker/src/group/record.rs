//! PURE: the records of `__consumer_offsets`, in Kafka's formats (`GroupCoordinatorRecordHelpers`,
//! `GroupCoordinatorRecordSerde`).
//!
//! A key is the record's type and its fields, a value the version of its format and its fields. The
//! written versions are those that Apache Kafka 3.8 and its tools read.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::{Buf, BufMut, Bytes, BytesMut};
use weir_protocol::messages::{
    ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupMemberMetadataKey, ConsumerGroupMemberMetadataValue, ConsumerGroupMetadataKey,
    ConsumerGroupMetadataValue, ConsumerGroupRegularExpressionKey,
    ConsumerGroupRegularExpressionValue, ConsumerGroupTargetAssignmentMemberKey,
    ConsumerGroupTargetAssignmentMemberValue, ConsumerGroupTargetAssignmentMetadataKey,
    ConsumerGroupTargetAssignmentMetadataValue, CoordinatorRecord, GroupMetadataKey,
    GroupMetadataValue, OffsetCommitKey, OffsetCommitValue,
};

use crate::coordinator::{Logged, Record};

/// The value version of a committed offset.
const OFFSET_COMMIT_VERSION: i16 = 3;
/// The value version of an offset with an expiry.
const OFFSET_COMMIT_WITH_EXPIRY_VERSION: i16 = 1;
/// The value version of an offset with a topic id.
const OFFSET_COMMIT_WITH_TOPIC_ID_VERSION: i16 = 4;
/// The value version of a classic group.
const GROUP_METADATA_VERSION: i16 = 3;

/// A decoded record. Without a value it is a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// A committed offset.
    Offset(OffsetCommitKey, Option<OffsetCommitValue>),
    /// A classic group.
    Group(GroupMetadataKey, Option<GroupMetadataValue>),
    /// The epoch of a group of the consumer protocol.
    Epoch(ConsumerGroupMetadataKey, Option<ConsumerGroupMetadataValue>),
    /// A member of such a group.
    Member(ConsumerGroupMemberMetadataKey, Option<ConsumerGroupMemberMetadataValue>),
    /// The epoch of its target assignment.
    TargetEpoch(
        ConsumerGroupTargetAssignmentMetadataKey,
        Option<ConsumerGroupTargetAssignmentMetadataValue>,
    ),
    /// The target assignment of a member.
    Target(
        ConsumerGroupTargetAssignmentMemberKey,
        Option<ConsumerGroupTargetAssignmentMemberValue>,
    ),
    /// The current assignment of a member.
    Current(
        ConsumerGroupCurrentMemberAssignmentKey,
        Option<ConsumerGroupCurrentMemberAssignmentValue>,
    ),
    /// The topics that match a regular expression.
    Regex(ConsumerGroupRegularExpressionKey, Option<ConsumerGroupRegularExpressionValue>),
    /// An unknown record; it stays in the log.
    Unknown,
}

/// Decodes a record.
///
/// # Errors
/// Why it cannot be decoded.
pub(super) fn read(record: &Logged<'_>) -> Result<Change, String> {
    let mut key = Bytes::copy_from_slice(record.key);
    if key.len() < 2 {
        return Err("the key has no type".to_owned());
    }
    let kind = key.get_i16();
    match kind {
        // Type 0 is a committed offset from before 0.11; both have the same fields.
        0 | OffsetCommitKey::RECORD_TYPE => {
            Ok(Change::Offset(fields(&mut key, 0)?, value(record.value)?))
        }
        GroupMetadataKey::RECORD_TYPE => {
            Ok(Change::Group(fields(&mut key, 0)?, value(record.value)?))
        }
        ConsumerGroupMetadataKey::RECORD_TYPE => {
            Ok(Change::Epoch(fields(&mut key, 0)?, value(record.value)?))
        }
        ConsumerGroupMemberMetadataKey::RECORD_TYPE => {
            Ok(Change::Member(fields(&mut key, 0)?, value(record.value)?))
        }
        ConsumerGroupTargetAssignmentMetadataKey::RECORD_TYPE => {
            Ok(Change::TargetEpoch(fields(&mut key, 0)?, value(record.value)?))
        }
        ConsumerGroupTargetAssignmentMemberKey::RECORD_TYPE => {
            Ok(Change::Target(fields(&mut key, 0)?, value(record.value)?))
        }
        ConsumerGroupCurrentMemberAssignmentKey::RECORD_TYPE => {
            Ok(Change::Current(fields(&mut key, 0)?, value(record.value)?))
        }
        ConsumerGroupRegularExpressionKey::RECORD_TYPE => {
            Ok(Change::Regex(fields(&mut key, 0)?, value(record.value)?))
        }
        _ => Ok(Change::Unknown),
    }
}

fn fields<M: CoordinatorRecord>(bytes: &mut Bytes, version: i16) -> Result<M, String> {
    M::decode(bytes, version).map_err(|error| format!("{}: {error}", M::NAME))
}

fn value<M: CoordinatorRecord>(bytes: Option<&[u8]>) -> Result<Option<M>, String> {
    let Some(bytes) = bytes else { return Ok(None) };
    let mut bytes = Bytes::copy_from_slice(bytes);
    if bytes.len() < 2 {
        return Err(format!("{}: no version", M::NAME));
    }
    let version = bytes.get_i16();
    fields(&mut bytes, version).map(Some)
}

/// The record of a committed offset; with `None` its tombstone.
pub(super) fn offset(
    group: &str,
    topic: &str,
    partition: i32,
    value: Option<&OffsetCommitValue>,
) -> Record {
    let key = OffsetCommitKey { group: group.to_owned(), topic: topic.to_owned(), partition };
    let version = |value: &OffsetCommitValue| match value {
        value if value.expire_timestamp >= 0 => OFFSET_COMMIT_WITH_EXPIRY_VERSION,
        value if value.topic_id.is_nil() => OFFSET_COMMIT_VERSION,
        _ => OFFSET_COMMIT_WITH_TOPIC_ID_VERSION,
    };
    record(&key, value.map(|value| (value, version(value))))
}

/// The record of a classic group; with `None` its tombstone.
pub(super) fn group(group: &str, value: Option<&GroupMetadataValue>) -> Record {
    let key = GroupMetadataKey { group: group.to_owned() };
    record(&key, value.map(|value| (value, GROUP_METADATA_VERSION)))
}

pub(super) fn record<K: CoordinatorRecord, V: CoordinatorRecord>(
    key: &K,
    value: Option<(&V, i16)>,
) -> Record {
    Record {
        key: encode(key, K::RECORD_TYPE, 0),
        value: value.map(|(value, version)| encode(value, version, version)),
    }
}

/// Encodes a message. Its strings come from requests with the same bounds, so none is too long.
fn encode<M: CoordinatorRecord>(message: &M, prefix: i16, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(prefix);
    if let Err(error) = message.encode(&mut bytes, version) {
        tracing::error!(message = M::NAME, %error, "a record of a group cannot be encoded: it is written in part, which is a bug");
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn logged(record: &Record) -> Logged<'_> {
        Logged { key: &record.key, value: record.value.as_deref(), transaction: None }
    }

    #[test]
    fn an_offset_is_written_as_kafka_writes_it() {
        let mut value = OffsetCommitValue {
            offset: 7,
            leader_epoch: 2,
            metadata: "m".to_owned(),
            commit_timestamp: 9,
            ..Default::default()
        };
        let written = offset("g", "t", 3, Some(&value));
        assert_eq!(&written.key[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x03");
        assert_eq!(
            written.value.as_deref().unwrap(),
            b"\0\x03\0\0\0\0\0\0\0\x07\0\0\0\x02\0\x01m\0\0\0\0\0\0\0\x09"
        );
        let Change::Offset(key, Some(read_back)) = read(&logged(&written)).unwrap() else {
            panic!("another record");
        };
        assert_eq!((key.partition, &read_back), (3, &value));
        value.topic_id = Uuid::from_u128(5);
        let written = offset("g", "t", 3, Some(&value));
        assert_eq!(written.value.as_deref().unwrap()[..2], [0, 4]);
        assert_eq!(read(&logged(&written)).unwrap(), Change::Offset(key, Some(value)));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_what_is_not_known_is_left_alone() {
        let read =
            |key: &[u8], value: Option<&[u8]>| read(&Logged { key, value, transaction: None });
        assert!(read(b"\0", None).is_err());
        assert!(read(b"\0\x02", None).is_err());
        assert!(read(b"\0\x02\0\x01g", Some(b"\0\x63")).is_err(), "a version from the future");
        assert!(read(b"\0\x02\0\x01g", Some(b"")).is_err());
        assert_eq!(read(b"\0\x63abc", None), Ok(Change::Unknown));
        let key = GroupMetadataKey { group: "g".to_owned() };
        assert_eq!(read(b"\0\x02\0\x01g", None), Ok(Change::Group(key, None)));
    }
}
