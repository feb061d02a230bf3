//! The ends of transactions, written to their partitions: for as long as that takes, whoever leads them meanwhile (`TransactionMarkerChannelManager` in Apache Kafka).
//!
//! A task asks the coordinators here which transactions are prepared: when one has been ended, and from time to time, since coordinators move and transactions time out. What it is told is
//! committed. Markers may be written twice, which changes nothing: the coordinator counts a transaction as complete once every partition has one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::debug;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::WriteTxnMarkersRequest;
use weir_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use weir_protocol::types::{BrokerId, LeaderEpoch, TopicPartition};

use super::failed;
use crate::broker::Broker;
use crate::coordinator::{Machine, partition_of};
use crate::group::{self, Groups};
use crate::log::producers::Marker;
use crate::log::{AppendError, Prepared as Batch};
use crate::replica::{Acks, now_ms};
use crate::transaction::{Partition, Prepared, Request, Transactions};

/// The version that is spoken among brokers of this build.
const VERSION: i16 = 2;

/// How often coordinators are asked though nobody has ended anything.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How soon a marker is tried again; doubles up to the second value.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How long a leader waits until a marker is committed.
const COMMIT_MAX: Duration = Duration::from_secs(20);

/// What the task is to look at, and what it has begun.
#[derive(Debug, Default)]
pub(crate) struct Markers {
    ended: Mutex<BTreeSet<i32>>,
    notify: Notify,
    /// Transactions whose markers are being written.
    begun: Mutex<BTreeSet<(String, i64, i16)>>,
}

impl Markers {
    /// A transaction of this id was ended, or aborted by whoever comes after its producer.
    pub(crate) fn ended(&self, broker: &Broker, id: &str) {
        let partitions = broker
            .metadata
            .load()
            .topic_by_name(Transactions::TOPIC)
            .map_or(0, |topic| topic.partitions.len());
        self.ended.lock().insert(partition_of(id, partitions));
        self.notify.notify_one();
    }
}

/// Has markers written as long as the broker runs.
pub(crate) async fn keep_marking(broker: Arc<Broker>) {
    let mut tasks = JoinSet::new();
    let mut next_round = tokio::time::interval(ASK_EVERY);
    next_round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let partitions: Vec<i32> = tokio::select! {
            () = broker.markers.notify.notified() => std::mem::take(&mut *broker.markers.ended.lock()).into_iter().collect(),
            _ = next_round.tick() => broker.transactions.partitions(),
        };
        for partition in partitions {
            tasks.spawn(look(Arc::clone(&broker), partition));
        }
        while tasks.try_join_next().is_some() {}
    }
}

/// Writes the markers of all that one coordinator has prepared.
async fn look(broker: Arc<Broker>, partition: i32) {
    let Ok(prepared) = broker.transactions.ask_partition(&broker, partition, |to| Request::Prepared { to }).await else {
        return;
    };
    let mut tasks = JoinSet::new();
    for transaction in prepared {
        let key = (transaction.id.clone(), transaction.producer.id.0, transaction.producer.epoch.0);
        if broker.markers.begun.lock().insert(key.clone()) {
            let broker = Arc::clone(&broker);
            tasks.spawn(async move {
                mark(&broker, partition, transaction).await;
                broker.markers.begun.lock().remove(&key);
            });
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Writes the markers of one transaction, and tells its coordinator.
async fn mark(broker: &Arc<Broker>, coordinator: i32, transaction: Prepared) {
    let mut pause = RETRY_MIN;
    let mut missing: BTreeSet<Partition> = transaction.partitions.iter().cloned().collect();
    while !missing.is_empty() {
        let mut rounds = JoinSet::new();
        for (leader, partitions) in by_leader(broker, &mut missing) {
            let (broker, marker) = (Arc::clone(broker), marker(&transaction));
            rounds.spawn(async move {
                if leader == broker.config.id {
                    write_markers(&broker, marker, partitions).await
                } else {
                    ask_leader(&broker, leader, marker, partitions).await
                }
            });
        }
        while let Some(said) = rounds.join_next().await {
            for (partition, code) in said.unwrap_or_default() {
                match code {
                    ErrorCode::None => drop(missing.remove(&partition)),
                    code => debug!(
                        id = transaction.id,
                        topic = partition.0,
                        partition = partition.1,
                        error = code.name(),
                        "a marker is not written yet"
                    ),
                }
            }
        }
        if missing.is_empty() {
            break;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
        if !is_coordinator(broker, coordinator, transaction.coordinator_epoch) {
            return;
        }
    }
    let Prepared {
        id, producer, partitions, ..
    } = transaction;
    let make = |to| Request::Written {
        id,
        producer,
        partitions,
        to,
    };
    // Whoever coordinates it now writes them again.
    let _ = broker.transactions.ask_partition(broker, coordinator, make).await;
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

fn is_coordinator(broker: &Broker, partition: i32, epoch: LeaderEpoch) -> bool {
    let image = broker.metadata.load();
    let state = image.topic_by_name(Transactions::TOPIC).and_then(|topic| topic.partition(partition));
    state.is_some_and(|state| state.leader == Some(broker.config.id) && state.leader_epoch == epoch)
}

/// The partitions by who leads them. Those that do not exist any more need no marker; those without a leader wait.
fn by_leader(broker: &Broker, missing: &mut BTreeSet<Partition>) -> BTreeMap<BrokerId, Vec<Partition>> {
    let image = broker.metadata.load();
    let mut leaders: BTreeMap<BrokerId, Vec<Partition>> = BTreeMap::new();
    missing.retain(|(topic, index)| {
        let Some(state) = image.topic_by_name(topic).and_then(|topic| topic.partition(*index)) else {
            return false;
        };
        if let Some(leader) = state.leader {
            leaders.entry(leader).or_default().push((topic.clone(), *index));
        }
        true
    });
    leaders
}

async fn ask_leader(broker: &Broker, leader: BrokerId, marker: Marker, partitions: Vec<Partition>) -> Vec<(Partition, ErrorCode)> {
    let mut topics: Vec<WritableTxnMarkerTopic> = Vec::new();
    for (topic, index) in &partitions {
        match topics.iter_mut().find(|known| known.name == *topic) {
            Some(known) => known.partition_indexes.push(*index),
            None => topics.push(WritableTxnMarkerTopic {
                name: topic.clone(),
                partition_indexes: vec![*index],
            }),
        }
    }
    let request = WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: marker.producer.0,
            producer_epoch: marker.epoch.0,
            transaction_result: marker.commit,
            topics,
            coordinator_epoch: marker.coordinator_epoch,
            transaction_version: marker.transaction_version,
        }],
    };
    match broker.peers.call(broker, leader, VERSION, &request).await {
        Ok(response) => {
            let topics = response.markers.into_iter().flat_map(|marker| marker.topics);
            let said = topics.flat_map(|topic| {
                let name = topic.name;
                topic
                    .partitions
                    .into_iter()
                    .map(move |partition| ((name.clone(), partition.partition_index), ErrorCode::from_code(partition.error_code)))
            });
            said.collect()
        }
        Err(error) => {
            let code = failed(&error);
            partitions.into_iter().map(|partition| (partition, code)).collect()
        }
    }
}

/// Writes a marker to partitions that this broker leads, and waits until it is committed.
pub(crate) async fn write_markers(broker: &Broker, marker: Marker, partitions: Vec<Partition>) -> Vec<(Partition, ErrorCode)> {
    let brought: Vec<_> = partitions.iter().map(|partition| bring(broker, marker, partition)).collect();
    let mut said = Vec::with_capacity(partitions.len());
    for (partition, brought) in partitions.into_iter().zip(brought) {
        let code = match brought {
            Ok(appending) => match tokio::time::timeout(COMMIT_MAX, appending.acknowledged(Acks::All)).await {
                Ok(Ok(_)) => tell_the_group(broker, marker, &partition).await,
                Ok(Err(error)) => code_of(error),
                Err(_) => ErrorCode::RequestTimedOut,
            },
            Err(code) => code,
        };
        said.push((partition, code));
    }
    said
}

fn bring(broker: &Broker, marker: Marker, (topic, index): &Partition) -> Result<crate::replica::Appending, ErrorCode> {
    let id = {
        let image = broker.metadata.load();
        let topic = image.topic_by_name(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        topic.partition(*index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        TopicPartition {
            topic: topic.id,
            index: *index,
        }
    };
    let partition = broker.replicas.get(id).ok_or(ErrorCode::NotLeaderOrFollower)?;
    partition.accepts(Acks::All)?;
    let batch = Batch::marker(marker, now_ms()).map_err(code_of)?;
    Ok(partition.append(batch))
}

/// The coordinator of a group counts the offsets of a transaction once it has ended. While it is loading, it may or may not have met the marker.
async fn tell_the_group(broker: &Broker, marker: Marker, (topic, index): &Partition) -> ErrorCode {
    if topic != Groups::TOPIC {
        return ErrorCode::None;
    }
    let make = |to| group::Request::EndTransaction {
        producer: marker.producer,
        committed: marker.commit,
        to,
    };
    match broker.groups.ask_partition(broker, *index, make).await {
        Ok(()) => ErrorCode::None,
        Err(_) => ErrorCode::NotLeaderOrFollower,
    }
}

fn code_of(error: AppendError) -> ErrorCode {
    match error {
        AppendError::NotLeader => ErrorCode::NotLeaderOrFollower,
        AppendError::NotEnoughReplicasAfterAppend => ErrorCode::NotEnoughReplicasAfterAppend,
        AppendError::Storage => ErrorCode::KafkaStorageError,
        AppendError::Producer(error) => error.code(),
    }
}
