//! Writes the ends of transactions to their partitions, and retries until every leader has written
//! its marker (`TransactionMarkerChannelManager` in Apache Kafka).
//!
//! A task asks the coordinators on this broker which transactions are prepared. It asks when a
//! transaction ends, and periodically, because coordinators move and transactions time out. The
//! replies contain committed state only. Writing a marker twice is harmless: the coordinator counts
//! a transaction as complete once every partition has one.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::task::JoinSet;
use tracing::{debug, warn};
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::WriteTxnMarkersRequest;
use weir_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use weir_protocol::types::{BrokerId, LeaderEpoch, TopicPartition};

use super::parts::{Begun, Key, TransactionIo};
use super::peers::{by_topic, failed};
use super::timeouts::time_out;
use crate::coordinator::StateMachine;
use crate::group::Groups;
use crate::metadata::{MetadataImage, PartitionImage};
use crate::replica::{Acks, now_ms};
use crate::transaction::{Looked, Partition, Prepared, Request, Transactions};
use weir_log::producers::Marker;
use weir_log::{AppendError, Prepared as Batch};

/// The protocol version between brokers of this build.
const VERSION: i16 = 2;

/// The interval at which the task asks coordinators when no transaction has ended.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How long a partition is unknown before it counts as deleted. A topic may be deleted and made
/// anew, and this broker may hear of the deletion first. One that hears of nothing for this long is
/// fenced.
const GONE_AFTER: Duration = Duration::from_secs(4);

/// The first and the longest pause before a retry of a marker; the pause doubles in between.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How many markers of one request are written at a time. Each advance of a high watermark wakes
/// all that wait in its partition.
const MARKERS_AT_ONCE: usize = 500;

/// The longest time that a leader waits for the commit of a marker.
const COMMIT_MAX: Duration = Duration::from_secs(20);

impl TransactionIo {
    /// Writes markers as long as the broker runs.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        let mut next_round = tokio::time::interval(ASK_EVERY);
        next_round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let partitions: Vec<i32> = tokio::select! {
                () = self.markers.notify.notified() => std::mem::take(&mut *self.markers.ended.lock()).into_iter().collect(),
                _ = next_round.tick() => {
                    let all = self.transactions.partitions();
                    self.markers.open.lock().retain(|partition, _| all.contains(partition));
                    all
                }
            };
            for partition in partitions {
                tasks.spawn(write_due_markers(Arc::clone(&self), partition));
            }
            while tasks.try_join_next().is_some() {}
        }
    }

    /// Writes a marker to partitions that this broker leads, and waits until it is committed.
    pub(crate) async fn write_markers(
        &self,
        marker: Marker,
        partitions: Vec<Partition>,
    ) -> Vec<(Partition, ErrorCode)> {
        let writes = partitions.into_iter().map(|partition| async move {
            let written = write_marker(self, marker, &partition).await;
            (partition, written.err().unwrap_or(ErrorCode::None))
        });
        futures::stream::iter(writes).buffered(MARKERS_AT_ONCE).collect().await
    }
}

/// Writes the markers of all transactions that one coordinator has prepared.
async fn write_due_markers(io: Arc<TransactionIo>, partition: i32) {
    let Ok(looked) = io.transactions.ask_partition(partition, |to| Request::Look { to }).await
    else {
        return;
    };
    let Looked { prepared, exhausted, tally, open, oldest_ms } = looked;
    io.markers.open.lock().insert(partition, (open, oldest_ms));
    let aborted = [tally.aborted_by_client, tally.aborted_by_timeout, tally.aborted_by_fencing];
    io.metrics.transactions_ended(tally.committed, aborted);
    io.metrics.producers_fenced(tally.fenced);
    let keys: BTreeSet<Key> = prepared.iter().map(key).collect();
    let is_over = |key: &Key, begun: &Begun| {
        begun.partition == partition && begun.is_given_up && !keys.contains(key)
    };
    io.markers.begun.lock().retain(|key, begun| !is_over(key, begun));
    let mut tasks = JoinSet::new();
    for id in exhausted {
        let io = Arc::clone(&io);
        tasks.spawn(async move { time_out(&io, partition, id).await });
    }
    for transaction in prepared {
        let key = key(&transaction);
        let begun = Begun { partition, is_given_up: false };
        if let Entry::Vacant(vacant) = io.markers.begun.lock().entry(key.clone()) {
            vacant.insert(begun);
            let io = Arc::clone(&io);
            tasks.spawn(async move {
                let is_given_up = mark(&io, partition, transaction).await == Marked::GivenUp;
                let mut all = io.markers.begun.lock();
                match is_given_up {
                    true => drop(all.insert(key, Begun { is_given_up, ..begun })),
                    false => drop(all.remove(&key)),
                }
            });
        }
    }
    while tasks.join_next().await.is_some() {}
}

fn key(transaction: &Prepared) -> Key {
    (transaction.id.clone(), transaction.producer, transaction.coordinator_epoch)
}

/// The outcome of writing the markers of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marked {
    /// All are written, or another coordinator writes them.
    Done,
    GivenUp,
}

/// The meaning of an answer to a marker (`TransactionMarkerRequestCompletionHandler` in Apache
/// Kafka).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The partition needs no marker any more.
    Done,
    Again,
    /// The partition has seen a newer epoch of the producer or of its coordinator. This coordinator
    /// writes no more markers of this transaction.
    GiveUp,
}

impl Meaning {
    fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::None
            | ErrorCode::UnsupportedForMessageFormat
            | ErrorCode::UnsupportedVersion => Self::Done,
            ErrorCode::InvalidProducerEpoch | ErrorCode::TransactionCoordinatorFenced => {
                Self::GiveUp
            }
            // Kafka treats an unexpected error as a bug and never writes the marker. Here it is
            // retried, because the error may be temporary.
            _ => Self::Again,
        }
    }
}

/// Writes the markers of one transaction, and reports them to its coordinator.
async fn mark(io: &Arc<TransactionIo>, coordinator: i32, transaction: Prepared) -> Marked {
    let mut pause = RETRY_MIN;
    let mut missing: BTreeSet<Partition> = transaction.partitions.iter().cloned().collect();
    let began = Instant::now();
    while !missing.is_empty() {
        let mut rounds = JoinSet::new();
        if began.elapsed() >= GONE_AFTER {
            drop_deleted(&io.metadata.load(), &mut missing);
        }
        for (leader, partitions) in by_leader(&io.metadata.load(), &missing) {
            let (io, marker) = (Arc::clone(io), marker(&transaction));
            rounds.spawn(async move {
                if leader == io.id {
                    io.write_markers(marker, partitions).await
                } else {
                    ask_leader(&io, leader, marker, partitions).await
                }
            });
        }
        let mut is_given_up = false;
        while let Some(said) = rounds.join_next().await {
            for (partition, code) in said.unwrap_or_default() {
                let meaning = Meaning::of(code);
                if code != ErrorCode::None {
                    let (topic, index) = &partition;
                    debug!(
                        id = transaction.id,
                        %topic,
                        partition = index,
                        error = code.name(),
                        ?meaning,
                        "a marker was not written"
                    );
                }
                is_given_up |= meaning == Meaning::GiveUp;
                if meaning == Meaning::Done {
                    missing.remove(&partition);
                }
            }
        }
        if missing.is_empty() {
            break;
        }
        if !is_coordinator(io, coordinator, transaction.coordinator_epoch) {
            return Marked::Done;
        }
        if is_given_up {
            warn!(
                id = transaction.id,
                producer = transaction.producer.id.0,
                epoch = transaction.producer.epoch.0,
                "a partition knows a newer epoch: no more markers of this transaction are written"
            );
            return Marked::GivenUp;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
    let Prepared { id, producer, partitions, .. } = transaction;
    let make = |to| Request::Written { id, producer, partitions, to };
    // If the coordinator has moved, the new one writes them again.
    let _ = io.transactions.ask_partition(coordinator, make).await;
    Marked::Done
}

fn marker(transaction: &Prepared) -> Marker {
    Marker {
        producer: transaction.producer.id,
        epoch: transaction.producer.epoch,
        coordinator_epoch: transaction.coordinator_epoch.0,
        commit: transaction.commit,
        transaction_version: i8::try_from(transaction.version).unwrap_or(0),
    }
}

fn is_coordinator(io: &TransactionIo, partition: i32, epoch: LeaderEpoch) -> bool {
    let image = io.metadata.load();
    let state =
        image.topic_by_name(Transactions::TOPIC).and_then(|topic| topic.partition(partition));
    state.is_some_and(|state| state.leader == Some(io.id) && state.leader_epoch == epoch)
}

/// Drops partitions that do not exist any more.
fn drop_deleted(image: &MetadataImage, missing: &mut BTreeSet<Partition>) {
    missing.retain(|partition| {
        let is_there = state_of(image, partition).is_some();
        if !is_there {
            let (topic, index) = partition;
            debug!(%topic, partition = index, "the topic is gone, and needs no marker");
        }
        is_there
    });
}

/// Groups the partitions by leader. Skips those without one for now.
fn by_leader(
    image: &MetadataImage,
    missing: &BTreeSet<Partition>,
) -> BTreeMap<BrokerId, Vec<Partition>> {
    let mut leaders: BTreeMap<BrokerId, Vec<Partition>> = BTreeMap::new();
    for partition in missing {
        if let Some(leader) = state_of(image, partition).and_then(|state| state.leader) {
            leaders.entry(leader).or_default().push(partition.clone());
        }
    }
    leaders
}

fn state_of<'a>(
    image: &'a MetadataImage,
    (topic, index): &Partition,
) -> Option<&'a PartitionImage> {
    image.topic_by_name(topic)?.partition(*index)
}

async fn ask_leader(
    io: &TransactionIo,
    leader: BrokerId,
    marker: Marker,
    partitions: Vec<Partition>,
) -> Vec<(Partition, ErrorCode)> {
    let topics = by_topic(&partitions)
        .map(|(name, partition_indexes)| WritableTxnMarkerTopic { name, partition_indexes });
    let request = WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: marker.producer.0,
            producer_epoch: marker.epoch.0,
            transaction_result: marker.commit,
            topics: topics.collect(),
            coordinator_epoch: marker.coordinator_epoch,
            transaction_version: marker.transaction_version,
        }],
    };
    match io.peers.call(leader, VERSION, &request).await {
        Ok(response) => {
            let topics = response.markers.into_iter().flat_map(|marker| marker.topics);
            let said = topics.flat_map(|topic| {
                let name: Arc<str> = topic.name.into();
                topic.partitions.into_iter().map(move |partition| {
                    (
                        (Arc::clone(&name), partition.partition_index),
                        ErrorCode::from_code(partition.error_code),
                    )
                })
            });
            said.collect()
        }
        Err(error) => {
            let code = failed(leader, &error);
            partitions.into_iter().map(|partition| (partition, code)).collect()
        }
    }
}

async fn write_marker(
    io: &TransactionIo,
    marker: Marker,
    partition: &Partition,
) -> Result<(), ErrorCode> {
    // The group coordinator makes offsets valid at the end of their transaction, so it writes the
    // marker itself.
    if *partition.0 == *Groups::TOPIC {
        let ended = io.groups.end_transaction(partition.1, marker).await;
        return ended.map_err(code_of_coordinator);
    }
    let appending = append_marker(io, marker, partition)?;
    match tokio::time::timeout(COMMIT_MAX, appending.acknowledged(Acks::All)).await {
        Ok(written) => written.map(drop).map_err(code_of),
        Err(_) => Err(ErrorCode::RequestTimedOut),
    }
}

fn append_marker(
    io: &TransactionIo,
    marker: Marker,
    (topic, index): &Partition,
) -> Result<crate::replica::Appending, ErrorCode> {
    let id = {
        let image = io.metadata.load();
        let topic = image.topic_by_name(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        topic.partition(*index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        TopicPartition { topic: topic.id, index: *index }
    };
    let partition = io.replicas.get(id).ok_or(ErrorCode::NotLeaderOrFollower)?;
    partition.accepts(Acks::All)?;
    let batch = Batch::marker(marker, now_ms()).map_err(code_of)?;
    Ok(partition.append(batch))
}

/// Maps the errors of a group coordinator that has moved or is not ready to one that is retried
/// (`KafkaApis.handleWriteTxnMarkersRequest`).
fn code_of_coordinator(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::NotCoordinator
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable => ErrorCode::NotLeaderOrFollower,
        code => code,
    }
}

fn code_of(error: AppendError) -> ErrorCode {
    match error {
        AppendError::NotLeader => ErrorCode::NotLeaderOrFollower,
        AppendError::NotEnoughReplicasAfterAppend => ErrorCode::NotEnoughReplicasAfterAppend,
        AppendError::Storage | AppendError::Nameless => ErrorCode::KafkaStorageError,
        AppendError::Producer(error) => error.code(),
    }
}

#[cfg(test)]
mod tests {
    use weir_protocol::controller as rpc;
    use weir_protocol::types::ControllerEpoch;

    use super::*;

    /// The image of a topic `t` with these leaders.
    fn image(leaders: &[i32]) -> MetadataImage {
        let partition = |(index, leader): (i32, &i32)| rpc::Partition {
            index,
            replicas: vec![1],
            leader: *leader,
            ..Default::default()
        };
        let topic = rpc::Topic {
            id: vec![7; 16],
            name: "t".to_owned(),
            partitions: (0..).zip(leaders).map(partition).collect(),
            ..Default::default()
        };
        let update = rpc::MetadataUpdate {
            version: 1,
            full: true,
            topics: Vec::from_iter((!leaders.is_empty()).then_some(topic)),
            ..Default::default()
        };
        MetadataImage::default().after(ControllerEpoch(1), &update).unwrap().0
    }

    /// A topic that was deleted and made anew is unknown for a moment. Its marker is written once
    /// it is known again.
    #[test]
    fn a_partition_that_is_unknown_for_a_moment_stays() {
        let missing: BTreeSet<Partition> = [0, 1, 2].map(|index| ("t".into(), index)).into();
        assert!(by_leader(&image(&[]), &missing).is_empty());
        let leaders = by_leader(&image(&[1, -1, 2]), &missing);
        let indexes = |broker| leaders[&BrokerId(broker)].iter().map(|(_, index)| *index);
        assert_eq!(indexes(1).chain(indexes(2)).collect::<Vec<_>>(), [0, 2]);
        let mut rest = missing.clone();
        drop_deleted(&image(&[1, -1]), &mut rest);
        assert_eq!(rest.iter().map(|(_, index)| *index).collect::<Vec<_>>(), [0, 1]);
        drop_deleted(&image(&[]), &mut rest);
        assert!(rest.is_empty());
    }

    #[test]
    fn what_answers_to_markers_mean() {
        for (code, meaning) in [
            (ErrorCode::None, Meaning::Done),
            (ErrorCode::UnsupportedForMessageFormat, Meaning::Done),
            (ErrorCode::UnsupportedVersion, Meaning::Done),
            (ErrorCode::UnknownTopicOrPartition, Meaning::Again),
            (ErrorCode::NotLeaderOrFollower, Meaning::Again),
            (ErrorCode::NotEnoughReplicas, Meaning::Again),
            (ErrorCode::NotEnoughReplicasAfterAppend, Meaning::Again),
            (ErrorCode::RequestTimedOut, Meaning::Again),
            (ErrorCode::KafkaStorageError, Meaning::Again),
            (ErrorCode::NetworkException, Meaning::Again),
            (ErrorCode::InvalidProducerEpoch, Meaning::GiveUp),
            (ErrorCode::TransactionCoordinatorFenced, Meaning::GiveUp),
        ] {
            assert_eq!(Meaning::of(code), meaning, "{}", code.name());
        }
    }
}
