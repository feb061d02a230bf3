//! What a follower does: asks what to fetch, appends or cuts what its leader answers, and moves its
//! high watermark after the leader's.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{info, warn};
use weir_protocol::types::LeaderEpoch;

use super::{Core, Partition, Role};
use crate::log::FollowError;
use crate::replica::core::{FetchAnswer, FetchFrom, Following, Next, OwnLog, Todo};

impl Partition {
    /// Runs `act` with what decides for a follower in `epoch`, and the log as it is then; `None`
    /// when this broker is none.
    fn following<R>(
        &self,
        epoch: LeaderEpoch,
        act: impl FnOnce(&mut Following, &OwnLog<'_>) -> R,
    ) -> Option<R> {
        match &mut *self.core.lock() {
            Core::Follower(following) if following.epoch() == epoch => {
                Some(self.with_own_log(|log| act(following, log)))
            }
            _ => None,
        }
    }

    /// What to fetch next, as a follower in `epoch`; `None` when it is no follower in that epoch
    /// any more.
    pub(crate) fn next_fetch(&self, epoch: LeaderEpoch) -> Option<Next> {
        self.following(epoch, |following, log| following.next(log, self.shared.now()))
    }

    /// When to fetch again, if what this broker fetches for throttled replicas is more than its
    /// quota; `None` to fetch now. A replica that is in sync does not wait
    /// (`ReplicaFetcherThread.shouldFollowerThrottle`).
    pub(crate) fn throttled_until(&self, epoch: LeaderEpoch) -> Option<u64> {
        if !self.throttled().follower {
            return None;
        }
        let until = self.shared.follower_quota.exceeded_until(self.shared.now())?;
        let lags = self.following(epoch, |following, log| following.lags(log));
        (lags == Some(true)).then_some(until)
    }

    /// Takes up the leader's answer.
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

    /// Takes up where the leader's log starts and ends.
    pub(crate) fn leader_offsets(&self, epoch: LeaderEpoch, start: i64, end: i64) -> Todo {
        self.following(epoch, |following, log| {
            following.offsets(epoch, start, end, log, self.shared.now())
        })
        .unwrap_or(Todo::Nothing)
    }

    /// Nothing could be done with the leader's answer, or there was none.
    pub(crate) fn fetch_failed(&self, epoch: LeaderEpoch) {
        self.following(epoch, |following, _| following.failed(self.shared.now()));
    }

    /// Appends what the leader sent to a fetch in `epoch`; asks for a flush where one is needed.
    /// Returns whether that went well.
    pub(crate) async fn follow(self: &Arc<Self>, records: Bytes, epoch: LeaderEpoch) -> bool {
        let partition = Arc::clone(self);
        let appended = self.with_writer(move |writer| {
            if !matches!(partition.role(), Role::Follower { epoch: now, .. } if now == epoch) {
                // The role changed since it was fetched: it is not this leader any more that is
                // followed.
                return Ok(());
            }
            let now_ms = crate::replica::clock::now_ms();
            let appended = match writer.append_as_follower(&records, epoch, now_ms) {
                // The log is empty, and begins in the middle of the leader's first batch:
                // DeleteRecords does that (`Partition.appendRecordsToFollowerOrFutureReplica`).
                Err(FollowError::Offset { first, last, end }) if end == partition.log.log_start_offset() && first < end && last >= end => {
                    info!(topic = %partition.topic(), partition = partition.id().index, offset = first, "the log begins with a batch that the leader has cut into");
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
                warn!(topic = %self.topic(), partition = self.id().index, %error, "cannot append what the leader sent; trying again");
                self.fetch_failed(epoch);
                false
            }
            Err(_) => {
                self.fetch_failed(epoch);
                false
            }
        }
    }

    /// Cuts the log, or gives it up, as was decided for `epoch`.
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
            // Where nothing was cut, only an epoch was forgotten in which nothing is written.
            if end_offset != before {
                info!(topic = %partition.topic(), partition = partition.id().index, before, end_offset, epoch = epoch.0, "cut the log to follow its leader");
            }
            partition.commit();
            Ok::<_, std::io::Error>(())
        });
        if !matches!(cut.await, Ok(Ok(()))) {
            // The log directory is offline, and says so itself.
            self.fetch_failed(epoch);
        }
    }

    /// Moves the high watermark and the start of the log after the leader's.
    pub(crate) fn step(self: &Arc<Self>) {
        let mut core = self.core.lock();
        let Core::Follower(following) = &mut *core else { return };
        let step = self.with_own_log(|log| following.step(log));
        // Before anybody can decide on a cut, which lowers it again.
        let is_raised = self.log.advance_high_watermark(step.high_watermark);
        drop(core);
        if is_raised {
            self.waiters.wake_all();
        }
        if let Some(start) = step.log_start {
            let partition = Arc::clone(self);
            self.with_writer_detached(move |writer| {
                if let Err(error) = writer.advance_log_start_offset(start) {
                    warn!(topic = %partition.topic(), partition = partition.id().index, %error, "cannot delete what the leader has deleted");
                }
            });
        }
    }

    /// Waits until what the leader in `epoch` has deleted is deleted here, too, where the writer
    /// was at work: the next fetch says from where on the log is here. A fetch that still says what
    /// the one before did is not sent, and the leader would not hear of it before there is
    /// something else to say.
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
            warn!(topic = %self.topic(), partition = self.id().index, %error, "cannot delete what the leader has deleted");
        }
    }

    /// Whether all that was appended by a follower in `epoch` counts as had: it says so with its
    /// next fetch. There is nothing more to wait for when this broker follows in that epoch no
    /// longer, since the log is deleted or led otherwise.
    pub(crate) fn has_all(&self, epoch: LeaderEpoch) -> bool {
        let follows = matches!(self.role(), Role::Follower { epoch: now, .. } if now == epoch);
        let ends = self.ends();
        !follows || ends.had >= ends.end || self.log.is_offline()
    }
}
