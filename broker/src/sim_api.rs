//! The pure cores of transactions for the simulation: a transaction coordinator, the group
//! coordinator's offsets, and the log of a partition's replica.
//!
//! Each does what its shell in the broker does, in the same order, and nothing else. The caller
//! provides time, network, files and the coordinators' logs, and decides what is committed.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod coordinator;
mod offsets;
mod partition;

use bytes::Bytes;
use weir_protocol::batch::BatchHeader;
use weir_protocol::types::{LeaderEpoch, ProducerEpoch, ProducerId};

pub use self::coordinator::{Answer, Ask, Coordinator, Prepared, at_rest};
pub use self::offsets::Offsets;
pub use self::partition::{Known, Partition};
pub use weir_log::Aborted;
pub use weir_log::producers::{Described, Guard, Marker};

/// A producer: its id and epoch.
pub type Producer = (ProducerId, ProducerEpoch);

/// A record of a coordinator's log: a key, and a value or a tombstone.
pub type Record = (Bytes, Option<Bytes>);

/// Returns the header of a transaction's batch with one record and no sequence number.
fn header((producer_id, producer_epoch): Producer) -> BatchHeader {
    const TRANSACTIONAL: i16 = 1 << 4;
    BatchHeader {
        base_offset: 0,
        batch_length: 0,
        leader_epoch: LeaderEpoch(0),
        crc: 0,
        attributes: TRANSACTIONAL,
        last_offset_delta: 0,
        base_timestamp: 0,
        max_timestamp: 0,
        producer_id,
        producer_epoch,
        base_sequence: -1,
        records_count: 1,
    }
}

fn now(ms: u64) -> crate::coordinator::Now {
    crate::coordinator::Now { ms, wall_ms: i64::try_from(ms).unwrap_or(i64::MAX) }
}

/// Returns the machine's records and its answer, which it gives at once.
fn answered<T>(
    receiver: tokio::sync::oneshot::Receiver<(T, Option<crate::coordinator::Commit>)>,
    outcome: crate::coordinator::Outcome,
) -> (Vec<Record>, Option<T>) {
    for reply in outcome.replies {
        reply.send(None);
    }
    let mut receiver = receiver;
    let answer = receiver.try_recv().ok().map(|(answer, _)| answer);
    (records(outcome.records), answer)
}

fn records(records: Vec<crate::coordinator::Record>) -> Vec<Record> {
    records.into_iter().map(|record| (record.key, record.value)).collect()
}
