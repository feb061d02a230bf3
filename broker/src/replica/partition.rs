//! One partition on this broker: its role, its log, and the requests that wait for it.
//!
//! Appends go through the [`SerialExecutor`]; reads take no lock. `core` makes the decisions of a
//! leader and of a follower; this module calls it and carries them out. The log decides everything
//! about bytes, `api` everything about requests.

mod appending;
mod follower_state;
mod leader_state;
mod observing;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerId, LeaderEpoch, TopicPartition};

pub(crate) use self::appending::Appending;
pub(crate) use self::leader_state::{FollowerFetch, Served, read_error};
pub(crate) use self::observing::{Led, Observed};
pub(crate) use self::work::Acks;
use self::work::{Append, LeaderState};
use super::core::leader::Ends;
use super::core::{FollowerState, OwnLog, PartitionState};
use super::fetch_subscriptions::FetchSubscriptions;
use super::serial_executor::{Backlog, SerialExecutor, run_backlog_later};
use super::traffic::TopicTraffic;
use super::waiters::Waiters;
use super::{clock, shared};
use weir_log::{FlushMode, LogConfig, LogReader, LogWriter};

/// How often [`Partition::take_writer`] asks for the writer: the thread that answered may not have
/// left the executor yet.
const TAKES_MAX: usize = 100;

/// The role of this broker in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The partition has no leader, or this broker is about to adopt its role.
    Idle {
        /// The partition's leader epoch.
        epoch: LeaderEpoch,
    },
    /// This broker leads.
    Leader {
        /// The epoch of this leadership.
        epoch: LeaderEpoch,
    },
    /// This broker follows another one.
    Follower {
        /// The leader that it follows.
        leader: BrokerId,
        /// The leader's epoch.
        epoch: LeaderEpoch,
    },
}

impl Role {
    /// The leader that this broker fetches from, and its epoch.
    fn fetched_from(self) -> Option<(BrokerId, LeaderEpoch)> {
        match self {
            Self::Follower { leader, epoch } => Some((leader, epoch)),
            Self::Leader { .. } | Self::Idle { .. } => None,
        }
    }

    pub(crate) fn epoch(self) -> LeaderEpoch {
        match self {
            Self::Idle { epoch } | Self::Leader { epoch } | Self::Follower { epoch, .. } => epoch,
        }
    }
}

/// The rules of the current role.
#[derive(Debug)]
enum Core {
    Idle,
    Leader(Box<LeaderState>),
    Follower(FollowerState),
}

/// The state that the partitions of this broker share.
pub(crate) type Shared = shared::Shared<Partition>;

/// A partition that this broker holds.
#[derive(Debug)]
pub(crate) struct Partition {
    log: Arc<LogReader>,
    executor: SerialExecutor<LogWriter, Job>,
    /// A copy of the role in `core`, which reads and appends check.
    role: RwLock<Role>,
    core: Mutex<Core>,
    config: RwLock<Arc<LogConfig>>,
    shared: Arc<Shared>,
    /// The counters of its topic.
    traffic: Arc<TopicTraffic>,
    /// Requests that wait for the high watermark, or for another role.
    waiters: Waiters,
    /// Requests that wait until this broker has a batch: on disk or in memory, as `flush.mode`
    /// says.
    holding: Waiters,
    /// The fetch sessions of the followers.
    watchers: FetchSubscriptions,
    throttled: RwLock<Throttled>,
    /// The partition is removed from this broker and adopts no role any more. Set while `core` is
    /// locked.
    is_retired: AtomicBool,
}

/// Whether the topic's settings throttle the replication of a replica (KIP-73).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Throttled {
    /// Applies to the bytes that it sends as a leader.
    pub(crate) leader: bool,
    /// Applies to the bytes that it fetches as a follower.
    pub(crate) follower: bool,
}

/// A job for the writer.
enum Job {
    Append(Append),
    Other(Box<dyn FnOnce(&mut LogWriter) + Send>),
}

impl Partition {
    /// A partition on this log, without a role yet.
    pub(crate) fn new(
        writer: LogWriter,
        config: Arc<LogConfig>,
        shared: &Arc<Shared>,
    ) -> Arc<Self> {
        let log = writer.reader();
        let partition = Arc::new(Self {
            executor: SerialExecutor::new(writer),
            role: RwLock::new(Role::Idle { epoch: LeaderEpoch::UNKNOWN }),
            core: Mutex::new(Core::Idle),
            config: RwLock::new(config),
            shared: Arc::clone(shared),
            traffic: shared.traffic.of(log.topic()),
            waiters: Waiters::default(),
            holding: Waiters::default(),
            watchers: FetchSubscriptions::default(),
            throttled: RwLock::default(),
            is_retired: AtomicBool::new(false),
            log,
        });
        // A batch may wait for a flush. The weak reference lets the partition go before its log.
        let weak = Arc::downgrade(&partition);
        partition.log.notify_flushed(move || {
            if let Some(partition) = weak.upgrade() {
                partition.flushed();
            }
        });
        partition
    }

    /// The topic and index.
    pub(crate) fn id(&self) -> TopicPartition {
        self.log.id()
    }

    /// The state that all partitions of this broker share.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The topic's name.
    pub(crate) fn topic(&self) -> &Arc<str> {
        self.log.topic()
    }

    /// The log, for reading.
    pub(crate) fn log(&self) -> &Arc<LogReader> {
        &self.log
    }

    /// The log's configuration.
    pub(crate) fn config(&self) -> Arc<LogConfig> {
        Arc::clone(&self.config.read())
    }

    /// The role of this broker.
    pub(crate) fn role(&self) -> Role {
        *self.role.read()
    }

    /// The offset after the last committed record. Consumers read up to it.
    pub(crate) fn high_watermark(&self) -> i64 {
        self.log.high_watermark()
    }

    /// The offset before which no transaction is open. `read_committed` consumers read up to it.
    /// `None` until [`Partition::know_transactions`] has loaded the transactions.
    pub(crate) fn last_stable_offset(&self) -> Option<i64> {
        self.log.last_stable_offset()
    }

    /// Loads the transactions of the log, unless they are loaded: they are read on first use.
    pub(crate) async fn know_transactions(self: &Arc<Self>) {
        if self.log.last_stable_offset().is_none() {
            // When this fails, the log directory goes offline, which is reported there.
            let _ = self.with_writer(|writer| writer.load_transactions(clock::now_ms())).await;
        }
    }

    /// The latest leader epoch that this broker knows.
    pub(crate) fn leader_epoch(&self) -> LeaderEpoch {
        self.role().epoch()
    }

    /// Whether the role is that of the previous process, and no controller has confirmed it yet.
    pub(crate) fn is_resumed(&self) -> bool {
        self.shared.is_resumed()
    }

    /// Whether this broker leads.
    pub(crate) fn is_leader(&self) -> bool {
        matches!(self.role(), Role::Leader { .. })
    }

    /// Checks that this broker leads, and that the epoch in the request, if any, is the leader's.
    ///
    /// # Errors
    /// As Kafka's `Partition.checkCurrentLeaderEpoch` and `localLogOrError`: FENCED_LEADER_EPOCH or
    /// UNKNOWN_LEADER_EPOCH before NOT_LEADER_OR_FOLLOWER.
    pub(crate) fn check_leader(&self, asked: LeaderEpoch) -> Result<LeaderEpoch, ErrorCode> {
        match self.check_epoch(asked)? {
            Role::Leader { epoch } => Ok(epoch),
            Role::Follower { .. } | Role::Idle { .. } => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// Like [`Partition::check_leader`], but accepts a follower as well: consumers may read from
    /// one (KIP-392).
    ///
    /// # Errors
    /// Those of [`Partition::check_leader`].
    pub(crate) fn check_replica(&self, asked: LeaderEpoch) -> Result<(), ErrorCode> {
        match self.check_epoch(asked)? {
            Role::Leader { .. } | Role::Follower { .. } => Ok(()),
            Role::Idle { .. } => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    fn check_epoch(&self, asked: LeaderEpoch) -> Result<Role, ErrorCode> {
        let role = self.role();
        match asked.cmp(&role.epoch()) {
            _ if asked == LeaderEpoch::UNKNOWN => Ok(role),
            std::cmp::Ordering::Less => Err(ErrorCode::FencedLeaderEpoch),
            std::cmp::Ordering::Greater => Err(ErrorCode::UnknownLeaderEpoch),
            std::cmp::Ordering::Equal => Ok(role),
        }
    }

    /// Takes up the state that the controller has committed. Leadership ends at once. The new role
    /// begins after the appends under way, so the start offset of a leader's epoch is exact.
    pub(crate) fn apply(self: &Arc<Self>, leader: Option<BrokerId>, state: PartitionState) {
        let epoch = state.leader_epoch;
        let wanted = self.wanted_role(leader, epoch);
        {
            let mut role = self.role.write();
            if *role != wanted {
                *role = Role::Idle { epoch };
            }
        }
        let partition = Arc::clone(self);
        self.spawn_on_writer(move |writer| partition.assume(writer, wanted, state));
    }

    /// The role of this broker in a partition with this leader.
    fn wanted_role(&self, leader: Option<BrokerId>, epoch: LeaderEpoch) -> Role {
        match leader {
            Some(leader) if leader == self.shared.own => Role::Leader { epoch },
            Some(leader) => Role::Follower { leader, epoch },
            None => Role::Idle { epoch },
        }
    }

    /// Adopts the role. Runs as a job of the writer, so nothing is appended meanwhile.
    fn assume(self: &Arc<Self>, writer: &mut LogWriter, wanted: Role, state: PartitionState) {
        self.resolve_missing(writer, wanted, &state);
        let mut core = self.core.lock();
        let before = *self.role.read();
        if before.epoch() != wanted.epoch() {
            // A newer state has arrived meanwhile; its job is queued behind this one.
            return;
        }
        if self.is_retired() {
            return;
        }
        if before == wanted {
            drop(core);
            return self.update_state(state);
        }
        *core = match wanted {
            Role::Idle { .. } => Core::Idle,
            Role::Leader { epoch } => {
                writer.begin_epoch(epoch);
                Core::Leader(Box::new(self.begin_to_lead(state)))
            }
            Role::Follower { leader, epoch } => {
                let following = FollowerState::begin(leader, epoch, self.log.high_watermark());
                Core::Follower(following.backing_off(self.shared.fetch_backoff_ms()))
            }
        };
        *self.role.write() = wanted;
        // With `core` locked, so that the assignment at the end of this role follows this one.
        self.shared.assignments.assign(self, wanted.fetched_from());
        drop(core);
        self.commit();
        self.wake_everyone();
    }

    fn wake_everyone(&self) {
        self.waiters.wake_all();
        self.holding.wake_all();
        self.watchers.mark_all_dirty();
    }

    /// Whether replication of this replica is throttled.
    pub(crate) fn throttled(&self) -> Throttled {
        *self.throttled.read()
    }

    /// Sets whether replication of this replica is throttled.
    pub(super) fn set_throttled(&self, throttled: Throttled) {
        *self.throttled.write() = throttled;
    }

    /// Changes the configuration of the log.
    pub(crate) fn set_config(self: &Arc<Self>, config: Arc<LogConfig>) {
        if *self.config.read() == config {
            return;
        }
        *self.config.write() = Arc::clone(&config);
        self.spawn_on_writer(move |writer| writer.update_config(config));
        self.reconfigure();
        self.commit();
    }

    /// Runs `act` with the writer, after all queued jobs.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER when the partition was removed meanwhile, KAFKA_STORAGE_ERROR when a
    /// job of the writer has panicked.
    pub(crate) async fn with_writer<R: Send + 'static>(
        self: &Arc<Self>,
        act: impl FnOnce(&mut LogWriter) -> R + Send + 'static,
    ) -> Result<R, ErrorCode> {
        let (answer, receiver) = oneshot::channel();
        self.submit(Job::Other(Box::new(move |writer| {
            // The caller may have stopped waiting; the job has still run.
            let _ = answer.send(act(writer));
        })));
        receiver.await.map_err(|_| match self.is_retired() {
            true => ErrorCode::NotLeaderOrFollower,
            false => ErrorCode::KafkaStorageError,
        })
    }

    /// Like [`Partition::with_writer`], for callers that need no answer.
    pub(crate) fn spawn_on_writer(
        self: &Arc<Self>,
        act: impl FnOnce(&mut LogWriter) + Send + 'static,
    ) {
        self.submit(Job::Other(Box::new(act)));
    }

    fn submit(self: &Arc<Self>, job: Job) {
        // A broken executor drops the job and with it the sender of the answer, which the caller
        // notices.
        let left = self.executor.submit(job, |writer, jobs| self.work(writer, jobs));
        if left == Ok(Backlog::Jobs) {
            let own = Arc::clone(self);
            run_backlog_later(move || {
                own.executor.run_backlog(|writer, jobs| own.work(writer, jobs))
            });
        }
    }

    fn work(self: &Arc<Self>, writer: &mut LogWriter, jobs: Vec<Job>) {
        let mut appends = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job {
                Job::Append(append) => appends.push(append),
                Job::Other(act) => {
                    self.append_all(writer, &mut appends);
                    // A deleted log is not changed: its directory name may belong to a new log by
                    // now. The caller notices that its job was dropped.
                    if !self.log.is_deleted() {
                        act(writer);
                    }
                }
            }
        }
        self.append_all(writer, &mut appends);
    }

    /// The log end offset, and the end of what this broker has under `flush.mode`.
    fn ends(&self) -> Ends {
        // The flushed offset is read first, so it never passes the end.
        let flushed = self.log.flushed_offset();
        let end = self.log.log_end_offset();
        match self.config.read().flush_mode {
            FlushMode::None => Ends { end, had: end },
            FlushMode::Group => Ends { end, had: flushed.min(end) },
        }
    }

    fn with_own_log<R>(&self, act: impl FnOnce(&OwnLog<'_>) -> R) -> R {
        let Ends { end, had } = self.ends();
        act(&OwnLog {
            start: self.log.log_start_offset(),
            end,
            had,
            latest_epoch: self.log.latest_epoch(),
            end_of_epoch: &|epoch| self.log.end_offset_for_epoch(epoch),
        })
    }

    /// Requests a flush if `flush.mode` needs one, moves the high watermark to the end of what is
    /// committed, and wakes its waiters.
    fn commit(self: &Arc<Self>) {
        let role = self.role();
        let ends = self.ends();
        if ends.had < ends.end && !matches!(role, Role::Idle { .. }) {
            self.log.request_flush();
        }
        match role {
            Role::Idle { .. } => {}
            Role::Leader { .. } => self.grew(),
            Role::Follower { .. } => self.step(),
        }
    }

    /// Called when a flush has ended, or the log directory has gone offline.
    fn flushed(self: &Arc<Self>) {
        self.commit();
        self.holding.wake_all();
        if self.log.is_offline() {
            self.wake_everyone();
        }
    }

    /// Requests that wait for the high watermark, or for another role.
    pub(crate) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// Requests that wait until this broker has a batch under `flush.mode`.
    pub(crate) fn holding(&self) -> &Waiters {
        &self.holding
    }

    /// The fetch sessions of the followers.
    pub(crate) fn watchers(&self) -> &FetchSubscriptions {
        &self.watchers
    }

    /// Removes the partition from this broker: later appends are refused, and every waiter is
    /// woken.
    pub(crate) fn retire(self: &Arc<Self>) {
        let mut core = self.core.lock();
        self.is_retired.store(true, Ordering::Release);
        let idle = Role::Idle { epoch: self.leader_epoch() };
        *self.role.write() = idle;
        *core = Core::Idle;
        self.shared.assignments.assign(self, idle.fetched_from());
        drop(core);
        self.wake_everyone();
    }

    /// Whether the partition is removed from this broker.
    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// Retires the partition and removes the writer for good, after all queued jobs.
    pub(crate) async fn take_writer(self: &Arc<Self>) -> Option<LogWriter> {
        self.retire();
        for _ in 0..TAKES_MAX {
            // This job is the last one in the queue, so all earlier ones are done when it is
            // answered.
            self.with_writer(|_| ()).await.ok()?;
            // Another thread may have answered it, and not have left the executor yet.
            if let Some(writer) = self.executor.take() {
                return Some(writer);
            }
        }
        None
    }
}
