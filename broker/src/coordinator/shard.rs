//! One partition of a coordinator's topic: whether this broker coordinates it, its machine, and the
//! path of a request to its commit.
//!
//! The machine has an executor, as a partition's writer has. A thread that brings a request runs
//! all queued jobs: it decides them, appends all records at once, and sends each reply with the
//! commit that it must wait for. It holds no lock meanwhile, and a shard has no task.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::error;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{LeaderEpoch, TopicId};

use super::append::{Batches, TooLarge};
use super::state_machine::{Commit, Now, Outcome, ReplyTo, StateMachine, commit};
use super::transactional::{InTransaction, Producer, Transactional};
use crate::metadata::MetadataImage;
use crate::replica::{Acks, Backlog, Partition, SerialExecutor, Waiter};
use weir_log::producers::{Guard, Marker, Producers};
use weir_log::{AppendError, Prepared};

/// A leadership of this broker. The epoch alone does not identify it: a topic may be deleted and
/// created anew, and both begin with the same epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tenure {
    pub(super) topic: TopicId,
    pub(super) epoch: LeaderEpoch,
}

/// The role of this broker in a partition of the topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Status {
    /// Another broker leads it, or none.
    #[default]
    Away,
    /// This broker leads it and reads its log.
    Loading(Tenure),
    /// This broker coordinates.
    Active(Tenure),
}

impl Status {
    /// The leadership in which this broker coordinates or loads.
    pub(super) fn tenure(self) -> Option<Tenure> {
        match self {
            Self::Away => None,
            Self::Loading(tenure) | Self::Active(tenure) => Some(tenure),
        }
    }

    /// The error for a request that the coordinator cannot take.
    fn refusal(self) -> ErrorCode {
        match self {
            Self::Away => ErrorCode::NotCoordinator,
            Self::Loading(_) | Self::Active(_) => ErrorCode::CoordinatorLoadInProgress,
        }
    }
}

/// One partition of the topic.
pub(super) struct Shard<M: StateMachine> {
    executor: SerialExecutor<Option<Active<M>>, Job<M>>,
    standing: Mutex<ShardStatus>,
}

#[derive(Default)]
struct ShardStatus {
    status: Status,
    /// The partition of an active shard.
    partition: Option<Arc<Partition>>,
    /// Loads have failed again and again.
    is_unavailable: bool,
}

impl ShardStatus {
    /// The error for a request that the coordinator cannot take.
    fn refusal(&self) -> ErrorCode {
        match self.status {
            Status::Loading(_) if self.is_unavailable => ErrorCode::CoordinatorNotAvailable,
            status => status.refusal(),
        }
    }
}

/// The state of an active coordinator.
pub(super) struct Active<M> {
    machine: M,
    /// The producers that write to this partition in transactions.
    transactional: Transactional,
    partition: Arc<Partition>,
    tenure: Tenure,
    /// The newest append; later replies wait for it, too.
    last: Option<Commit>,
}

/// A job for the machine.
pub(super) enum Job<M: StateMachine> {
    Ask(M::Request),
    /// A request that writes in a transaction. The sender gets the error if the write is refused.
    AskIn(InTransaction, M::Request, oneshot::Sender<ErrorCode>),
    /// Registers a verification before the transaction's coordinator is asked.
    AskToVerify(Producer, ReplyTo<Option<Guard>>),
    EndTransaction(Marker, ReplyTo<Result<(), ErrorCode>>),
    Wake,
    Metadata(Arc<MetadataImage>),
    /// Activates the shard with the loaded machine, unless that leadership has ended meanwhile.
    Begin(Box<Active<M>>),
    End,
}

/// The broker's state that a shard uses in its work.
#[derive(Clone, Copy)]
pub(super) struct ShardContext<'a> {
    pub(super) now: Now,
    pub(super) image: &'a Arc<MetadataImage>,
    pub(super) broker: weir_protocol::types::BrokerId,
}

impl<M: StateMachine> Shard<M> {
    pub(super) fn new() -> Self {
        Self { executor: SerialExecutor::new(None), standing: Mutex::default() }
    }

    pub(super) fn status(&self) -> Status {
        self.standing.lock().status
    }

    /// Sets the status when the leadership has changed. Waiting requests then get the error of this
    /// status.
    pub(super) fn set_status(&self, status: Status) {
        *self.standing.lock() = ShardStatus { status, ..ShardStatus::default() };
    }

    /// Notes that loads have failed again and again: waiting is of no use to a client for now.
    pub(super) fn is_unavailable(&self, tenure: Tenure) {
        let mut standing = self.standing.lock();
        standing.is_unavailable = standing.status == Status::Loading(tenure);
    }

    /// Checks that the shard accepts a request.
    ///
    /// # Errors
    /// NOT_COORDINATOR or COORDINATOR_LOAD_IN_PROGRESS; COORDINATOR_NOT_AVAILABLE for a request
    /// that may need a record while nothing can be committed.
    pub(super) fn check(&self, writes: bool) -> Result<(), ErrorCode> {
        let standing = self.standing.lock();
        match (&standing.status, &standing.partition) {
            (Status::Active(_), Some(partition)) if writes => match partition.accepts(Acks::All) {
                Err(ErrorCode::NotEnoughReplicas) => Err(ErrorCode::CoordinatorNotAvailable),
                Err(_) => Err(ErrorCode::NotCoordinator),
                Ok(()) => Ok(()),
            },
            (Status::Active(_), Some(_)) => Ok(()),
            _ => Err(standing.refusal()),
        }
    }

    /// The error for a request without a reply.
    pub(super) fn refusal(&self) -> ErrorCode {
        self.standing.lock().refusal()
    }

    /// Queues a job. The thread in the executor passes the time of the next timer to `is_due` after
    /// its work, before another thread can take the executor.
    pub(super) fn submit(
        &self,
        job: Job<M>,
        surroundings: ShardContext<'_>,
        mut is_due: impl FnMut(u64),
    ) -> Backlog {
        let brought = self.executor.submit(job, |core, jobs| {
            self.work(core, jobs, surroundings).into_iter().for_each(&mut is_due);
        });
        // A broken executor drops the request, which the caller notices.
        brought.unwrap_or(Backlog::Nothing)
    }

    /// Like [`Shard::submit`], for remaining jobs.
    pub(super) fn run_backlog(
        &self,
        surroundings: ShardContext<'_>,
        mut is_due: impl FnMut(u64),
    ) -> Backlog {
        self.executor.run_backlog(|core, jobs| {
            self.work(core, jobs, surroundings).into_iter().for_each(&mut is_due);
        })
    }

    fn work(
        &self,
        core: &mut Option<Active<M>>,
        jobs: Vec<Job<M>>,
        surroundings: ShardContext<'_>,
    ) -> Option<u64> {
        let mut gathered = Batch::default();
        for job in jobs {
            match job {
                Job::Begin(active) => {
                    gathered.append(core.as_mut());
                    *core = self.activate(*active);
                    if let Some(active) = core {
                        active.apply_metadata(surroundings.image, surroundings, &mut gathered);
                    }
                }
                Job::End => {
                    gathered.append(core.as_mut());
                    if core
                        .as_ref()
                        .is_some_and(|active| self.status() != Status::Active(active.tenure))
                    {
                        *core = None;
                    }
                }
                // A marker follows all earlier decisions, in an append of its own.
                Job::EndTransaction(marker, to) => {
                    gathered.append(core.as_mut());
                    if let Some(active) = core {
                        active.end_transaction(marker, to, surroundings.now);
                    }
                }
                other => {
                    if let Some(active) = core {
                        active.work(other, surroundings, &mut gathered);
                    }
                }
            }
        }
        gathered.append(core.as_mut());
        let active = core.as_ref()?;
        let wake = active.machine.next_wake()?;
        // While nothing can be committed, due timers wait.
        let earliest =
            active.partition.accepts(Acks::All).map_or(surroundings.now.ms + UNWRITABLE_MS, |()| 0);
        Some(wake.max(earliest))
    }

    fn activate(&self, active: Active<M>) -> Option<Active<M>> {
        let mut standing = self.standing.lock();
        if standing.status != Status::Loading(active.tenure) {
            return None;
        }
        *standing = ShardStatus {
            status: Status::Active(active.tenure),
            partition: Some(Arc::clone(&active.partition)),
            is_unavailable: false,
        };
        Some(active)
    }
}

impl<M: StateMachine> Active<M> {
    /// An active coordinator with the loaded state.
    pub(super) fn new(
        (machine, producers): (M, Producers),
        partition: Arc<Partition>,
        tenure: Tenure,
    ) -> Box<Self> {
        let transactional = Transactional::of(producers, tenure.epoch);
        Box::new(Self { machine, transactional, partition, tenure, last: None })
    }

    fn work(&mut self, job: Job<M>, surroundings: ShardContext<'_>, gathered: &mut Batch) {
        let writable = self.partition.accepts(Acks::All);
        let now = surroundings.now;
        match job {
            Job::Ask(request) => {
                gathered.decide(now, |outcome| self.machine.decide(request, now, outcome))
            }
            Job::AskIn(write, request, refused) => match self.transactional.admit(write) {
                Ok(()) => {
                    gathered.decide(now, |outcome| self.machine.decide(request, now, outcome))
                }
                // Sends the error first and then drops the request, so the caller finds it. The
                // receiver may be gone.
                Err(code) => drop((refused.send(code), request)),
            },
            Job::AskToVerify(producer, to) => {
                let answer = self.transactional.ask(producer);
                gathered.decide(now, |outcome| outcome.reply(to, answer));
            }
            // Due timers stay due; they are checked again.
            Job::Wake if writable.is_err() => {}
            Job::Wake => gathered.decide(now, |outcome| self.machine.wake(now, outcome)),
            Job::Metadata(image) => self.apply_metadata(&image, surroundings, gathered),
            Job::Begin(_) | Job::End | Job::EndTransaction(..) => {}
        }
    }

    /// The machine and the log see the end of a transaction at the same position.
    fn end_transaction(&mut self, marker: Marker, to: ReplyTo<Result<(), ErrorCode>>, now: Now) {
        let batch = self
            .transactional
            .admit_marker(&marker)
            .and_then(|()| Prepared::marker(marker, now.wall_ms).map_err(|error| refusal(&error)));
        match batch {
            Ok(batch) => {
                self.machine.end_transaction(marker.producer, marker.epoch, marker.commit);
                let commit = self.append(Some(batch), now);
                to.with(Ok(())).send(commit);
            }
            Err(code) => to.with(Err(code)).send(None),
        }
    }

    fn apply_metadata(
        &mut self,
        image: &Arc<MetadataImage>,
        surroundings: ShardContext<'_>,
        gathered: &mut Batch,
    ) {
        let layers = image.layers(surroundings.broker);
        self.transactional
            .expire(surroundings.now.wall_ms, self.partition.config().producer_expiration_ms);
        gathered.decide(surroundings.now, |outcome| {
            self.machine.metadata(image, &layers, surroundings.now, outcome);
        });
    }

    /// Appends a batch; returns the commit that replies must wait for.
    fn append(&mut self, batch: Option<Prepared>, now: Now) -> Option<Commit> {
        if let Some(prepared) = batch {
            for (header, bytes) in prepared.batches() {
                self.transactional.appended(&header, bytes, now.wall_ms);
            }
            let appending = self.partition.append_in(self.tenure.epoch, prepared);
            let appended = async move {
                appending.acknowledged(Acks::All).await.map(drop).map_err(|error| refusal(&error))
            };
            self.last = Some(commit(appended));
        }
        match self.last.as_ref().and_then(|last| last.peek()) {
            // A finished commit needs no wait.
            Some(Ok(())) => self.last = None,
            // Too few replicas were in sync; later requests wait for the commit anew.
            Some(Err(ErrorCode::CoordinatorNotAvailable)) => {
                let (partition, epoch, end) = (
                    Arc::clone(&self.partition),
                    self.tenure.epoch,
                    self.partition.log().log_end_offset(),
                );
                self.last = Some(commit(async move { committed(&partition, epoch, end).await }));
            }
            Some(Err(_)) | None => {}
        }
        self.last.clone()
    }
}

/// Waits until everything before `end` is committed.
async fn committed(
    partition: &Arc<Partition>,
    epoch: LeaderEpoch,
    end: i64,
) -> Result<(), ErrorCode> {
    let mut waiter = Waiter::new(Partition::waiters);
    loop {
        waiter.register([Arc::clone(partition)]);
        partition.check_leader(epoch).map_err(|_| ErrorCode::NotCoordinator)?;
        if partition.high_watermark() >= end {
            return Ok(());
        }
        waiter.woken().await;
    }
}

/// The outcome of decisions that are carried out together.
#[derive(Debug, Default)]
struct Batch {
    now: Now,
    batches: Batches,
    replies: Vec<super::state_machine::Reply>,
}

impl Batch {
    fn decide(&mut self, now: Now, decide: impl FnOnce(&mut Outcome)) {
        let mut outcome = Outcome::default();
        decide(&mut outcome);
        self.now = now;
        self.batches.add(&outcome.records, outcome.transaction, now.wall_ms);
        self.replies.append(&mut outcome.replies);
    }

    fn append<M: StateMachine>(&mut self, active: Option<&mut Active<M>>) {
        let Some(active) = active else { return };
        let Self { now, batches, replies } = std::mem::take(self);
        let commit = match batches.finish() {
            Ok(batch) => active.append(batch, now),
            Err(TooLarge) => {
                error!(
                    topic = M::TOPIC,
                    "a record of a coordinator is too large for a batch; whoever asked for it is refused, and nothing is appended"
                );
                Some(commit(async { Err(ErrorCode::UnknownServerError) }))
            }
        };
        for reply in replies {
            reply.send(commit.clone());
        }
    }
}

/// The error for requests whose append failed (`CoordinatorOperationExceptionHelper` in Apache
/// Kafka).
fn refusal(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::NotLeader | AppendError::Storage | AppendError::Nameless => {
            ErrorCode::NotCoordinator
        }
        AppendError::NotEnoughReplicasAfterAppend => ErrorCode::CoordinatorNotAvailable,
        AppendError::Producer(_) => ErrorCode::UnknownServerError,
    }
}

/// How long due timers wait while nothing can be committed.
const UNWRITABLE_MS: u64 = 500;
