//! Coordinators: state machines that keep their state in the partitions of an internal topic. The
//! broker that leads a partition runs its machine.
//!
//! This is the common part of all coordinators. It maps keys to partitions, and reads the log when
//! this broker begins to lead. The [`StateMachine`] decides a request, the partition's writer
//! appends the records, and the reply leaves after the commit with `acks=all`. Called by `api`;
//! knows nothing of groups or transactions.
//!
//! Invariants
//! - A [`StateMachine`] is pure: the runtime tells it the time, it changes at once, and it returns
//!   records and replies.
//! - A reply is sent only after every record that was appended before it, by any request, is
//!   committed.
//! - A machine belongs to one leader epoch. Its records are appended in that epoch or not at all.
//!   When the epoch ends, the machine is dropped, and requests that wait get NOT_COORDINATOR.
//! - A new machine answers COORDINATOR_LOAD_IN_PROGRESS until it has read the log to its end and
//!   all of it is committed.
//! - While too few replicas are in sync, a request that needs a record gets
//!   COORDINATOR_NOT_AVAILABLE.
//! - The machine is in a serial executor, as a partition's writer is: no task, no lock across I/O,
//!   and one append for all records that wait. Each partition has one queue of timers.
//! - A damaged record costs that record, and a damaged batch the records in it (`load`).
//! - Only the coordinator appends to its partition, including the markers of other coordinators'
//!   transactions. An invalid write in a transaction is refused before the machine sees it
//!   (`transactional`), never by the log afterwards.

mod agenda;
mod append;
#[cfg(test)]
pub(crate) mod harness;
mod load;
mod memory;
mod shard;
mod state_machine;
mod transactional;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::warn;
use uuid::Uuid;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerId, TopicPartition};

use self::agenda::Agenda;
pub(crate) use self::append::WRITE_BYTES_MAX;
use self::load::{DiskFailed, Loaded, PAUSE, Tries, Unreadable};
pub(crate) use self::memory::{Held, Memory};
use self::shard::{Active, Job, Shard, Status, Tenure};
use self::state_machine::Answer;
pub(crate) use self::state_machine::Commit;
pub(crate) use self::state_machine::{Logged, Now, Origin, Outcome, Record, ReplyTo, StateMachine};
pub(crate) use self::transactional::{InTransaction, Producer, Transactional};
use crate::metadata::{Metadata, MetadataImage};
use crate::replica::{self, Partition, Replicas, Waiter};
use weir_log::producers::{Guard, Marker};

/// The interval at which a waiting load checks that it is still needed.
const RECHECK: Duration = Duration::from_secs(1);

/// The coordinators of one kind on this broker, by partition of their topic.
pub(crate) struct Coordinator<M: StateMachine> {
    /// This broker's id.
    id: BrokerId,
    metadata: Arc<Metadata>,
    replicas: Arc<Replicas>,
    shards: RwLock<Vec<Arc<Shard<M>>>>,
    agenda: Arc<Agenda>,
    shared: M::Shared,
    /// The offsets that loads have left out, because their batches cannot be read.
    left_out: AtomicU64,
    /// The first pause after a load that has failed.
    load_pause: Duration,
    /// Set when the broker stops; no partition is taken up afterwards.
    ended: AtomicBool,
}

impl<M: StateMachine> std::fmt::Debug for Coordinator<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator").field("topic", &M::TOPIC).finish_non_exhaustive()
    }
}

/// The partition of a coordinator's topic for a key; `None` before the topic exists.
pub(crate) fn partition_in(image: &MetadataImage, topic: &str, key: &str) -> Option<i32> {
    let topic = image.topic_by_name(topic).filter(|topic| !topic.partitions.is_empty())?;
    Some(partition_of(key, topic.partitions.len()))
}

/// The partition for a key (`Utils.abs(key.hashCode())` modulo the number of partitions).
fn partition_of(key: &str, partitions: usize) -> i32 {
    let hash = key
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX).max(1);
    hash.checked_abs().unwrap_or(0) % partitions
}

impl<M: StateMachine> Coordinator<M> {
    /// No partitions yet. [`Coordinator::run`] takes up those that this broker leads.
    pub(crate) fn new(
        id: BrokerId,
        metadata: Arc<Metadata>,
        replicas: Arc<Replicas>,
        shared: M::Shared,
    ) -> Self {
        Self {
            id,
            agenda: Arc::new(Agenda::new(id, Arc::clone(&metadata))),
            metadata,
            replicas,
            shards: RwLock::default(),
            shared,
            left_out: AtomicU64::new(0),
            load_pause: PAUSE,
            ended: AtomicBool::new(false),
        }
    }

    /// Sends a request to the coordinator of `key`, and waits for the reply and its commit.
    ///
    /// # Errors
    /// NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS or COORDINATOR_NOT_AVAILABLE. The client then
    /// looks for the coordinator again, or retries.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        key: &str,
        make: impl FnOnce(ReplyTo<T>) -> M::Request,
    ) -> Result<T, ErrorCode> {
        let partition =
            partition_in(&self.metadata.load(), M::TOPIC, key).ok_or(ErrorCode::NotCoordinator)?;
        self.ask_partition(partition, make).await
    }

    /// Like [`Coordinator::ask`], for the coordinator of this partition.
    ///
    /// # Errors
    /// Those of [`Coordinator::ask`].
    pub(crate) async fn ask_partition<T: Send + 'static>(
        &self,
        partition: i32,
        make: impl FnOnce(ReplyTo<T>) -> M::Request,
    ) -> Result<T, ErrorCode> {
        let (to, answer) = ReplyTo::new();
        let request = make(to);
        let shard = self.checked(partition, M::writes(&request))?;
        self.agenda.submit(partition, &shard, Job::Ask(request));
        self.believed(answer).await.ok_or_else(|| shard.refusal())?
    }

    /// Registers a verification of `producer` before its transaction's coordinator is asked about
    /// the partition of `key`. `None`: the transaction is open here already.
    ///
    /// # Errors
    /// Those of [`Coordinator::ask`].
    pub(crate) async fn ask_to_verify(
        &self,
        key: &str,
        producer: Producer,
    ) -> Result<Option<Guard>, ErrorCode> {
        let partition =
            partition_in(&self.metadata.load(), M::TOPIC, key).ok_or(ErrorCode::NotCoordinator)?;
        let shard = self.checked(partition, true)?;
        let (to, answer) = ReplyTo::new();
        self.agenda.submit(partition, &shard, Job::AskToVerify(producer, to));
        self.believed(answer).await.ok_or_else(|| shard.refusal())?
    }

    /// Like [`Coordinator::ask`], for a write in a transaction, which takes effect when that
    /// commits.
    ///
    /// # Errors
    /// Those of [`Coordinator::ask`]; INVALID_TXN_STATE when the transaction has ended since the
    /// guard was created, INVALID_PRODUCER_EPOCH for a fenced producer.
    pub(crate) async fn ask_in_transaction<T: Send + 'static>(
        &self,
        key: &str,
        write: InTransaction,
        make: impl FnOnce(ReplyTo<T>) -> M::Request,
    ) -> Result<T, ErrorCode> {
        let partition =
            partition_in(&self.metadata.load(), M::TOPIC, key).ok_or(ErrorCode::NotCoordinator)?;
        let shard = self.checked(partition, true)?;
        let (to, answer) = ReplyTo::new();
        let (refuse, mut refused) = oneshot::channel();
        self.agenda.submit(partition, &shard, Job::AskIn(write, make(to), refuse));
        let answer = self.believed(answer).await;
        answer.ok_or_else(|| refused.try_recv().unwrap_or_else(|_| shard.refusal()))?
    }

    /// Ends a producer's transaction in a partition, and waits until the marker is committed.
    ///
    /// # Errors
    /// Those of [`Coordinator::ask`]; INVALID_PRODUCER_EPOCH or TRANSACTION_COORDINATOR_FENCED for
    /// an outdated marker.
    pub(crate) async fn end_transaction(
        &self,
        partition: i32,
        marker: Marker,
    ) -> Result<(), ErrorCode> {
        let shard = self.checked(partition, true)?;
        let (to, answer) = ReplyTo::new();
        self.agenda.submit(partition, &shard, Job::EndTransaction(marker, to));
        self.believed(answer).await.ok_or_else(|| shard.refusal())??
    }

    /// The reply once its records are committed; `None` when its sender was dropped.
    async fn believed<T>(
        &self,
        answer: oneshot::Receiver<Answer<T>>,
    ) -> Option<Result<T, ErrorCode>> {
        let (answer, commit) = answer.await.ok()?;
        let committed = match commit {
            Some(commit) => {
                let timeout = M::commit_timeout(&self.metadata.load().layers(self.id));
                let committed = tokio::time::timeout(timeout, commit).await;
                committed.unwrap_or(Err(ErrorCode::CoordinatorNotAvailable))
            }
            None => Ok(()),
        };
        Some(committed.map(|()| answer))
    }

    fn checked(&self, partition: i32, writes: bool) -> Result<Arc<Shard<M>>, ErrorCode> {
        let shard = self.shard(partition).ok_or(ErrorCode::NotCoordinator)?;
        shard.check(writes)?;
        Ok(shard)
    }

    /// The state that its machines share.
    pub(crate) fn shared(&self) -> &M::Shared {
        &self.shared
    }

    /// How many offsets of the logs that this broker has loaded are left out, because their batches
    /// cannot be read.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// The partitions that this broker coordinates, or is loading.
    pub(crate) fn partitions(&self) -> Vec<i32> {
        let shards = self.shards.read();
        (0..)
            .zip(shards.iter())
            .filter(|(_, shard)| shard.status() != Status::Away)
            .map(|(partition, _)| partition)
            .collect()
    }

    fn shard(&self, partition: i32) -> Option<Arc<Shard<M>>> {
        self.shards.read().get(usize::try_from(partition).ok()?).cloned()
    }

    /// Takes up and gives up partitions as the metadata changes, and runs timers. Runs as long as
    /// the broker does.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut loads = JoinSet::new();
        let mut seen = None;
        loop {
            let image = Arc::clone(&self.metadata.load());
            let version = image.version;
            if seen != Some((image.controller_epoch, version)) {
                seen = Some((image.controller_epoch, version));
                self.reconcile_shards(&image, &mut loads);
            }
            drop(image);
            self.wake_due();
            while loads.try_join_next().is_some() {}
            tokio::select! {
                () = self.agenda.is_due() => {}
                () = self.metadata.changed(version) => {}
            }
        }
    }

    fn wake_due(&self) {
        for partition in self.agenda.due() {
            if let Some(shard) = self.shard(partition) {
                self.agenda.submit(partition, &shard, Job::Wake);
            }
        }
    }

    /// Compares the metadata with the partitions that this broker coordinates.
    fn reconcile_shards(self: &Arc<Self>, image: &Arc<MetadataImage>, loads: &mut JoinSet<()>) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        let topic = image.topic_by_name(M::TOPIC);
        let partitions = topic.map_or(&[][..], |topic| &topic.partitions);
        let own = self.id;
        let count = {
            let mut shards = self.shards.write();
            let count = shards.len().max(partitions.len());
            shards.resize_with(count, || Arc::new(Shard::new()));
            count
        };
        for index in 0..i32::try_from(count).unwrap_or(i32::MAX) {
            let Some(shard) = self.shard(index) else { continue };
            let partition = usize::try_from(index).ok().and_then(|index| partitions.get(index));
            let led = topic.zip(partition).filter(|(_, partition)| partition.leader == Some(own));
            let wanted = led.map(|(topic, partition)| Tenure {
                topic: topic.id,
                epoch: partition.leader_epoch,
            });
            if wanted == shard.status().tenure() {
                if wanted.is_some() {
                    self.agenda.submit(index, &shard, Job::Metadata(Arc::clone(image)));
                }
                continue;
            }
            shard.set_status(wanted.map_or(Status::Away, Status::Loading));
            self.agenda.submit(index, &shard, Job::End);
            if let Some(tenure) = wanted {
                loads.spawn(Arc::clone(self).keep_loading(shard, index, tenure));
            }
        }
    }

    async fn keep_loading(self: Arc<Self>, shard: Arc<Shard<M>>, index: i32, tenure: Tenure) {
        let mut tries = Tries::with_pause(self.load_pause);
        while shard.status() == Status::Loading(tenure) {
            let error = match self.load(&shard, index, tenure, tries.unreadable()).await {
                Ok(()) => return,
                Err(error) => error,
            };
            let pause = tries.failed(&error);
            warn!(
                topic = M::TOPIC,
                partition = index,
                failed = tries.failed,
                pause_s = pause.as_secs(),
                %error,
                "cannot load a coordinator; it is tried again"
            );
            if tries.are_of_no_use() {
                shard.is_unavailable(tenure);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn load(
        &self,
        shard: &Arc<Shard<M>>,
        index: i32,
        tenure: Tenure,
        unreadable: Unreadable,
    ) -> anyhow::Result<()> {
        let wanted = || shard.status() == Status::Loading(tenure);
        let (key, epoch) = (TopicPartition { topic: tenure.topic, index }, tenure.epoch);
        let partition = self
            .replicas
            .get(key)
            .ok_or_else(|| anyhow::anyhow!("this broker does not hold the partition"))?;
        if !until(&partition, wanted, |partition| partition.check_leader(epoch).is_ok()).await {
            return Ok(());
        }
        // A record that cannot be appended would exist in the machine alone.
        let has_name = partition.with_writer(|writer| writer.has_name()).await;
        if !has_name.map_err(|code| anyhow::anyhow!("{}", code.name()))? {
            anyhow::bail!(
                "its directory is still that of a topic of this name that is being deleted"
            );
        }
        let origin = Origin { partition: key.index, epoch, seed: Uuid::new_v4().as_u128() };
        let (log, shared) = (Arc::clone(partition.log()), self.shared.clone());
        let read = move || load::load::<M>(&log, origin, &shared, unreadable);
        let loaded = tokio::task::spawn_blocking(read).await?;
        let Loaded { machine, end, left_out } = loaded.map_err(DiskFailed)?;
        self.left_out.fetch_add(left_out, Ordering::Relaxed);
        // The log must be committed before any reply reveals its content.
        if !until(&partition, wanted, |partition| partition.high_watermark() >= end).await {
            return Ok(());
        }
        // Only this coordinator appends in this epoch, so the log's producer state is still current
        // when the machine begins.
        let producers =
            partition.with_writer(|writer| writer.known_producers(replica::now_ms())).await;
        let producers = producers.map_err(|code| anyhow::anyhow!("{}", code.name()))??;
        let active = Active::new((machine, producers), partition, tenure);
        self.agenda.submit(index, shard, Job::Begin(active));
        Ok(())
    }

    /// Gives up all partitions when the broker stops. Waiting requests get NOT_COORDINATOR.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        let shards = self.shards.read().clone();
        for (index, shard) in (0..).zip(&shards) {
            shard.set_status(Status::Away);
            self.agenda.submit(index, shard, Job::End);
        }
    }
}

/// Waits until `reached`; returns false when the partition is not `wanted` any more.
async fn until(
    partition: &Arc<Partition>,
    wanted: impl Fn() -> bool,
    reached: impl Fn(&Partition) -> bool,
) -> bool {
    let mut waiter = Waiter::new(Partition::waiters);
    while wanted() {
        waiter.register([Arc::clone(partition)]);
        if reached(partition) {
            return true;
        }
        let _ = tokio::time::timeout(RECHECK, waiter.woken()).await;
    }
    false
}

/// The coordinator of `key`, if its partition has a leader.
pub(crate) fn coordinator_of(image: &MetadataImage, topic: &str, key: &str) -> Option<BrokerId> {
    let partition = partition_in(image, topic, key)?;
    image.topic_by_name(topic)?.partition(partition)?.leader
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_the_partition_that_kafka_gives_it() {
        // Values of `Utils.abs("...".hashCode()) % 50`, computed by Java.
        for (key, partition) in
            [("", 0), ("a", 47), ("test-group", 12), ("polygenelubricants", 0), ("ž", 32)]
        {
            assert_eq!(partition_of(key, 50), partition, "{key}");
        }
    }
}
