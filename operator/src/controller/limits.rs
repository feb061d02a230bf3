//! Bounds of the cluster and of single requests.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// The most partitions that one request may create, as in Apache Kafka
/// (`ReplicationControlManager.MAX_PARTITIONS_PER_BATCH`).
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// The most changes that one request of a Kafka client may make, and the most things that it may
/// name to change. The value is Apache Kafka's (`QuorumController.MAX_RECORDS_PER_USER_OP`). All
/// other requests wait for the decision.
pub const RECORDS_PER_REQUEST_MAX: usize = 10_000;

/// The most partitions of a cluster: its shards can hold them, and a failover can write them in
/// reasonable time.
pub const PARTITIONS_MAX: usize = 200_000;

/// The most topics and partitions that a read-only request may name. It suffices for each partition
/// of the largest cluster with a topic for each, as `kafka-topics --describe` asks. Apache Kafka
/// has no bound.
pub const NAMED_TO_LIST_MAX: usize = 2 * PARTITIONS_MAX;

/// The number of producer ids that a broker gets at a time. So many producers can start while no
/// controller is available. Apache Kafka has 1,000 (`ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub const PRODUCER_IDS_PER_BLOCK: i64 = 10_000;

/// The most bytes of settings on one topic or broker. The controller keeps them in memory and sends
/// them to every broker.
pub const SETTINGS_BYTES_MAX: usize = 32 * 1024;

/// The most bytes that the SCRAM credentials of all users take in a store: some 4,000 for
/// SCRAM-SHA-512. On Kubernetes they are in one Secret, which holds 1 MiB (`MaxSecretSize`).
pub const CREDENTIALS_BYTES_MAX: usize = 1_000_000;

/// Why an internal topic keeps its number of partitions. Apache Kafka's coordinators use the number
/// from their start, and lose their data at the next start.
pub(super) const BY_NUMBER: &str =
    "groups and transactions are kept in partitions that are found by it";
