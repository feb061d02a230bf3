//! One partition on this broker: its role, its log, its high watermark and those who wait for it.
//!
//! Appends go through the [`Seat`]; reads take no lock. What counts as committed is decided here: with `flush.mode=group` what is on disk, with `none`
//! what is written. The log decides everything about bytes, `api` everything about requests.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::oneshot;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerId, LeaderEpoch, TopicPartition};

use super::seat::Seat;
use super::waiters::{HasWaiters, Waiter, Waiters};
use crate::log::{AppendError, AppendInfo, FlushMode, LogConfig, LogReader, LogWriter, Prepared};

/// What this broker is for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The controller has named no leader, or not this broker.
    Idle {
        /// The leader, if there is one.
        leader: Option<BrokerId>,
        /// The partition's leader epoch.
        epoch: LeaderEpoch,
    },
    /// This broker leads.
    Leader {
        /// Since which epoch.
        epoch: LeaderEpoch,
    },
}

impl Role {
    fn epoch(self) -> LeaderEpoch {
        match self {
            Self::Idle { epoch, .. } | Self::Leader { epoch } => epoch,
        }
    }
}

/// A partition that this broker holds.
#[derive(Debug)]
pub(crate) struct Partition {
    log: Arc<LogReader>,
    seat: Seat<LogWriter, Job>,
    role: RwLock<Role>,
    config: RwLock<Arc<LogConfig>>,
    waiters: Waiters,
}

/// What is brought to the writer.
enum Job {
    Append(Append),
    Other(Box<dyn FnOnce(&mut LogWriter) + Send>),
}

struct Append {
    records: Prepared,
    answer: oneshot::Sender<Result<AppendInfo, AppendError>>,
}

/// A batch that has been brought to the writer.
#[derive(Debug)]
pub(crate) struct Appending {
    partition: Arc<Partition>,
    answer: oneshot::Receiver<Result<AppendInfo, AppendError>>,
}

/// What a produce waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acks {
    /// That it was tried.
    None,
    /// That the leader has it, as `flush.mode` understands having.
    Leader,
    /// That it is committed.
    All,
}

impl Partition {
    /// A partition on this log, without a role yet.
    pub(crate) fn new(writer: LogWriter, config: Arc<LogConfig>) -> Arc<Self> {
        let log = writer.reader();
        let partition = Arc::new(Self {
            seat: Seat::new(writer),
            role: RwLock::new(Role::Idle {
                leader: None,
                epoch: LeaderEpoch::UNKNOWN,
            }),
            config: RwLock::new(config),
            waiters: Waiters::default(),
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

    /// The offset after the last committed record: consumers see nothing from here on.
    pub(crate) fn high_watermark(&self) -> i64 {
        self.log.high_watermark()
    }

    /// The offset before which no transaction is open: what `read_committed` consumers see.
    pub(crate) fn last_stable_offset(&self) -> i64 {
        self.high_watermark()
    }

    /// The leader epoch that this broker knows of.
    pub(crate) fn leader_epoch(&self) -> LeaderEpoch {
        self.role.read().epoch()
    }

    /// Whether this broker leads, and if the asker names an epoch, whether it is the same.
    ///
    /// # Errors
    /// As Kafka's `Partition.checkCurrentLeaderEpoch` and `localLogOrError`: FENCED_LEADER_EPOCH or UNKNOWN_LEADER_EPOCH before NOT_LEADER_OR_FOLLOWER.
    pub(crate) fn check_leader(&self, asked: LeaderEpoch) -> Result<LeaderEpoch, ErrorCode> {
        let role = *self.role.read();
        if asked != LeaderEpoch::UNKNOWN {
            if asked < role.epoch() {
                return Err(ErrorCode::FencedLeaderEpoch);
            }
            if asked > role.epoch() {
                return Err(ErrorCode::UnknownLeaderEpoch);
            }
        }
        match role {
            Role::Leader { epoch } => Ok(epoch),
            Role::Idle { .. } => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// Takes up a role. A leader's first act is to commit what it has: with one replica there is nobody to wait for.
    pub(crate) fn set_role(self: &Arc<Self>, role: Role) {
        let before = std::mem::replace(&mut *self.role.write(), role);
        if before == role {
            return;
        }
        if let Role::Leader { .. } = role {
            self.commit();
        }
        self.waiters.wake_all();
    }

    /// Takes up another configuration of the log.
    pub(crate) fn set_config(self: &Arc<Self>, config: Arc<LogConfig>) {
        if *self.config.read() == config {
            return;
        }
        *self.config.write() = Arc::clone(&config);
        self.with_writer_detached(move |writer| writer.update_config(config));
        self.commit();
    }

    /// Brings checked records to the writer. They are appended in the order of the calls; whether they were is told by the [`Appending`].
    pub(crate) fn append(self: &Arc<Self>, records: Prepared) -> Appending {
        let (answer, receiver) = oneshot::channel();
        self.bring(Job::Append(Append { records, answer }));
        Appending {
            partition: Arc::clone(self),
            answer: receiver,
        }
    }

    /// Runs `act` with the writer, after all that waits.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR when the writer is lost to a bug.
    pub(crate) async fn with_writer<R: Send + 'static>(
        self: &Arc<Self>,
        act: impl FnOnce(&mut LogWriter) -> R + Send + 'static,
    ) -> Result<R, ErrorCode> {
        let (answer, receiver) = oneshot::channel();
        self.bring(Job::Other(Box::new(move |writer| {
            // Nobody waits any more: the act was done all the same.
            let _ = answer.send(act(writer));
        })));
        receiver.await.map_err(|_| ErrorCode::KafkaStorageError)
    }

    /// As [`Partition::with_writer`], for those who need no answer.
    pub(crate) fn with_writer_detached(self: &Arc<Self>, act: impl FnOnce(&mut LogWriter) + Send + 'static) {
        self.bring(Job::Other(Box::new(act)));
    }

    fn bring(self: &Arc<Self>, job: Job) {
        // A broken seat drops the job, and with it the answer's sender: that is what the asker sees.
        let _ = self.seat.bring(job, |writer, jobs| self.work(writer, jobs));
    }

    fn work(self: &Arc<Self>, writer: &mut LogWriter, jobs: Vec<Job>) {
        let mut appends = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job {
                Job::Append(append) => appends.push(append),
                Job::Other(act) => {
                    self.append_all(writer, &mut appends);
                    act(writer);
                }
            }
        }
        self.append_all(writer, &mut appends);
    }

    /// Writes what waits in one go, then answers.
    fn append_all(self: &Arc<Self>, writer: &mut LogWriter, appends: &mut Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        // The role is read here, where no other append can run: a deposed leader's batch is refused however long it waited.
        let Role::Leader { epoch } = *self.role.read() else {
            for append in appends.drain(..) {
                let _ = append.answer.send(Err(AppendError::NotLeader));
            }
            return;
        };
        let (mut records, answers): (Vec<_>, Vec<_>) = appends.drain(..).map(|append| (append.records, append.answer)).unzip();
        let results = writer.append_as_leader(&mut records, epoch, super::now_ms());
        self.commit();
        for (answer, result) in answers.into_iter().zip(results) {
            // Nobody waits any more: acks=0, or the client is gone.
            let _ = answer.send(result);
        }
    }

    /// What this broker has as `flush.mode` understands having.
    fn had_offset(&self) -> i64 {
        match self.config.read().flush_mode {
            FlushMode::None => self.log.log_end_offset(),
            FlushMode::Group => self.log.flushed_offset(),
        }
    }

    /// Moves the high watermark to what is committed now, asking for a flush where one is needed, and wakes who waits for it.
    pub(crate) fn commit(&self) {
        if !matches!(*self.role.read(), Role::Leader { .. }) {
            return;
        }
        let had = self.had_offset();
        if had < self.log.log_end_offset() {
            self.log.request_flush();
        }
        if self.log.advance_high_watermark(had) {
            self.waiters.wake_all();
        }
    }

    /// A flush ended, or the log directory went offline.
    fn flushed(&self) {
        self.commit();
        if self.log.is_offline() {
            self.waiters.wake_all();
        }
    }

    /// Whether this broker leads.
    pub(crate) fn is_leader(&self) -> bool {
        matches!(*self.role.read(), Role::Leader { .. })
    }

    /// Ends the partition's life here: nothing is appended any more, and nobody waits any more.
    pub(crate) fn retire(self: &Arc<Self>) {
        let epoch = self.leader_epoch();
        self.set_role(Role::Idle { leader: None, epoch });
    }

    /// Takes the writer out for good, after all that waits.
    pub(crate) async fn take_writer(self: &Arc<Self>) -> Option<LogWriter> {
        self.retire();
        // The end of the queue: whatever was brought before is done when this is answered.
        self.with_writer(|_| ()).await.ok()?;
        self.seat.take()
    }
}

impl HasWaiters for Partition {
    fn waiters(&self) -> &Waiters {
        &self.waiters
    }
}

impl Appending {
    /// Waits until the batch is appended, and then for what `acks` asks.
    ///
    /// # Errors
    /// What the append was refused for; [`AppendError::NotLeader`] when this broker stopped to lead while the batch waited to be committed.
    pub(crate) async fn acknowledged(self, acks: Acks) -> Result<AppendInfo, AppendError> {
        let info = self.answer.await.unwrap_or(Err(AppendError::Storage))?;
        // With one replica, what the leader has is what is committed: both kinds of acknowledgement wait for the same offset.
        if acks != Acks::None && self.partition.high_watermark() <= info.last_offset {
            let mut waiter = Waiter::new();
            loop {
                waiter.register([Arc::clone(&self.partition)]);
                if self.partition.high_watermark() > info.last_offset {
                    break;
                }
                if self.partition.log.is_offline() {
                    return Err(AppendError::Storage);
                }
                self.partition.check_leader(LeaderEpoch::UNKNOWN).map_err(|_| AppendError::NotLeader)?;
                waiter.woken().await;
            }
        }
        Ok(info)
    }
}
