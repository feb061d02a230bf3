//! Bounds of the cluster and of single requests.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// The most partitions that one request may create, as in Apache Kafka
/// (`ReplicationControlManager.MAX_PARTITIONS_PER_BATCH`).
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// The most changes that one request of a Kafka client may make, and the most things that it may
/// name to change, as in Apache Kafka (`QuorumController.MAX_RECORDS_PER_USER_OP`): while one is
/// decided, all others wait.
pub const RECORDS_PER_REQUEST_MAX: usize = 10_000;

/// The most partitions of a cluster: what its shards can hold and a failover can write in good
/// time.
pub const PARTITIONS_MAX: usize = 200_000;

/// The most topics and partitions that a request may name that only asks about them: each partition
/// of the largest cluster, as `kafka-topics --describe` does, with a topic for each. Apache Kafka
/// has no bound.
pub const NAMED_TO_LIST_MAX: usize = 2 * PARTITIONS_MAX;

/// Producer ids that a broker gets at a time: so many producers begin while no controller is there.
/// Apache Kafka has 1,000 (`ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub const PRODUCER_IDS_PER_BLOCK: i64 = 10_000;

/// The most bytes of settings on one topic or broker: they are kept in memory and sent to every
/// broker.
pub const SETTINGS_BYTES_MAX: usize = 32 * 1024;

/// Why a topic of the brokers' own keeps its number of partitions. Apache Kafka's coordinators go
/// by the number that they started with, and lose what they keep with the next start.
pub(super) const BY_NUMBER: &str =
    "groups and transactions are kept in partitions that are found by it";
