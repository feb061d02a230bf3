//! The leader's part: appends, serves its followers, and wakes waiters.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::info;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerEpoch, BrokerId, LeaderEpoch};

use super::appending::Appending;
use super::work::{Acks, Append, Keepsake, LeaderState};
use super::{Core, Job, Partition, Role};
use crate::replica::core::leader::{Ends, Fetched, Outcome};
use crate::replica::core::{FetchFrom, Leadership, PartitionState, Proposal, Settings, Start};
use weir_log::{AppendError, EpochEnd, LogWriter, Prepared, ReadError, ReadSlice};

/// The leader's answer to a follower for one partition.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) high_watermark: i64,
    pub(crate) log_start_offset: i64,
    pub(crate) diverging: Option<EpochEnd>,
    pub(crate) records: Option<ReadSlice>,
    /// The log has more records after those read.
    pub(crate) has_more: bool,
    /// Nothing was read because the quota is used up; try again after this many milliseconds.
    pub(crate) throttled_ms: Option<u64>,
}

/// A follower's fetch of one partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FollowerFetch {
    pub(crate) replica: BrokerId,
    pub(crate) broker_epoch: BrokerEpoch,
    pub(crate) from: FetchFrom,
    /// The follower has sent this fetch just now, so it counts as progress. False when the leader
    /// only examines the last fetch again.
    pub(crate) is_news: bool,
}

impl LeaderState {
    /// The state that the controller has committed.
    pub(super) fn committed(&self) -> &PartitionState {
        self.leadership.committed()
    }
}

impl Partition {
    pub(super) fn begin_to_lead(&self, state: PartitionState) -> LeaderState {
        let start = Start {
            own: self.shared.own,
            own_epoch: self.shared.own_epoch(),
            epoch_start: self.log.log_end_offset(),
            high_watermark: self.log.high_watermark(),
            resumed: self.shared.is_resumed(),
            settings: self.settings(),
            state,
        };
        LeaderState { leadership: Leadership::begin(start, self.shared.now()), is_checked: false }
    }

    fn settings(&self) -> Settings {
        Settings {
            min_isr: self.config.read().insync_replicas_min as usize,
            lag_ms_max: self.shared.lag_ms_max(),
        }
    }

    /// Runs `act` with the leadership, if this broker leads in `epoch` (`None`: in any), and
    /// carries out the outcome. Reads the end of the log with `core` locked: the log may have been
    /// cut since an earlier read.
    fn lead<R>(
        self: &Arc<Self>,
        epoch: Option<LeaderEpoch>,
        act: impl FnOnce(&mut Leadership, Ends) -> (R, Outcome),
    ) -> Option<R> {
        let mut core = self.core.lock();
        let Core::Leader(leading) = &mut *core else { return None };
        if epoch.is_some_and(|epoch| epoch != leading.leadership.epoch()) {
            return None;
        }
        let in_sync = leading.committed().isr.len();
        let (result, outcome) = act(&mut leading.leadership, self.ends());
        self.shared.isr_changes.count(in_sync, leading.committed().isr.len());
        if outcome.advanced {
            self.log.advance_high_watermark(leading.leadership.high_watermark());
        }
        let must_check = !leading.is_checked
            && leading
                .leadership
                .next_check_ms(self.log.log_end_offset(), self.shared.now())
                .is_some();
        leading.is_checked |= must_check;
        drop(core);
        if must_check {
            self.shared.check_from_now_on(Arc::clone(self));
        }
        if let Some(proposal) = outcome.proposal {
            let isr = proposal.isr.iter().map(|(id, _)| id.0).collect::<Vec<_>>();
            tracing::debug!(topic = %self.topic(), partition = self.id().index, ?isr, "asks for another ISR");
            self.shared.propose(Arc::clone(self), proposal);
        }
        if outcome.advanced {
            self.waiters.wake_all();
            self.watchers.mark_all_dirty();
        }
        Some(result)
    }

    /// Called when the log has grown or was flushed.
    pub(super) fn grew(self: &Arc<Self>) {
        self.lead(None, |leadership, ends| {
            let advanced = leadership.grew(ends, &|id| self.shared.peer(id), self.shared.now());
            ((), Outcome { advanced, proposal: None })
        });
    }

    /// Runs the checks that depend on time; returns whether the partition still needs them.
    pub(crate) fn check(self: &Arc<Self>) -> bool {
        let now = self.shared.now();
        self.lead(None, |leadership, ends| {
            leadership.registered(self.shared.own_epoch());
            ((), leadership.check(ends, &|id| self.shared.peer(id), now))
        });
        let mut core = self.core.lock();
        let Core::Leader(leading) = &mut *core else { return false };
        leading.is_checked =
            leading.leadership.next_check_ms(self.log.log_end_offset(), now).is_some();
        leading.is_checked
    }

    /// Takes up another state that the controller has committed in the same leader epoch.
    pub(super) fn update_state(self: &Arc<Self>, state: PartitionState) {
        let now = self.shared.now();
        self.lead(Some(state.leader_epoch), |leadership, ends| {
            ((), leadership.updated(state, ends, &|id| self.shared.peer(id), now))
        });
    }

    /// Takes up changed settings of the topic or the broker.
    pub(crate) fn reconfigure(self: &Arc<Self>) {
        let settings = self.settings();
        self.lead(None, |leadership, _| (leadership.reconfigure(settings), Outcome::default()));
    }

    /// Takes up the controller's answer to a proposal.
    pub(crate) fn proposal_answered(
        self: &Arc<Self>,
        proposal: &Proposal,
        answer: Result<PartitionState, ErrorCode>,
    ) {
        let now = self.shared.now();
        if let Ok(state) = &answer {
            let isr = state.isr.iter().map(|id| id.0).collect::<Vec<_>>();
            info!(topic = %self.topic(), partition = self.id().index, ?isr, partition_epoch = state.partition_epoch.0, "the ISR changed");
        }
        self.lead(Some(proposal.base.leader_epoch), |leadership, ends| {
            ((), leadership.answered(proposal, answer, ends, &|id| self.shared.peer(id), now))
        });
        // Requests that wait for enough replicas check again, even if nothing was committed.
        self.waiters.wake_all();
    }

    /// Checks that this broker accepts appends now.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER; NOT_ENOUGH_REPLICAS for `acks=all`.
    pub(crate) fn accepts(&self, acks: Acks) -> Result<(), ErrorCode> {
        self.check_leader(LeaderEpoch::UNKNOWN)?;
        match &*self.core.lock() {
            Core::Leader(leading) => leading.leadership.accepts(acks == Acks::All),
            Core::Idle | Core::Follower(_) => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// Queues validated records for the writer, which appends them in the order of the calls. The
    /// [`Appending`] gets the result.
    pub(crate) fn append(self: &Arc<Self>, records: Prepared) -> Appending {
        self.append_if(None, records, None)
    }

    /// Like [`Partition::append`], and drops the keepsake once the records are written.
    pub(crate) fn append_with(
        self: &Arc<Self>,
        records: Prepared,
        keepsake: Keepsake,
    ) -> Appending {
        self.append_if(None, records, keepsake)
    }

    /// Like [`Partition::append`], but only in this epoch: for a caller whose records depend on all
    /// records before them.
    pub(crate) fn append_in(self: &Arc<Self>, epoch: LeaderEpoch, records: Prepared) -> Appending {
        self.append_if(Some(epoch), records, None)
    }

    fn append_if(
        self: &Arc<Self>,
        epoch: Option<LeaderEpoch>,
        records: Prepared,
        keepsake: Keepsake,
    ) -> Appending {
        let (answer, receiver) = oneshot::channel();
        self.submit(Job::Append(Append { records, epoch, answer, keepsake }));
        Appending { partition: Arc::clone(self), answer: receiver }
    }

    /// Appends all queued batches in one write, then answers each.
    pub(super) fn append_all(self: &Arc<Self>, writer: &mut LogWriter, appends: &mut Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        // The role is read here, where no other append can run: a deposed leader's batch is refused
        // however long it waited.
        let Role::Leader { epoch } = self.role() else {
            for append in appends.drain(..) {
                let _ = append.answer.send(Err(AppendError::NotLeader));
            }
            return;
        };
        for stale in
            appends.extract_if(.., |append| append.epoch.is_some_and(|meant| meant != epoch))
        {
            let _ = stale.answer.send(Err(AppendError::NotLeader));
        }
        let parts = appends.drain(..).map(|append| {
            let bytes = append.records.bytes.len();
            (append.records, (append.answer, append.keepsake, bytes))
        });
        let (mut records, answers): (Vec<_>, Vec<_>) = parts.unzip();
        let results = writer.append_as_leader(&mut records, epoch, crate::replica::clock::now_ms());
        drop(records);
        self.commit();
        // Followers fetch written records, even if they are not flushed here.
        self.watchers.mark_all_dirty();
        for ((answer, keepsake, bytes), result) in answers.into_iter().zip(results) {
            drop(keepsake);
            if let Ok(info) = &result {
                self.traffic
                    .appended((info.last_offset - info.first_offset + 1).unsigned_abs(), bytes);
            }
            // The receiver may be gone: acks=0, or the client has disconnected.
            let _ = answer.send(result.map(|info| (info, epoch)));
        }
    }

    /// Records a follower's fetch, and reads for it up to the end of the log.
    ///
    /// # Errors
    /// The error that the follower gets as its answer.
    pub(crate) fn serve(
        self: &Arc<Self>,
        fetch: &FollowerFetch,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Served, ErrorCode> {
        self.check_leader(fetch.from.current_leader_epoch)?;
        let deleted_before = self.low_watermark();
        let diverging = self
            .lead(Some(fetch.from.current_leader_epoch), |leadership, ends| {
                self.with_own_log(|log| match leadership.examine(fetch.replica, &fetch.from, log) {
                    Ok(None) if fetch.is_news => self.progress(leadership, fetch, ends),
                    examined => (examined, Outcome::default()),
                })
            })
            .ok_or(ErrorCode::NotLeaderOrFollower)??;
        if self.low_watermark() != deleted_before {
            // DeleteRecords waits for the low watermark.
            self.waiters.wake_all();
        }
        let mut served = Served {
            high_watermark: self.log.high_watermark(),
            log_start_offset: self.log.log_start_offset(),
            has_more: false,
            records: None,
            diverging,
            throttled_ms: self.sends_nothing_for(fetch),
        };
        if diverging.is_none() && served.throttled_ms.is_none() {
            let offset = fetch.from.offset;
            served.records = self
                .log
                .read(offset, i64::MAX, bytes_max, at_least_one)
                .map_err(|error| read_error(&error))?;
            // There was room for a batch, so an empty read means that compaction left none up to
            // the end.
            served.has_more =
                served.records.is_none() && !at_least_one && offset < self.log.log_end_offset();
        }
        if let Some(records) = served.records.as_ref().filter(|_| self.throttled().leader) {
            self.shared.leader_quota.record(records.length, self.shared.now());
        }
        Ok(served)
    }

    /// For how many milliseconds the leader sends a follower nothing, if it exceeds its quota for
    /// throttled replicas. A follower in the ISR does not wait
    /// (`ReplicaManager.shouldLeaderThrottle`).
    fn sends_nothing_for(&self, fetch: &FollowerFetch) -> Option<u64> {
        if !self.throttled().leader {
            return None;
        }
        let now = self.shared.now();
        let until = self.shared.leader_quota.exceeded_until(now)?;
        let in_sync = match &*self.core.lock() {
            Core::Leader(leading) => leading.leadership.committed().isr.contains(&fetch.replica),
            Core::Idle | Core::Follower(_) => false,
        };
        (!in_sync && fetch.from.offset < self.log.log_end_offset())
            .then_some(until.saturating_sub(now))
    }

    fn progress(
        &self,
        leadership: &mut Leadership,
        fetch: &FollowerFetch,
        ends: Ends,
    ) -> (Result<Option<EpochEnd>, ErrorCode>, Outcome) {
        let fetched = Fetched {
            replica: fetch.replica,
            broker_epoch: fetch.broker_epoch,
            offset: fetch.from.offset,
            log_start: fetch.from.log_start,
        };
        match leadership.fetched(fetched, ends, &|id| self.shared.peer(id), self.shared.now()) {
            Ok(outcome) => (Ok(None), outcome),
            Err(code) => (Err(code), Outcome::default()),
        }
    }

    /// The replica that a consumer should read from instead; `in_rack` says which are in its rack.
    pub(crate) fn preferred_read_replica(
        &self,
        offset: i64,
        in_rack: &dyn Fn(BrokerId) -> bool,
    ) -> Option<BrokerId> {
        match &*self.core.lock() {
            Core::Leader(leading) => {
                leading.leadership.preferred_read_replica(offset, in_rack, self.shared.now())
            }
            Core::Idle | Core::Follower(_) => None,
        }
    }

    /// The latest offset that the leader may tell a client.
    ///
    /// # Errors
    /// OFFSET_NOT_AVAILABLE for a new leader that does not know yet what is committed (KIP-207).
    pub(crate) fn latest_offset(&self) -> Result<i64, ErrorCode> {
        match &*self.core.lock() {
            Core::Leader(leading) => leading.leadership.latest_offset(),
            Core::Idle | Core::Follower(_) => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// The offset below which all live replicas have deleted; `None` when this broker does not
    /// lead.
    pub(crate) fn low_watermark(&self) -> Option<i64> {
        match &*self.core.lock() {
            Core::Leader(leading) => Some(
                leading
                    .leadership
                    .low_watermark(self.log.log_start_offset(), &|id| self.shared.peer(id)),
            ),
            Core::Idle | Core::Follower(_) => None,
        }
    }

    /// Whether the records before `offset`, appended in `epoch`, are acknowledged under `acks`.
    pub(super) fn acknowledges(
        &self,
        offset: i64,
        epoch: LeaderEpoch,
        acks: Acks,
    ) -> Result<bool, AppendError> {
        if self.log.is_offline() && self.ends().had < offset {
            return Err(AppendError::Storage);
        }
        match &*self.core.lock() {
            Core::Leader(leading) if leading.leadership.epoch() == epoch => match acks {
                Acks::None => Ok(true),
                Acks::Leader => Ok(self.ends().had >= offset),
                Acks::All => leading
                    .leadership
                    .acknowledges(offset)
                    .map_err(|_| AppendError::NotEnoughReplicasAfterAppend),
            },
            _ => Err(AppendError::NotLeader),
        }
    }
}

pub(crate) fn read_error(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Corrupt { .. } => ErrorCode::CorruptMessage,
        ReadError::Storage(_) => ErrorCode::KafkaStorageError,
    }
}
