//! What a follower of a partition decides in one leader epoch (`AbstractFetcherThread` and
//! `ReplicaFetcherThread` in Apache Kafka 4.2, with KIP-320 and KIP-595).
//!
//! The shell asks [`Following::next`] what to fetch, hands every answer to [`Following::answered`],
//! does what it says to the log, and then calls [`Following::step`]. Ends with the leader epoch: a
//! new one begins a new `Following`. Never fetches, and never cuts the log itself.

#[cfg(test)]
mod tests;

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerId, LeaderEpoch};

use super::OwnLog;
use crate::log::EpochEnd;

/// How long a partition is left alone after its leader refused a fetch, in milliseconds, where
/// `replica.fetch.backoff.ms` does not say. It is a second in Apache Kafka; a new leader is a
/// matter of less here.
pub const FETCH_BACKOFF_MS: u64 = 100;

/// How long it is left alone after the first refusal; each one after that doubles it, up to the
/// whole back-off.
const FIRST_BACKOFF_MS: u64 = 5;

/// A partition that this broker follows, in one leader epoch.
#[derive(Clone, Debug)]
pub struct Following {
    leader: BrokerId,
    epoch: LeaderEpoch,
    high_watermark: i64,
    /// What the leader said last: its high watermark and where its log starts.
    leader_high_watermark: i64,
    leader_log_start: i64,
    fetching: Fetching,
    backoff_ms: u64,
    /// Fetches that were refused since the last that was answered.
    refused: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetching {
    Going,
    /// After an error.
    Delayed {
        until: u64,
    },
    /// The leader knows of a later epoch: its metadata is awaited.
    Fenced,
}

/// A partition's place in a fetch request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchFrom {
    /// From where: this replica has all before it.
    pub offset: i64,
    /// The epoch of the last record before it, as far as the log knows one.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// The leader epoch that is asked for.
    pub current_leader_epoch: LeaderEpoch,
    /// Where this replica's log starts.
    pub log_start: i64,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Fetch.
    Fetch(FetchFrom),
    /// What was appended counts as had only once it is flushed: ask again then. To fetch from the
    /// log's end would tell the leader more than is true, to fetch from what is had would bring the
    /// same records again.
    AfterFlush,
    /// Leave the leader alone until this time.
    At(u64),
    /// Nothing until there is new metadata.
    Never,
}

/// A partition's place in the answer to a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchAnswer {
    /// `None` of it when all is well.
    pub error: ErrorCode,
    /// The leader's high watermark.
    pub high_watermark: i64,
    /// Where the leader's log starts.
    pub log_start: i64,
    /// Where this replica's log left the leader's; there are no records then.
    pub diverging: Option<EpochEnd>,
    /// Whether records came.
    pub has_records: bool,
}

/// What an answer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Nothing.
    Nothing,
    /// Append the records.
    Append,
    /// Cut the log: the offset is the new end. Also where that is the end already, for what the log
    /// knows of epochs that begin there must go.
    Truncate(i64),
    /// Throw the whole log away: it begins anew at the offset.
    Restart(i64),
    /// Ask the leader where its log starts and ends (ListOffsets), and pass both to
    /// [`Following::offsets`].
    AskOffsets,
}

/// What is to be done to the log after its end has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The high watermark as it is now.
    pub high_watermark: i64,
    /// The log starts here now, because the leader's does; `None`: no change.
    pub log_start: Option<i64>,
}

impl Following {
    /// Begins to follow. `high_watermark` is what this broker knew before.
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
        }
    }

    /// With another time for which a failed fetch is not repeated, in milliseconds.
    #[must_use]
    pub fn backing_off(self, backoff_ms: u64) -> Self {
        Self { backoff_ms, ..self }
    }

    /// Whom it follows.
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

    /// What to do next.
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

    /// Takes up the leader's answer to a fetch. One that belongs to another epoch, or to a log that
    /// has changed since, came too late and asks for nothing.
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
            // metadata is behind. Anything else may pass too.
            _ => {
                self.failed(now);
                return Todo::Nothing;
            }
        }
        self.fetching = Fetching::Going;
        self.refused = 0;
        if let Some(theirs) = answer.diverging {
            return self.truncate(parted_at(theirs, log), log);
        }
        self.leader_high_watermark = answer.high_watermark;
        self.leader_log_start = answer.log_start;
        if answer.has_records { Todo::Append } else { Todo::Nothing }
    }

    /// No answer came, or nothing could be done with it: the leader is left alone for a while, at
    /// first for a short one. A leader that has just been elected often hears of it a moment later
    /// than its followers.
    pub fn failed(&mut self, now: u64) {
        if self.fetching != Fetching::Fenced {
            let backoff_ms = FIRST_BACKOFF_MS
                .checked_shl(self.refused)
                .map_or(self.backoff_ms, |ms| ms.min(self.backoff_ms));
            self.refused = self.refused.saturating_add(1).min(32);
            self.fetching = Fetching::Delayed { until: now.saturating_add(backoff_ms) };
        }
    }

    /// Takes up where the leader's log starts and ends, asked for in this `epoch`
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
        // In range after all by now. If it is not, the next try must not follow at once.
        self.failed(now);
        Todo::Nothing
    }

    fn truncate(&mut self, end: i64, log: &OwnLog<'_>) -> Todo {
        // Only an unclean election cuts off what was committed; then it is not committed any more.
        self.high_watermark = self.high_watermark.min(end);
        if end < log.start { Todo::Restart(end) } else { Todo::Truncate(end) }
    }

    /// Whether the leader is known to have committed more than this replica has.
    pub fn lags(&self, log: &OwnLog<'_>) -> bool {
        self.leader_high_watermark > log.end
    }

    /// Moves the high watermark with the leader's, after an append or a flush, and the log's start
    /// with the leader's.
    pub fn step(&mut self, log: &OwnLog<'_>) -> Step {
        self.high_watermark = self.high_watermark.max(self.leader_high_watermark.min(log.had));
        let start = self.leader_log_start.min(self.high_watermark);
        Step {
            high_watermark: self.high_watermark,
            log_start: (start > log.start).then_some(start),
        }
    }
}

/// Where this log left its leader's, given the end of the largest epoch there that is not after
/// this log's last one (`getOffsetTruncationState`). Where this log does not know that epoch, the
/// next fetch asks with the largest one that it does, so that the two meet step by step.
fn parted_at(theirs: EpochEnd, log: &OwnLog<'_>) -> i64 {
    match (log.end_of_epoch)(theirs.epoch) {
        Some(ours) if ours.epoch == theirs.epoch => ours.offset.min(theirs.offset).min(log.end),
        Some(ours) => ours.offset.min(log.end),
        None => theirs.offset.min(log.end),
    }
}
