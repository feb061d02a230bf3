//! The follower's part: decides what to fetch, appends or cuts what the leader answers, and moves
//! its high watermark after the leader's.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{info, warn};
use weir_protocol::error::ErrorCode;
use weir_protocol::types::LeaderEpoch;

use super::{Core, Partition, Role};
use crate::replica::core::{
    FetchAnswer, FetchFrom, FollowerState, Next, OwnLog, PartitionState, Todo,
};
use weir_log::{FollowError, LogWriter};

impl Partition {
    /// Runs `act` with the follower's state in `epoch` and the current log; `None` when this broker
    /// does not follow in that epoch.
    fn following<R>(
        &self,
        epoch: LeaderEpoch,
        act: impl FnOnce(&mut FollowerState, &OwnLog<'_>) -> R,
    ) -> Option<R> {
        match &mut *self.core.lock() {
            Core::Follower(following) if following.epoch() == epoch => {
                Some(self.with_own_log(|log| act(following, log)))
            }
            _ => None,
        }
    }

    /// The next fetch as a follower in `epoch`; `None` when this broker does not follow in that
    /// epoch any more.
    pub(crate) fn next_fetch(&self, epoch: LeaderEpoch) -> Option<Next> {
        self.following(epoch, |following, log| following.next(log, self.shared.now()))
    }

    /// The time of the next fetch, if fetches for throttled replicas exceed the quota; `None` to
    /// fetch now. A replica that is in sync does not wait
    /// (`ReplicaFetcherThread.shouldFollowerThrottle`).
    pub(crate) fn throttled_until(&self, epoch: LeaderEpoch) -> Option<u64> {
        if !self.throttled().follower {
            return None;
        }
        let until = self.shared.follower_quota.exceeded_until(self.shared.now())?;
        let lags = self.following(epoch, |following, log| following.lags(log));
        (lags == Some(true)).then_some(until)
    }

    /// Decides what to do with the leader's answer.
    pub(crate) fn fetch_answered(
        &self,
        epoch: LeaderEpoch,
        to: &FetchFrom,
        answer: &FetchAnswer,
    ) -> Todo {
        self.following(epoch, |following, log| {
            following.answered(to, answer, log, self.shared.now())
        })
        .unwrap_or(Todo::Nothing)
    }

    /// Decides what to do with the start and the end of the leader's log.
    pub(crate) fn leader_offsets(&self, epoch: LeaderEpoch, start: i64, end: i64) -> Todo {
        self.following(epoch, |following, log| {
            following.offsets(epoch, start, end, log, self.shared.now())
        })
        .unwrap_or(Todo::Nothing)
    }

    /// Records that the fetch failed, or that its answer could not be used.
    pub(crate) fn fetch_failed(&self, epoch: LeaderEpoch) {
        self.following(epoch, |following, _| following.failed(self.shared.now()));
    }

    /// Logs that the leader cannot send what this replica needs: it has it damaged, or its disk
    /// fails.
    pub(crate) fn is_refused(&self, epoch: LeaderEpoch, offset: i64, code: ErrorCode) {
        if let Some(times) = self.must_tell(epoch) {
            warn!(leader = self.followed(), topic = %self.topic(), partition = self.id().index, offset, times, error = code.name(), "the leader cannot read what this replica lacks; trying again");
        }
    }

    /// How many fetches have failed in a row, if that is worth a log line: the first, the second,
    /// the fourth, and so on.
    fn must_tell(&self, epoch: LeaderEpoch) -> Option<u32> {
        let times = self.following(epoch, |following, _| following.refused())?;
        times.is_power_of_two().then_some(times)
    }

    /// Appends the records that the leader sent for a fetch in `epoch`, and requests a flush if
    /// `flush.mode` needs one. Returns whether that succeeded.
    pub(crate) async fn follow(self: &Arc<Self>, records: Bytes, epoch: LeaderEpoch) -> bool {
        let partition = Arc::clone(self);
        let appended = self.with_writer(move |writer| {
            if !matches!(partition.role(), Role::Follower { epoch: now, .. } if now == epoch) {
                // The role has changed since the fetch, so the records are not from the current
                // leader.
                return Ok(());
            }
            let now_ms = crate::replica::clock::now_ms();
            let appended = match writer.append_as_follower(&records, epoch, now_ms) {
                // The log is empty, and starts in the middle of the leader's first batch.
                // DeleteRecords causes that (`Partition.appendRecordsToFollowerOrFutureReplica`).
                Err(FollowError::Offset { first, last, end }) if end == partition.log.log_start_offset() && first < end && last >= end => {
                    info!(leader = partition.followed(), topic = %partition.topic(), partition = partition.id().index, offset = first, "the log begins with a batch that the leader has cut into");
                    writer.truncate_fully_and_start_at(first).map_err(|_| FollowError::Storage)?;
                    writer.append_as_follower(&records, epoch, now_ms)
                }
                appended => appended,
            };
            partition.commit();
            appended.map(|_| ())
        });
        match appended.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                self.fetch_failed(epoch);
                if let Some(times) = self.must_tell(epoch) {
                    warn!(leader = self.followed(), topic = %self.topic(), partition = self.id().index, times, %error, "cannot append what the leader sent; trying again");
                }
                false
            }
            Err(_) => {
                self.fetch_failed(epoch);
                false
            }
        }
    }

    /// Truncates the log, or restarts it at another offset, as decided for `epoch`.
    pub(crate) async fn cut(self: &Arc<Self>, epoch: LeaderEpoch, todo: Todo) {
        let partition = Arc::clone(self);
        let cut = self.with_writer(move |writer| {
            if !matches!(partition.role(), Role::Follower { epoch: now, .. } if now == epoch) {
                return Ok(());
            }
            let before = partition.log.log_end_offset();
            let end_offset = match todo {
                Todo::Truncate(offset) => writer.truncate_to(offset)?,
                Todo::Restart(offset) => writer.truncate_fully_and_start_at(offset)?,
                Todo::Nothing | Todo::Append | Todo::AskOffsets => return Ok(()),
            };
            // The end stays when the truncation only removes an epoch without records.
            if end_offset != before {
                info!(leader = partition.followed(), topic = %partition.topic(), partition = partition.id().index, before, end_offset, epoch = epoch.0, "cut the log to follow its leader");
            }
            partition.commit();
            Ok::<_, std::io::Error>(())
        });
        if !matches!(cut.await, Ok(Ok(()))) {
            // The log directory is offline, which is reported there.
            self.fetch_failed(epoch);
        }
    }

    /// Moves the high watermark and the log start offset after the leader's.
    pub(crate) fn step(self: &Arc<Self>) {
        let mut core = self.core.lock();
        let Core::Follower(following) = &mut *core else { return };
        let step = self.with_own_log(|log| following.step(log));
        // With `core` locked: a truncation, which lowers the high watermark, is decided under the
        // same lock.
        let is_raised = self.log.advance_high_watermark(step.high_watermark);
        drop(core);
        if is_raised {
            self.waiters.wake_all();
        }
        if let Some(start) = step.log_start {
            let partition = Arc::clone(self);
            self.spawn_on_writer(move |writer| {
                if let Err(error) = writer.advance_log_start_offset(start) {
                    warn!(leader = partition.followed(), topic = %partition.topic(), partition = partition.id().index, %error, "cannot delete what the leader has deleted; it is tried again with the next answer");
                }
            });
        }
    }

    /// Deletes what the leader in `epoch` has deleted, and waits for the writer if it is busy. The
    /// next fetch then carries the new log start offset. The session omits a partition whose fetch
    /// is unchanged. The leader would then learn the new start only with the next other change.
    pub(crate) async fn follow_log_start(self: &Arc<Self>, epoch: LeaderEpoch) {
        let step = self.following(epoch, |following, log| following.step(log));
        let Some(start) = step.and_then(|step| step.log_start) else { return };
        let partition = Arc::clone(self);
        let deleted = self.with_writer(move |writer| match partition.role() {
            Role::Follower { epoch: now, .. } if now == epoch => {
                writer.advance_log_start_offset(start)
            }
            _ => Ok(()),
        });
        if let Ok(Err(error)) = deleted.await {
            warn!(leader = self.followed(), topic = %self.topic(), partition = self.id().index, %error, "cannot delete what the leader has deleted; it is tried again with the next answer");
        }
    }

    /// The id of the leader that it follows, for a line about that.
    pub(crate) fn followed(&self) -> Option<i32> {
        match self.role() {
            Role::Follower { leader, .. } => Some(leader.0),
            Role::Leader { .. } | Role::Idle { .. } => None,
        }
    }

    /// Settles what becomes of a log that lacks records at its end, before it takes up another
    /// role. Where this replica is in sync, others count on all that it has. In a role nothing is
    /// cut: what a fetch on its way brings would leave a gap.
    pub(super) fn resolve_missing(
        &self,
        writer: &mut LogWriter,
        wanted: Role,
        state: &PartitionState,
    ) {
        let before = self.role();
        if before == wanted || before.epoch() != wanted.epoch() || self.is_retired() {
            return;
        }
        match wanted {
            Role::Follower { .. } if !state.isr.contains(&self.shared.own) => {
                // When this fails, the log directory goes offline, which is reported there.
                let _ = writer.cut_missing();
            }
            Role::Follower { .. } | Role::Idle { .. } => {}
            Role::Leader { .. } => writer.accept_missing(),
        }
    }

    /// Whether the flush of all records appended as a follower in `epoch` is done, so that the next
    /// fetch can acknowledge them. Also true when this broker does not follow in that epoch any
    /// more, because the log is deleted or has another leader. Then there is nothing to wait for.
    pub(crate) fn has_all(&self, epoch: LeaderEpoch) -> bool {
        let follows = matches!(self.role(), Role::Follower { epoch: now, .. } if now == epoch);
        let ends = self.ends();
        !follows || ends.had >= ends.end || self.log.is_offline()
    }
}
