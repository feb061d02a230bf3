//! The rules of replication: the decisions of a leader and of a follower of one partition.
//!
//! Pure: no I/O, no clock, no randomness. Time is an argument, in milliseconds on a monotonic
//! clock. The partition's shell in `replica` calls both cores. The simulation checks them together
//! with the controller's core. The cores never touch a record: they deal in offsets and epochs, and
//! tell the shell what to do.
//!
//! Invariants
//! - The high watermark of a [`Leadership`] never goes back and never passes what the leader itself
//!   has. It stands still while the committed ISR is smaller than its minimum.
//! - The high watermark waits for every replica that is or may become a member of the ISR. A
//!   proposed addition counts from its proposal on, a proposed removal only once it is committed. A
//!   refused addition counts for as long as an unanswered copy of the request may still arrive.
//! - A [`FollowerState`] truncates its log by epochs and by the leader's log, never by a high
//!   watermark.
//! - A fetch, answer or state that is late by its epoch or offset changes nothing.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod follower;
pub mod leader;

use weir_protocol::types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch};

pub use self::follower::{FetchAnswer, FetchFrom, FollowerState, Next, Step, Todo};
pub use self::leader::{Leadership, Settings, Start};
use weir_log::EpochEnd;

/// The committed state of a partition, as far as its leader uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// The replicas that have all committed records.
    pub isr: Vec<BrokerId>,
    /// Rises with each new leader.
    pub leader_epoch: LeaderEpoch,
    /// Rises with each change of this state.
    pub partition_epoch: PartitionEpoch,
    /// The leader was elected uncleanly and has not reported its recovery yet.
    pub recovering: bool,
    /// Replicas outside the ISR are eligible as leaders, too (KIP-966). The controller counts the
    /// ISR as below its minimum, so that the ISR commits nothing. The controller may know a newer
    /// minimum than the leader.
    pub has_eligible: bool,
}

/// An ISR that a leader proposes to the controller (AlterPartition).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The state that the proposal builds on. The controller compares its epochs.
    pub base: PartitionState,
    /// The whole ISR with the leader, and the broker epoch under which each member fetched; -1 for
    /// a member that has not fetched from this leader.
    pub isr: Vec<(BrokerId, BrokerEpoch)>,
    /// The leader, elected uncleanly, has recovered.
    pub recovered: bool,
}

/// The metadata of another broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The epoch of its registration.
    pub epoch: BrokerEpoch,
    /// Registered, but not alive or not ready.
    pub fenced: bool,
    /// In a controlled shutdown.
    pub shutting_down: bool,
}

/// Looks up a broker in the metadata; `None` when it is not registered.
pub type Peers<'a> = &'a dyn Fn(BrokerId) -> Option<Peer>;

/// The replica's own log as the cores see it.
#[derive(Clone, Copy)]
pub struct OwnLog<'a> {
    /// The first offset that it holds.
    pub start: i64,
    /// The offset after its last record.
    pub end: i64,
    /// The end of what this broker has: the flushed offset with `flush.mode=group`, the log end
    /// offset with `none`.
    pub had: i64,
    /// The newest leader epoch that it knows (`LeaderEpochFileCache.latestEpoch`).
    pub latest_epoch: Option<LeaderEpoch>,
    /// The end of the largest epoch that is not after the given one
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
