//! Where the controller's state lives between two lives of the controller.
//!
//! The shell loads once, at the start and after a commit that failed, and commits each batch of changes. Homes: [`file::FileStore`] in local mode, `kube::KubeStore` on Kubernetes and, for tests,
//! [`memory::MemoryStore`]. A store never decides: it keeps what it is given, and refuses what it cannot read.
//!
//! Order within a commit, for a crash in between: resources, then partitions, then the cluster's counters and brokers. A topic whose partitions
//! are missing gets them, and partitions whose topic is missing are dropped, when the next controller takes over. Not those of a topic that is to be retained: its resource lies beside them, and is
//! made again of that.

pub mod file;
#[cfg(feature = "kubernetes")]
pub mod kube;
mod lenient;
pub mod memory;
pub mod packed;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use weir_crds::{DeletionPolicy, KafkaCluster};
use weir_protocol::types::{BrokerEpoch, TopicId};

use self::packed::{Registry, Shard, write_registry, write_shard};
use crate::controller::state::{Change, Cluster, State};
use crate::controller::{Key, Kind, TOPIC_ID_ANNOTATION};

pub use crate::controller::state::{SHARDS, shard_of};

/// A home of the state.
pub trait Store: Send + 'static {
    /// All that was committed.
    fn load(&mut self) -> impl Future<Output = Result<State, StoreError>> + Send;

    /// Makes what the changes led to durable. After an error nobody knows what was written: load again.
    fn commit(&mut self, state: &State, changes: &[Change]) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another controller works on it.
    #[error("another controller is at work on {0}")]
    Locked(PathBuf),
    /// Another controller has written since.
    #[error("another controller has written the state since it was read")]
    Conflict,
    /// The file system refuses.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The Kubernetes API refuses, or does not answer.
    #[error("{action} {object}: {source}")]
    Api {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An object is not there.
    #[error("{0} is not there")]
    Gone(String),
    /// Another cluster's object has the name of a part of the state.
    #[cfg(feature = "kubernetes")]
    #[error("{0}")]
    Taken(kube::ours::Taken),
    /// It took some of the resources that the changes touch, and none of these. Nothing else was written, and nothing has to be read anew: commit what is decided without them.
    #[error("the store refuses {}", .0.iter().map(|one| format!("the {} {:?}: {}", one.kind, one.key.name, one.message)).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Refused>),
    /// This process does not hold the lease any more.
    #[error("another replica of the operator leads")]
    NotLeader,
    /// An object would be larger than etcd takes.
    #[error("{0} would be too large: the topics in it have too many partitions")]
    TooLarge(String),
    /// What an object holds is not what was written.
    #[error("PartitionTable {object}, line {line}: {reason}. The object was changed by someone else: restore it from a backup")]
    DamagedObject {
        /// The object.
        object: String,
        /// The line of its content, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// What is there is not what was written.
    #[error("{path}, line {line}: {reason}. The file is damaged: restore it from a backup, or remove the whole directory to begin anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line in it, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// A resource that was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its kind.
    pub kind: Kind,
    /// Where it lies.
    pub key: Key,
    /// There is another resource of this name.
    pub taken: bool,
    /// It breaks a rule of the schema, and not a quota or a policy.
    pub invalid: bool,
    /// Why it was refused.
    pub message: String,
}

/// What a set of changes touches, object by object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(crate) cluster_resource: bool,
    pub(crate) topics: BTreeSet<TopicId>,
    pub(crate) shards: BTreeSet<u8>,
    /// The object with the cluster's counters and its brokers.
    pub(crate) registry: bool,
}

impl Touched {
    pub(crate) fn by(changes: &[Change]) -> Self {
        let mut touched = Self::default();
        for change in changes {
            match change {
                Change::Cluster(_) => touched.cluster_resource = true,
                // Its shard holds the resource, too, if it is to be retained or lies in another namespace.
                Change::Topic(id, _) | Change::RemoveTopic(id, _) => {
                    touched.topics.insert(*id);
                    touched.shards.insert(shard_of(*id));
                }
                Change::Partition(id, ..) => drop(touched.shards.insert(shard_of(*id))),
                Change::ControllerEpoch(_)
                | Change::NextBrokerEpoch(_)
                | Change::NextProducerId(_)
                | Change::Features(_)
                | Change::Broker(_)
                | Change::RemoveBroker(_) => touched.registry = true,
                Change::RolledBack => {}
            }
        }
        touched
    }
}

/// The text of a shard of the state.
pub(crate) fn shard_text(state: &State, shard: u8) -> String {
    let topics = || state.topics.iter().filter(|(id, _)| shard_of(**id) == shard);
    let partitions = topics().flat_map(|(id, topic)| (0..).zip(&topic.partitions).map(|(index, partition)| (*id, index, partition)));
    let home = state.cluster.namespace();
    // Whose resource it is stands nowhere else, where it lies in another namespace: what bears the id there may be anybody's.
    let kept = topics().filter(|(_, topic)| topic.resource.spec.deletion_policy == DeletionPolicy::Retain || topic.key.namespace != home);
    write_shard(partitions, kept.map(|(id, topic)| (*id, &topic.resource)), home)
}

/// The text of the state's registry.
pub(crate) fn registry_text(state: &State) -> String {
    write_registry(&Registry {
        cluster_id: state.cluster.id.clone(),
        controller_epoch: state.cluster.controller_epoch,
        next_broker_epoch: state.cluster.next_broker_epoch,
        next_producer_id: state.cluster.next_producer_id,
        features: state.cluster.features.clone(),
        brokers: state.brokers.values().cloned().collect(),
    })
}

/// The state as it lies in a store, before it is one: counters and brokers, resources, partitions.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) registry: Registry,
    pub(crate) resource: KafkaCluster,
    pub(crate) topics: Vec<(TopicId, weir_crds::Topic)>,
    pub(crate) shards: Shard,
}

impl Parts {
    /// The state. A topic that is to be retained and has lost its resource has it again, with the id on it; other partitions without a topic are what a deletion left behind in a crash: they are
    /// dropped.
    pub(crate) fn assemble(mut self) -> State {
        let brokers = self.registry.brokers;
        let newest = brokers.iter().map(|broker| broker.epoch.0.saturating_add(1)).max().unwrap_or_default();
        let mut state = State::new(Cluster {
            id: self.registry.cluster_id,
            controller_epoch: self.registry.controller_epoch,
            next_broker_epoch: self.registry.next_broker_epoch.max(BrokerEpoch(newest)),
            next_producer_id: self.registry.next_producer_id,
            features: self.registry.features,
            resource: Arc::new(self.resource),
        });
        for broker in brokers {
            state.apply(&Change::Broker(broker));
        }
        for (id, resource) in self.topics {
            self.shards.kept.remove(&id);
            self.shards.put(id, resource, &mut state);
        }
        let kept = std::mem::take(&mut self.shards.kept).into_iter();
        for (id, mut resource) in kept.filter(|(_, resource)| resource.spec.deletion_policy == DeletionPolicy::Retain) {
            let key = state.cluster.key_of(&resource.metadata);
            if state.topic_by_resource(&key).is_none() && state.topic_by_name(resource.topic_name()).is_none() {
                resource.metadata.annotations = Some([(TOPIC_ID_ANNOTATION.to_owned(), id.0.to_string())].into());
                self.shards.put(id, resource, &mut state);
            }
        }
        state
    }
}

impl Shard {
    /// Takes in another one.
    pub(crate) fn extend(&mut self, other: Self) {
        self.partitions.extend(other.partitions);
        self.kept.extend(other.kept);
    }

    /// Puts a topic and its partitions into a state.
    fn put(&mut self, id: TopicId, resource: weir_crds::Topic, state: &mut State) {
        state.apply(&Change::Topic(id, Box::new(resource)));
        for (index, partition) in (0..).zip(self.partitions.remove(&id).unwrap_or_default()) {
            state.apply(&Change::Partition(id, index, partition));
        }
    }
}
