//! One partition on this broker: its role, its log, and those who wait for it.
//!
//! Appends go through the [`Seat`]; reads take no lock. What a leader and a follower decide is
//! decided in `core`: here it is asked, and carried out. The log decides everything about bytes,
//! `api` everything about requests.

mod appending;
mod following;
mod leading;
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
pub(crate) use self::leading::{FollowerFetch, Served, read_error};
pub(crate) use self::observing::{Led, Observed};
pub(crate) use self::work::Acks;
use self::work::{Append, Leading};
use super::core::leader::Ends;
use super::core::{Following, OwnLog, PartitionState};
use super::seat::Seat;
use super::traffic::TopicTraffic;
use super::waiters::Waiters;
use super::watch::Watchers;
use super::{clock, shared};
use crate::log::{FlushMode, LogConfig, LogReader, LogWriter};

/// What this broker is for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nobody leads, or the role is about to be taken up.
    Idle {
        /// The partition's leader epoch.
        epoch: LeaderEpoch,
    },
    /// This broker leads.
    Leader {
        /// Since which epoch.
        epoch: LeaderEpoch,
    },
    /// This broker follows another one.
    Follower {
        /// Whom.
        leader: BrokerId,
        /// In which epoch.
        epoch: LeaderEpoch,
    },
}

impl Role {
    /// From whom it is fetched, and in which epoch.
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

/// What decides for a role.
#[derive(Debug)]
enum Core {
    Idle,
    Leader(Box<Leading>),
    Follower(Following),
}

/// What the partitions of this broker share.
pub(crate) type Shared = shared::Shared<Partition>;

/// A partition that this broker holds.
#[derive(Debug)]
pub(crate) struct Partition {
    log: Arc<LogReader>,
    seat: Seat<LogWriter, Job>,
    /// Follows what `core` is: what reads and appends look at.
    role: RwLock<Role>,
    core: Mutex<Core>,
    config: RwLock<Arc<LogConfig>>,
    shared: Arc<Shared>,
    /// Its topic's counts.
    traffic: Arc<TopicTraffic>,
    /// Those who wait for the high watermark, or for another role.
    waiters: Waiters,
    /// Those who wait for what this broker has, as `flush.mode` understands having.
    holding: Waiters,
    /// The followers' sessions.
    watchers: Watchers,
    throttled: RwLock<Throttled>,
    /// Its life here has ended, and no role is taken up any more. Raised with `core` locked.
    is_retired: AtomicBool,
}

/// Whether the replication of a replica is throttled (KIP-73), by the topic's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Throttled {
    /// What it sends as a leader.
    pub(crate) leader: bool,
    /// What it fetches as a follower.
    pub(crate) follower: bool,
}

/// What is brought to the writer.
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
            seat: Seat::new(writer),
            role: RwLock::new(Role::Idle { epoch: LeaderEpoch::UNKNOWN }),
            core: Mutex::new(Core::Idle),
            config: RwLock::new(config),
            shared: Arc::clone(shared),
            traffic: shared.traffic.of(log.topic()),
            waiters: Waiters::default(),
            holding: Waiters::default(),
            watchers: Watchers::default(),
            throttled: RwLock::default(),
            is_retired: AtomicBool::new(false),
            log,
        });
        // A flush may be what a batch waits for. The log must not keep its partition alive.
        let weak = Arc::downgrade(&partition);
        partition.log.notify_flushed(move || {
            if let Some(partition) = weak.upgrade() {
                partition.flushed();
            }
        });
        partition
    }

    /// Its id.
    pub(crate) fn id(&self) -> TopicPartition {
        self.log.id()
    }

    /// What all partitions of this broker share.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Its topic's name.
    pub(crate) fn topic(&self) -> &Arc<str> {
        self.log.topic()
    }

    /// Its log, for reading.
    pub(crate) fn log(&self) -> &Arc<LogReader> {
        &self.log
    }

    /// Its log's configuration.
    pub(crate) fn config(&self) -> Arc<LogConfig> {
        Arc::clone(&self.config.read())
    }

    /// What this broker is for it.
    pub(crate) fn role(&self) -> Role {
        *self.role.read()
    }

    /// The offset after the last committed record: consumers see nothing from here on.
    pub(crate) fn high_watermark(&self) -> i64 {
        self.log.high_watermark()
    }

    /// The offset before which no transaction is open: what `read_committed` consumers see. `None`
    /// until somebody has asked for it ([`Partition::know_transactions`]).
    pub(crate) fn last_stable_offset(&self) -> Option<i64> {
        self.log.last_stable_offset()
    }

    /// Has the log's transactions known, which are read when they are first needed.
    pub(crate) async fn know_transactions(self: &Arc<Self>) {
        if self.log.last_stable_offset().is_none() {
            // When they cannot be read, the log directory is offline, and says so itself.
            let _ = self.with_writer(|writer| writer.load_transactions(clock::now_ms())).await;
        }
    }

    /// The leader epoch that this broker knows of.
    pub(crate) fn leader_epoch(&self) -> LeaderEpoch {
        self.role().epoch()
    }

    /// Whether this broker leads.
    pub(crate) fn is_leader(&self) -> bool {
        matches!(self.role(), Role::Leader { .. })
    }

    /// Whether this broker leads, and if the asker names an epoch, whether it is the same.
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

    /// As [`Partition::check_leader`], but a follower will do: consumers may read from it
    /// (KIP-392).
    ///
    /// # Errors
    /// As there.
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

    /// Takes up what the controller has committed of the partition. Leadership ends at once;
    /// another role is taken up behind the appends that are under way, so that a leader knows where
    /// its epoch begins.
    pub(crate) fn take_up(self: &Arc<Self>, leader: Option<BrokerId>, state: PartitionState) {
        let epoch = state.leader_epoch;
        let wanted = self.wanted_role(leader, epoch);
        {
            let mut role = self.role.write();
            if *role != wanted {
                *role = Role::Idle { epoch };
            }
        }
        let partition = Arc::clone(self);
        self.with_writer_detached(move |writer| partition.assume(writer, wanted, state));
    }

    /// The role that this broker has for a partition with this leader.
    fn wanted_role(&self, leader: Option<BrokerId>, epoch: LeaderEpoch) -> Role {
        match leader {
            Some(leader) if leader == self.shared.own => Role::Leader { epoch },
            Some(leader) => Role::Follower { leader, epoch },
            None => Role::Idle { epoch },
        }
    }

    /// Runs in the writer's seat: nothing is appended meanwhile.
    fn assume(self: &Arc<Self>, writer: &mut LogWriter, wanted: Role, state: PartitionState) {
        let mut core = self.core.lock();
        let before = *self.role.read();
        if before.epoch() != wanted.epoch() {
            // Another change has come meanwhile, and waits behind this one.
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
                let following = Following::begin(leader, epoch, self.log.high_watermark());
                Core::Follower(following.backing_off(self.shared.fetch_backoff_ms()))
            }
        };
        *self.role.write() = wanted;
        // Before the lock is given back: what is said when this role ends comes after it.
        self.shared.assignments.assign(self, wanted.fetched_from());
        drop(core);
        self.commit();
        self.wake_everyone();
    }

    fn wake_everyone(&self) {
        self.waiters.wake_all();
        self.holding.wake_all();
        self.watchers.tell();
    }

    /// Whether its replication is throttled.
    pub(crate) fn throttled(&self) -> Throttled {
        *self.throttled.read()
    }

    /// Takes up whether its replication is throttled.
    pub(super) fn set_throttled(&self, throttled: Throttled) {
        *self.throttled.write() = throttled;
    }

    /// Takes up another configuration of the log.
    pub(crate) fn set_config(self: &Arc<Self>, config: Arc<LogConfig>) {
        if *self.config.read() == config {
            return;
        }
        *self.config.write() = Arc::clone(&config);
        self.with_writer_detached(move |writer| writer.update_config(config));
        self.reconfigure();
        self.commit();
    }

    /// Runs `act` with the writer, after all that waits.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER when the log was deleted meanwhile, KAFKA_STORAGE_ERROR when the
    /// writer is lost to a bug.
    pub(crate) async fn with_writer<R: Send + 'static>(
        self: &Arc<Self>,
        act: impl FnOnce(&mut LogWriter) -> R + Send + 'static,
    ) -> Result<R, ErrorCode> {
        let (answer, receiver) = oneshot::channel();
        self.bring(Job::Other(Box::new(move |writer| {
            // Nobody waits any more: the act was done all the same.
            let _ = answer.send(act(writer));
        })));
        receiver.await.map_err(|_| match self.is_retired() {
            true => ErrorCode::NotLeaderOrFollower,
            false => ErrorCode::KafkaStorageError,
        })
    }

    /// As [`Partition::with_writer`], for those who need no answer.
    pub(crate) fn with_writer_detached(
        self: &Arc<Self>,
        act: impl FnOnce(&mut LogWriter) + Send + 'static,
    ) {
        self.bring(Job::Other(Box::new(act)));
    }

    fn bring(self: &Arc<Self>, job: Job) {
        // A broken seat drops the job, and with it the answer's sender: that is what the asker
        // sees.
        let _ = self.seat.bring(job, |writer, jobs| self.work(writer, jobs));
    }

    fn work(self: &Arc<Self>, writer: &mut LogWriter, jobs: Vec<Job>) {
        let mut appends = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job {
                Job::Append(append) => appends.push(append),
                Job::Other(act) => {
                    self.append_all(writer, &mut appends);
                    // Nothing is done to a deleted log: its directory may be another one's by now.
                    // Whoever asked sees that its job was dropped.
                    if !self.log.is_deleted() {
                        act(writer);
                    }
                }
            }
        }
        self.append_all(writer, &mut appends);
    }

    /// Where the log ends, and what this broker has of it as `flush.mode` understands having.
    fn ends(&self) -> Ends {
        // What is flushed is read first: it never lies behind the end.
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

    /// Moves the high watermark to what is committed now, asking for a flush where one is needed,
    /// and wakes who waits for it.
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

    /// A flush ended, or the log directory went offline.
    fn flushed(self: &Arc<Self>) {
        self.commit();
        self.holding.wake_all();
        if self.log.is_offline() {
            self.wake_everyone();
        }
    }

    /// Those who wait for the high watermark, or for another role.
    pub(crate) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// Those who wait for what this broker has.
    pub(crate) fn holding(&self) -> &Waiters {
        &self.holding
    }

    /// The followers' sessions.
    pub(crate) fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// Ends the partition's life here: nothing is appended any more, and nobody waits any more.
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

    /// Whether its life here has ended.
    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// Takes the writer out for good, after all that waits.
    pub(crate) async fn take_writer(self: &Arc<Self>) -> Option<LogWriter> {
        self.retire();
        // The end of the queue: whatever was brought before is done when this is answered.
        self.with_writer(|_| ()).await.ok()?;
        self.seat.take()
    }
}
