//! The committed offsets of a group coordinator, as transactions commit them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use uuid::Uuid;
use weir_protocol::controller as rpc;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::OffsetCommitRequest;
use weir_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use weir_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use weir_protocol::types::{ControllerEpoch, LeaderEpoch};
use weir_settings::Layers;

use super::{Guard, Marker, Producer, Record, answered, header, now};
use crate::coordinator::{
    InTransaction, Logged, Origin, Outcome, ReplyTo, StateMachine, Transactional,
};
use crate::group::{GroupMemory, Groups, Request};
use crate::metadata::MetadataImage;
use weir_log::Prepared as Batch;

/// The topic of the committed offsets.
const TOPIC: &str = "input";

/// A group coordinator, in one leader epoch, and the transactions in its partition.
pub struct Offsets {
    machine: Groups,
    transactional: Transactional,
}

impl std::fmt::Debug for Offsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Offsets")
    }
}

impl Offsets {
    /// Creates a coordinator that has read no log.
    pub fn new(epoch: i32) -> Self {
        let origin = Origin { partition: 0, epoch: LeaderEpoch(epoch), seed: 1 };
        Self {
            machine: Groups::new(origin, &GroupMemory::default()),
            transactional: Transactional::default(),
        }
    }

    /// Replays a record of the log that was written in a transaction.
    pub fn replay(&mut self, producer: Producer, (key, value): &Record, ms: u64) {
        let _ = self.machine.replay(&Logged {
            key,
            value: value.as_deref(),
            transaction: Some(producer),
        });
        self.transactional.appended(&header(producer), &[], now(ms).wall_ms);
    }

    /// Replays a marker of the log.
    pub fn replay_marker(&mut self, marker: Marker, ms: u64) {
        self.machine.end_transaction(marker.producer, marker.epoch, marker.commit);
        self.append_marker(marker, ms);
    }

    /// Ends the replay of the log.
    pub fn loaded(&mut self, ms: u64) {
        let mut outcome = Outcome::default();
        // The coordinator would drop the offsets of a topic that does not exist.
        let topic = rpc::Topic {
            id: Uuid::from_u128(1).as_bytes().to_vec(),
            name: TOPIC.to_owned(),
            partitions: vec![rpc::Partition::default()],
            ..Default::default()
        };
        let update = rpc::MetadataUpdate {
            version: 1,
            full: true,
            topics: vec![topic],
            ..Default::default()
        };
        let image = MetadataImage::default().after(ControllerEpoch(1), &update);
        let image = image.map(|(image, ..)| image).unwrap_or_default();
        self.machine.metadata(&Arc::new(image), &Layers::default(), now(ms), &mut outcome);
    }

    /// Notes that the transaction's coordinator is asked. Returns `None` if the transaction is open
    /// here.
    pub fn ask_to_verify(&mut self, producer: Producer) -> Option<Guard> {
        self.transactional.ask(producer)
    }

    /// Commits the offset of a group in a transaction. Returns the records to append.
    ///
    /// # Errors
    /// The error code for the client.
    pub fn commit(
        &mut self,
        producer: Producer,
        guard: Option<Guard>,
        group: &str,
        offset: i64,
        ms: u64,
    ) -> Result<Vec<Record>, ErrorCode> {
        self.transactional.admit(InTransaction { producer, guard })?;
        let request = OffsetCommitRequest {
            group_id: group.to_owned(),
            generation_id_or_member_epoch: -1,
            topics: vec![OffsetCommitRequestTopic {
                name: TOPIC.to_owned(),
                partitions: vec![OffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let (written, _) =
            self.decide(ms, |to| Request::CommitInTransaction { request, producer, to });
        self.transactional.appended(&header(producer), &[], now(ms).wall_ms);
        Ok(written)
    }

    /// Ends a producer's transaction. The caller appends the marker.
    ///
    /// # Errors
    /// For a late marker.
    pub fn end(&mut self, marker: Marker, ms: u64) -> Result<(), ErrorCode> {
        self.transactional.admit_marker(&marker)?;
        self.machine.end_transaction(marker.producer, marker.epoch, marker.commit);
        self.append_marker(marker, ms);
        Ok(())
    }

    /// The committed offset of a group, 0 for none.
    ///
    /// # Errors
    /// UNSTABLE_OFFSET_COMMIT while a transaction may change it (`require_stable`).
    pub fn committed(&mut self, group: &str, ms: u64) -> Result<i64, ErrorCode> {
        let request = OffsetFetchRequestGroup {
            group_id: group.to_owned(),
            member_epoch: -1,
            topics: Some(vec![OffsetFetchRequestTopics {
                name: TOPIC.to_owned(),
                partition_indexes: vec![0],
                ..Default::default()
            }]),
            ..Default::default()
        };
        let (_, answer) =
            self.decide(ms, |to| Request::Fetch { request, require_stable: true, to });
        let topic = answer.and_then(|answer| answer.topics.into_iter().next());
        let partition = topic.and_then(|topic| topic.partitions.into_iter().next());
        match partition {
            Some(partition) if partition.error_code == 0 => Ok(partition.committed_offset.max(0)),
            Some(partition) => Err(ErrorCode::from_code(partition.error_code)),
            None => Err(ErrorCode::UnknownServerError),
        }
    }

    fn append_marker(&mut self, marker: Marker, ms: u64) {
        let wall_ms = now(ms).wall_ms;
        let Ok(batch) = Batch::marker(marker, wall_ms) else { return };
        for (header, bytes) in batch.batches() {
            self.transactional.appended(&header, bytes, wall_ms);
        }
    }

    fn decide<T: Send + 'static>(
        &mut self,
        ms: u64,
        make: impl FnOnce(ReplyTo<T>) -> Request,
    ) -> (Vec<Record>, Option<T>) {
        let (to, receiver) = ReplyTo::new();
        let mut outcome = Outcome::default();
        self.machine.decide(make(to), now(ms), &mut outcome);
        answered(receiver, outcome)
    }
}
