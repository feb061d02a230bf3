//! The rules of replication: what a leader and a follower of one partition decide.
//!
//! Pure: no I/O, no clock (time is an argument, in milliseconds on a clock that never goes back),
//! no randomness. Driven by the partition's shell in `replica`, and by the simulation, which proves
//! both cores together with the controller's. Neither core ever touches a record: they deal in
//! offsets and epochs, and say what the shell has to do.
//!
//! Invariants
//! - The high watermark of a [`Leadership`] never goes back and never passes what the leader itself
//!   has. It stands still while the committed ISR is smaller than its minimum.
//! - The high watermark waits for every replica that is or may become a member of the ISR. A
//!   proposed addition counts from its proposal on, a proposed removal only once it is committed. A
//!   refused addition counts for as long as an unanswered copy of the request may still arrive.
//! - A [`Following`] cuts its log by epochs and by what its leader has, never by a high watermark.
//! - A late fetch, answer or state, by its epoch or offset, changes nothing.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod asked;
pub mod follower;
pub mod leader;

use weir_protocol::types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch};

pub use self::asked::Asked;
pub use self::follower::{FetchAnswer, FetchFrom, Following, Next, Step, Todo};
pub use self::leader::{Leadership, Settings, Start};
use crate::log::EpochEnd;

/// What the controller has committed of a partition, as far as its leader goes by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// The replicas that hold all that is committed.
    pub isr: Vec<BrokerId>,
    /// Counts its leaders.
    pub leader_epoch: LeaderEpoch,
    /// Counts its changes.
    pub partition_epoch: PartitionEpoch,
    /// The leader was elected uncleanly and has not said yet that it has recovered.
    pub recovering: bool,
    /// Others than the ISR may be elected, too (KIP-966): the controller takes the ISR to be below
    /// its minimum, and nothing to be committed by it. It may know of another minimum than the
    /// leader does yet.
    pub has_eligible: bool,
}

/// The ISR that a leader asks the controller for (AlterPartition).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The state that it builds on, by its epochs.
    pub base: PartitionState,
    /// The whole ISR, the leader included, and the epoch under which each member fetched; -1 for
    /// one that has not fetched from this leader.
    pub isr: Vec<(BrokerId, BrokerEpoch)>,
    /// The leader, elected uncleanly, has recovered.
    pub recovered: bool,
}

/// What the metadata says of another broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The epoch of its registration.
    pub epoch: BrokerEpoch,
    /// Not alive, or not ready.
    pub fenced: bool,
    /// In a controlled shutdown.
    pub shutting_down: bool,
}

/// Looks brokers up in the metadata; `None` for one that is not registered.
pub type Peers<'a> = &'a dyn Fn(BrokerId) -> Option<Peer>;

/// The replica's own log as a decision sees it.
#[derive(Clone, Copy)]
pub struct OwnLog<'a> {
    /// The first offset that it holds.
    pub start: i64,
    /// The offset after its last record.
    pub end: i64,
    /// The offset up to which it counts as had: with `flush.mode=group` what is on the disk, with
    /// `none` the end.
    pub had: i64,
    /// The newest leader epoch that it knows (`LeaderEpochFileCache.latestEpoch`).
    pub latest_epoch: Option<LeaderEpoch>,
    /// Where the largest epoch ends that is not after the one that is asked for
    /// (`LeaderEpochFileCache.endOffsetFor`).
    pub end_of_epoch: &'a dyn Fn(LeaderEpoch) -> Option<EpochEnd>,
}

impl std::fmt::Debug for OwnLog<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnLog")
            .field("start", &self.start)
            .field("end", &self.end)
            .field("had", &self.had)
            .field("latest_epoch", &self.latest_epoch)
            .finish_non_exhaustive()
    }
}
