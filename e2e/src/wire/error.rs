//! Kafka's error codes that the tests expect.

/// A failure without a code of its own.
pub const UNKNOWN_SERVER_ERROR: i16 = -1;
/// No error.
pub const NONE: i16 = 0;
/// The offset lies outside the log.
pub const OFFSET_OUT_OF_RANGE: i16 = 1;
/// The checksum or the size of a batch is wrong.
pub const CORRUPT_MESSAGE: i16 = 2;
/// The topic or partition does not exist.
pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
/// The partition has no leader yet.
pub const LEADER_NOT_AVAILABLE: i16 = 5;
/// Another broker leads the partition, or none.
pub const NOT_LEADER_OR_FOLLOWER: i16 = 6;
/// A batch exceeds `max.message.bytes`.
pub const MESSAGE_TOO_LARGE: i16 = 10;
/// The topic name is not legal.
pub const INVALID_TOPIC_EXCEPTION: i16 = 17;
/// The group has no such member.
pub const UNKNOWN_MEMBER_ID: i16 = 25;
/// A record's timestamp is out of the topic's bounds.
pub const INVALID_TIMESTAMP: i16 = 32;
/// The broker does not serve the version.
pub const UNSUPPORTED_VERSION: i16 = 35;
/// A topic of this name exists already.
pub const TOPIC_ALREADY_EXISTS: i16 = 36;
/// The number of partitions is not valid.
pub const INVALID_PARTITIONS: i16 = 37;
/// The replication factor is not valid.
pub const INVALID_REPLICATION_FACTOR: i16 = 38;
/// The value is not valid, or the configuration does not exist.
pub const INVALID_CONFIG: i16 = 40;
/// The request is not valid.
pub const INVALID_REQUEST: i16 = 42;
/// The batch has a format that brokers no longer accept.
pub const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
/// One request asks for too many changes.
pub const POLICY_VIOLATION: i16 = 44;
/// A gap in a producer's sequence.
pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
/// A sequence number that is too old to find its offset.
pub const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
/// An epoch below the producer's current one.
pub const INVALID_PRODUCER_EPOCH: i16 = 47;
/// A transactional batch without an open transaction.
pub const INVALID_TXN_STATE: i16 = 48;
/// A transactional batch in a request without a transactional id.
pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
/// A leader epoch below the partition's current one.
pub const FENCED_LEADER_EPOCH: i16 = 74;
/// A leader epoch above the partition's current one.
pub const UNKNOWN_LEADER_EPOCH: i16 = 75;
/// The codec does not exist, or not in this version.
pub const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
/// A record violates the format.
pub const INVALID_RECORD: i16 = 87;
