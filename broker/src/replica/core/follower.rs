//! The decisions of a follower in one leader epoch (`AbstractFetcherThread` and
//! `ReplicaFetcherThread` in Apache Kafka 4.2, with KIP-320 and KIP-595).
//!
//! The shell asks [`FollowerState::next`] what to fetch and passes every answer to
//! [`FollowerState::answered`]. It does to the log what that returns, and then calls
//! [`FollowerState::step`]. A new leader epoch begins a new `FollowerState`. This module never
//! fetches, and never truncates the log itself.

#[cfg(test)]
mod tests;

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerId, LeaderEpoch};

use super::OwnLog;
use weir_log::EpochEnd;

/// The pause after a refused fetch, in milliseconds, unless `replica.fetch.backoff.ms` sets
/// another. It is a second in Apache Kafka; here a new leader takes less.
pub const FETCH_BACKOFF_MS: u64 = 100;

/// The pause after the first refusal, in milliseconds. Each further refusal doubles it, up to the
/// whole back-off.
const FIRST_BACKOFF_MS: u64 = 5;

/// A partition that this broker follows, in one leader epoch.
#[derive(Clone, Debug)]
pub struct FollowerState {
    leader: BrokerId,
    epoch: LeaderEpoch,
    high_watermark: i64,
    /// The leader's high watermark and log start offset in its last answer.
    leader_high_watermark: i64,
    leader_log_start: i64,
    fetching: Fetching,
    backoff_ms: u64,
    /// The number of refused fetches since the last successful one.
    refused: u32,
    /// The offset of the last fetch, if it was answered with records.
    records_from: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetching {
    Going,
    /// Waits after an error.
    Delayed {
        until: u64,
    },
    /// The leader knows a later epoch; the follower waits for its metadata.
    Fenced,
}

/// The fields of a partition in a fetch request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchFrom {
    /// The fetch offset: this replica has all records before it.
    pub offset: i64,
    /// The epoch of the last record before it; `None` if the log knows no epoch.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// The leader epoch in which this replica follows.
    pub current_leader_epoch: LeaderEpoch,
    /// This replica's log start offset.
    pub log_start: i64,
}

/// The next action of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Fetch.
    Fetch(FetchFrom),
    /// Ask again after the flush. With `flush.mode=group` the follower has a record only once it is
    /// flushed. A fetch from the log end would tell the leader too much. A fetch from the flushed
    /// offset would return the same records again.
    AfterFlush,
    /// Fetch nothing until this time.
    At(u64),
    /// Fetch nothing until new metadata arrives.
    Never,
}

/// The fields of a partition in the answer to a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchAnswer {
    /// [`ErrorCode::None`] on success.
    pub error: ErrorCode,
    /// The leader's high watermark.
    pub high_watermark: i64,
    /// The leader's log start offset.
    pub log_start: i64,
    /// The end of the epoch where the logs diverge; the answer then has no records.
    pub diverging: Option<EpochEnd>,
    /// Whether the answer has records.
    pub has_records: bool,
}

/// What the shell does with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Nothing.
    Nothing,
    /// Append the records.
    Append,
    /// Truncate the log to this end offset. Also if the log ends there already, because its epochs
    /// that begin there must go.
    Truncate(i64),
    /// Delete the whole log and begin it anew at the offset.
    Restart(i64),
    /// Ask the leader for the start and the end of its log (ListOffsets), and pass both to
    /// [`FollowerState::offsets`].
    AskOffsets,
}

/// The changes of the log after its end, or the flushed part of it, has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The new high watermark.
    pub high_watermark: i64,
    /// The new log start offset, which follows the leader's; `None`: no change.
    pub log_start: Option<i64>,
}

impl FollowerState {
    /// Begins to follow. `high_watermark` is the one that this broker knew before.
    pub fn begin(leader: BrokerId, epoch: LeaderEpoch, high_watermark: i64) -> Self {
        Self {
            leader,
            epoch,
            high_watermark: high_watermark.max(0),
            leader_high_watermark: 0,
            leader_log_start: 0,
            fetching: Fetching::Going,
            backoff_ms: FETCH_BACKOFF_MS,
            refused: 0,
            records_from: None,
        }
    }

    /// With another back-off after failed fetches, in milliseconds.
    #[must_use]
    pub fn backing_off(self, backoff_ms: u64) -> Self {
        Self { backoff_ms, ..self }
    }

    /// The leader.
    pub fn leader(&self) -> BrokerId {
        self.leader
    }

    /// The leader epoch.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// The offset after the last record that is known to be committed and that this replica has.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// The next action.
    pub fn next(&self, log: &OwnLog<'_>, now: u64) -> Next {
        match self.fetching {
            Fetching::Fenced => Next::Never,
            Fetching::Delayed { until } if until > now => Next::At(until),
            _ if log.had < log.end => Next::AfterFlush,
            _ => Next::Fetch(self.fetch(log)),
        }
    }

    fn fetch(&self, log: &OwnLog<'_>) -> FetchFrom {
        FetchFrom {
            offset: log.end,
            last_fetched_epoch: log.latest_epoch,
            current_leader_epoch: self.epoch,
            log_start: log.start,
        }
    }

    /// Takes up the leader's answer to a fetch. An answer for another epoch, or to a fetch from
    /// another place in the log, is late and changes nothing.
    pub fn answered(
        &mut self,
        to: &FetchFrom,
        answer: &FetchAnswer,
        log: &OwnLog<'_>,
        now: u64,
    ) -> Todo {
        let asked_now = self.fetch(log);
        let same_place =
            to.offset == asked_now.offset && to.last_fetched_epoch == asked_now.last_fetched_epoch;
        if to.current_leader_epoch != self.epoch || !same_place || self.fetching == Fetching::Fenced
        {
            return Todo::Nothing;
        }
        match answer.error {
            ErrorCode::None => {}
            ErrorCode::OffsetOutOfRange => return Todo::AskOffsets,
            ErrorCode::FencedLeaderEpoch => {
                self.fetching = Fetching::Fenced;
                return Todo::Nothing;
            }
            // UNKNOWN_LEADER_EPOCH, NOT_LEADER_OR_FOLLOWER and UNKNOWN_TOPIC_ID: the leader's
            // metadata is behind. Other errors may be temporary too.
            _ => {
                self.failed(now);
                return Todo::Nothing;
            }
        }
        self.fetching = Fetching::Going;
        // Records for the same offset again could not be appended the last time.
        if !answer.has_records || self.records_from != Some(to.offset) {
            self.refused = 0;
        }
        self.records_from = answer.has_records.then_some(to.offset);
        if let Some(theirs) = answer.diverging {
            return self.truncate(parted_at(theirs, log), log);
        }
        self.leader_high_watermark = answer.high_watermark;
        self.leader_log_start = answer.log_start;
        if answer.has_records { Todo::Append } else { Todo::Nothing }
    }

    /// Records that no answer came, or that it could not be used, and starts the back-off. The
    /// first pause is short: a new leader often learns of its election a moment after its
    /// followers.
    pub fn failed(&mut self, now: u64) {
        if self.fetching != Fetching::Fenced {
            let backoff_ms = FIRST_BACKOFF_MS
                .checked_shl(self.refused.min(32))
                .map_or(self.backoff_ms, |ms| ms.min(self.backoff_ms));
            self.refused = self.refused.saturating_add(1);
            self.fetching = Fetching::Delayed { until: now.saturating_add(backoff_ms) };
        }
    }

    /// How many fetches were refused or failed, one after the other.
    pub fn refused(&self) -> u32 {
        self.refused
    }

    /// Takes up the start and the end of the leader's log, asked for in this `epoch`
    /// (`AbstractFetcherThread.fetchOffsetAndTruncate`).
    pub fn offsets(
        &mut self,
        epoch: LeaderEpoch,
        leader_start: i64,
        leader_end: i64,
        log: &OwnLog<'_>,
        now: u64,
    ) -> Todo {
        if epoch != self.epoch || self.fetching == Fetching::Fenced {
            return Todo::Nothing;
        }
        if leader_end < log.end {
            return self.truncate(leader_end, log);
        }
        if leader_start > log.end {
            self.high_watermark = leader_start;
            return Todo::Restart(leader_start);
        }
        // The offset is in range by now. If it is not, the next attempt must not follow at once.
        self.failed(now);
        Todo::Nothing
    }

    fn truncate(&mut self, end: i64, log: &OwnLog<'_>) -> Todo {
        // Only an unclean election truncates committed records, and those are not committed any
        // more.
        self.high_watermark = self.high_watermark.min(end);
        if end < log.start { Todo::Restart(end) } else { Todo::Truncate(end) }
    }

    /// Whether the leader has committed more than this replica has, by its last answer.
    pub fn lags(&self, log: &OwnLog<'_>) -> bool {
        self.leader_high_watermark > log.end
    }

    /// Moves the high watermark and the log start offset after the leader's. Called after an
    /// append, a flush or an answer without records.
    pub fn step(&mut self, log: &OwnLog<'_>) -> Step {
        self.high_watermark = self.high_watermark.max(self.leader_high_watermark.min(log.had));
        let start = self.leader_log_start.min(self.high_watermark);
        Step {
            high_watermark: self.high_watermark,
            log_start: (start > log.start).then_some(start),
        }
    }
}

/// The offset where this log diverges from the leader's (`getOffsetTruncationState`). `theirs` is
/// the end of the leader's largest epoch that is not after this log's last one. If this log lacks
/// that epoch, the next fetch carries the largest earlier one, so the two logs converge step by
/// step.
fn parted_at(theirs: EpochEnd, log: &OwnLog<'_>) -> i64 {
    match (log.end_of_epoch)(theirs.epoch) {
        Some(ours) if ours.epoch == theirs.epoch => ours.offset.min(theirs.offset).min(log.end),
        Some(ours) => ours.offset.min(log.end),
        None => theirs.offset.min(log.end),
    }
}
