//! The controller's log lines about committed changes, and their count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{info, warn};

use crate::controller::state::{Change, State};

/// What was committed and is counted.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    unclean_elections: Arc<AtomicU64>,
}

impl Counted {
    /// Leaders that were elected though they may lack committed records, since this controller
    /// took over.
    pub fn unclean_elections(&self) -> u64 {
        self.unclean_elections.load(Ordering::Relaxed)
    }
}

/// Logs one line for each change that an operator looks for, and counts some.
pub(super) fn write(counted: &Counted, before: &State, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Topic(id, resource) if !before.topics.contains_key(id) => {
                info!(topic = resource.topic_name(), %id, partitions = resource.spec.partitions, "created the topic");
            }
            Change::Topic(id, resource) => {
                info!(topic = resource.topic_name(), %id, "changed the topic")
            }
            Change::RemoveTopic(id, key) => info!(resource = %key, %id, "deleted the topic"),
            Change::Broker(broker) => {
                let (fenced, shutting_down) = (broker.fenced, broker.shutting_down);
                info!(broker = %broker.id, broker_epoch = %broker.epoch, fenced, shutting_down, "changed the broker");
            }
            Change::Partition(id, index, partition) => {
                let known = before.topics.get(id).and_then(|topic| {
                    Some((topic.name(), topic.partitions.get(usize::try_from(*index).ok()?)?))
                });
                let Some((topic, known)) = known else { continue };
                if partition.leader_epoch.0 > known.leader_epoch.0.saturating_add(1) {
                    let (old, new) = (known.leader_epoch, partition.leader_epoch);
                    warn!(topic, %id, partition = index, leader_epoch = %new, before = %old, "a log holds later leaders than the state: the partition goes on with a later leader epoch");
                }
                if known.leader != partition.leader {
                    let (old, new) = (known.leader.map(|id| id.0), partition.leader.map(|id| id.0));
                    let (epoch, recovering) = (partition.leader_epoch, partition.recovering);
                    info!(topic, %id, partition = index, leader = new, before = old, leader_epoch = %epoch, recovering, "changed the leader");
                } else if known.isr != partition.isr {
                    let isr: Vec<i32> = partition.isr.iter().map(|id| id.0).collect();
                    info!(topic, %id, partition = index, ?isr, "changed the ISR");
                }
            }
            Change::UncleanElection(id, index) => {
                counted.unclean_elections.fetch_add(1, Ordering::Relaxed);
                let topic = before.topics.get(id).map_or("", |topic| topic.name());
                warn!(topic, %id, partition = index, "elected a leader that may lack committed records: the other replicas cut their logs to match it");
            }
            Change::Cluster(_) => info!("changed the cluster's configuration"),
            Change::ControllerEpoch(epoch) => {
                warn!(controller_epoch = %epoch, "brokers knew a later controller: this one goes on with a later controller epoch")
            }
            Change::RolledBack => {
                warn!(
                    "brokers hold later epochs than the state: it is an old one, from a backup, and goes on with later epochs"
                )
            }
            Change::RemoveBroker(broker) => info!(%broker, "unregistered the broker"),
            Change::ScramCredential(change) => {
                let (user, mechanism) = (&change.user, change.mechanism);
                match &change.credential {
                    Some(_) => info!(user, %mechanism, "set the user's SCRAM credential"),
                    None => info!(user, %mechanism, "deleted the user's SCRAM credential"),
                }
            }
            Change::Features(features) => {
                info!(epoch = features.epoch, levels = ?features.levels, "changed the finalised features")
            }
            Change::NextBrokerEpoch(_)
            | Change::NextProducerId(_)
            | Change::ScramMockKey(_)
            | Change::TookUpCluster(_)
            | Change::TookUpTopic(..) => {}
        }
    }
}
