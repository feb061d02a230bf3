//! What the controller knows for good: the cluster, its brokers, its topics and the state of their
//! partitions.
//!
//! [`State::apply`] is the only mutator. It is total and dumb: what may happen is decided
//! elsewhere, and that it makes sense is asserted here. A clone is cheap (the maps are persistent),
//! so that a decision of many steps works on a draft. Never reads a clock or a file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod partition;
mod shard;
mod sums;
mod topic;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use uuid::Uuid;
use weir_crds::KafkaCluster;
use weir_protocol::types::{BrokerEpoch, BrokerId, ControllerEpoch, TopicId};
use weir_settings::{self as config, Configs, Layers};

pub use self::partition::Partition;
pub use self::shard::{SHARDS, shard_of};
use self::sums::Sums;
pub use self::topic::{Topic, is_internal};
use super::key::{DEFAULT_NAMESPACE, Key};

/// The whole of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// What is there once per cluster.
    pub cluster: Cluster,
    /// Registered brokers, alive or not.
    pub brokers: OrdMap<BrokerId, Broker>,
    /// Topics by their id.
    pub topics: OrdMap<TopicId, Arc<Topic>>,
    /// Topic ids by the name in Kafka.
    names: OrdMap<String, TopicId>,
    /// Topic ids by the namespace and the name of the resource.
    resources: OrdMap<Key, TopicId>,
    /// Names of resources in the cluster's namespace that the store has seen and that are no topics
    /// of this cluster: not to be had for new ones.
    pub(crate) taken: Arc<BTreeSet<String>>,
    /// The version that holds the last change of each broker's registration.
    pub(crate) told_at: OrdMap<BrokerId, u64>,
    /// Brokers have shown since the state was loaded that it is older than what they hold: it was
    /// restored from a backup.
    pub rolled_back: bool,
    /// Names of topics in which '.' or '_' is, behind what they are once both are the same.
    lookalikes: OrdSet<(String, String)>,
    /// Sums over all topics, so that no decision has to make them.
    sums: Sums,
    /// Counts the changes since this controller took over, above all versions of its predecessors.
    pub version: u64,
}

/// What is there once per cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// The cluster's id in the Kafka protocol.
    pub id: String,
    /// The epoch of this controller.
    pub controller_epoch: ControllerEpoch,
    /// The epoch that the next registration gets.
    pub next_broker_epoch: BrokerEpoch,
    /// The first producer id that nobody has.
    pub next_producer_id: i64,
    /// The finalised features.
    pub features: Features,
    /// The resource that a user wrote.
    pub resource: Arc<KafkaCluster>,
}

/// The finalised features of the cluster (KIP-584).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Counts their changes.
    pub epoch: i64,
    /// The level of each that is above 0.
    pub levels: BTreeMap<String, i16>,
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its id.
    pub id: BrokerId,
    /// The epoch of its registration.
    pub epoch: BrokerEpoch,
    /// Random at each start of its process.
    pub incarnation: Uuid,
    /// Random when its log directory was formatted.
    pub log_dir: Uuid,
    /// Where it answers.
    pub endpoints: Vec<Endpoint>,
    /// Its rack, if it has one.
    pub rack: Option<String>,
    /// Not alive, or not ready: it leads nothing and gets no new partitions.
    pub fenced: bool,
    /// In a controlled shutdown: it leads nothing any more.
    pub shutting_down: bool,
}

/// Where a broker answers on one of its listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name.
    pub listener: String,
    /// The host that clients connect to.
    pub host: String,
    /// The port that clients connect to.
    pub port: u16,
    /// PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
    pub security_protocol: String,
}

/// A change of the state: the new value of one thing.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The cluster's resource.
    Cluster(Arc<KafkaCluster>),
    /// A controller took over, or raised itself above what brokers have seen.
    ControllerEpoch(ControllerEpoch),
    /// Broker epochs below this one were given away.
    NextBrokerEpoch(BrokerEpoch),
    /// Producer ids below this one were given away.
    NextProducerId(i64),
    /// A broker registered or changed its state.
    Broker(Broker),
    /// A broker was unregistered.
    RemoveBroker(BrokerId),
    /// The levels of finalised features, and the epoch of that.
    Features(Features),
    /// A topic was created or its resource changed.
    Topic(TopicId, Box<weir_crds::Topic>),
    /// A topic is gone, its partitions with it. The key is its resource's.
    RemoveTopic(TopicId, Key),
    /// A partition was created or changed.
    Partition(TopicId, i32, Partition),
    /// Brokers hold later epochs than the state: it was restored from a backup. Nothing of it is
    /// stored.
    RolledBack,
}

/// Versions of one controller are below this; the bits above are the controller's epoch.
const VERSIONS_PER_CONTROLLER_BITS: u32 = 40;

impl State {
    /// A cluster without brokers and topics.
    pub fn new(cluster: Cluster) -> Self {
        let version = first_version(cluster.controller_epoch);
        Self {
            cluster,
            brokers: OrdMap::new(),
            topics: OrdMap::new(),
            names: OrdMap::new(),
            resources: OrdMap::new(),
            taken: Arc::default(),
            told_at: OrdMap::new(),
            rolled_back: false,
            lookalikes: OrdSet::new(),
            sums: Sums::default(),
            version,
        }
    }

    /// The topic of this name in Kafka.
    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }

    /// The topic whose resource lies here.
    pub fn topic_by_resource(&self, key: &Key) -> Option<&Arc<Topic>> {
        self.topics.get(self.resources.get(key)?)
    }

    /// Topics in the order of their names in Kafka.
    pub fn topics_by_name(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// A topic whose name is the same as `name` once '.' and '_' are one, as they are in the names
    /// of metrics.
    pub fn lookalike(&self, name: &str) -> Option<&str> {
        let unified = unified(name)?;
        let same = self
            .lookalikes
            .range((unified.clone(), String::new())..)
            .take_while(|(other, _)| *other == unified);
        same.map(|(_, other)| other.as_str()).find(|other| *other != name)
    }

    /// The number of partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.sums.partitions
    }

    /// The number of partitions that the resources of all topics ask for.
    pub fn partitions_wanted(&self) -> usize {
        self.sums.wanted
    }

    /// Whether so many more partitions of a topic fit into its shard: a store may keep each shard
    /// in one object, and no store takes objects of any size.
    pub fn has_room(&self, topic: TopicId, more: usize, replicas: usize) -> bool {
        self.sums.has_room(topic, more, replicas)
    }

    /// Whether a partition of a topic can have so many replicas, old and new ones together, where
    /// it has so many.
    pub(crate) fn has_room_to_move(&self, topic: TopicId, before: usize, after: usize) -> bool {
        self.sums.has_room_to_move(topic, before, after)
    }

    #[cfg(test)]
    /// Whether the sums and the names that look alike are those that the topics have.
    pub(super) fn sums_are_true(&self) -> bool {
        let mut truth = Self::new(self.cluster.clone());
        for (id, topic) in &self.topics {
            truth.put_topic(*id, &topic.resource);
            for (index, partition) in (0..).zip(&topic.partitions) {
                truth.put_partition(*id, index, partition);
            }
        }
        (truth.sums, truth.lookalikes) == (self.sums, self.lookalikes.clone())
    }

    /// Brokers that can lead and take new partitions.
    pub fn usable_brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values().filter(|broker| broker.is_usable())
    }

    /// Whether a broker is to go: the cluster's resource has no place for it. It keeps what it has,
    /// leads as before, and gets nothing new (Kafka calls it cordoned, KIP-1066).
    pub fn is_cordoned(&self, id: BrokerId) -> bool {
        id.0 >= self.cluster.resource.spec.brokers.replicas
    }

    /// Brokers that can take new replicas, those among them that are away for now.
    pub fn open_brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values().filter(|broker| !self.is_cordoned(broker.id))
    }

    /// Whether this broker can lead.
    pub fn is_usable(&self, id: BrokerId) -> bool {
        self.brokers.get(&id).is_some_and(Broker::is_usable)
    }

    /// The version that a broker must have applied to know of the last change of this one's
    /// registration, and of all that was decided with it. What a predecessor told is not known:
    /// then it is the first version of this controller.
    pub fn told_at(&self, id: BrokerId) -> u64 {
        let taken_over = first_version(self.cluster.controller_epoch);
        self.told_at.get(&id).copied().unwrap_or_default().max(taken_over)
    }

    /// The value of a topic's setting that is in force, as the controller knows it: a broker's
    /// command line is none of its business.
    pub fn topic_setting(&self, topic: &Topic, name: &'static str) -> Option<String> {
        let layers = Layers {
            cluster: Some(self.cluster.resource.spec.config.texts()),
            ..Layers::default()
        };
        layers.topic_value(topic.resource.spec.config.texts(), name).map(Into::into)
    }

    /// Carries out a change.
    ///
    /// # Panics
    /// When the change breaks an invariant: a leader out of its ISR, an ISR beyond the replicas, an
    /// epoch that goes back, a gap in the partitions. To go on would be to lose data.
    pub fn apply(&mut self, change: &Change) {
        self.version += 1;
        match change {
            Change::Cluster(resource) => self.cluster.resource = Arc::clone(resource),
            Change::ControllerEpoch(epoch) => {
                assert!(
                    *epoch > self.cluster.controller_epoch,
                    "the controller's epoch only goes up"
                );
                self.cluster.controller_epoch = *epoch;
                self.version = first_version(*epoch);
            }
            Change::NextBrokerEpoch(epoch) => {
                assert!(*epoch >= self.cluster.next_broker_epoch, "broker epochs only go up");
                self.cluster.next_broker_epoch = *epoch;
            }
            Change::NextProducerId(id) => {
                assert!(*id > self.cluster.next_producer_id, "producer ids are given once");
                self.cluster.next_producer_id = *id;
            }
            Change::Broker(broker) => {
                let before =
                    self.brokers.get(&broker.id).map_or(BrokerEpoch(-1), |before| before.epoch);
                assert!(
                    broker.epoch >= before && broker.epoch < self.cluster.next_broker_epoch,
                    "a broker's epoch only goes up"
                );
                self.brokers.insert(broker.id, broker.clone());
                self.told_at.insert(broker.id, self.version);
            }
            Change::RemoveBroker(id) => {
                self.brokers.remove(id);
                self.told_at.remove(id);
            }
            Change::Features(features) => {
                assert!(
                    features.epoch > self.cluster.features.epoch,
                    "every change of features raises their epoch"
                );
                self.cluster.features = features.clone();
            }
            Change::Topic(id, resource) => self.put_topic(*id, resource),
            Change::RemoveTopic(id, _) => {
                if let Some(topic) = self.topics.remove(id) {
                    self.sums.take_out(&topic, self.cluster.namespace());
                    if let Some(unified) = unified(topic.name()) {
                        self.lookalikes.remove(&(unified, topic.name().to_owned()));
                    }
                    self.names.remove(topic.name());
                    self.resources.remove(&topic.key);
                }
            }
            Change::Partition(id, index, partition) => self.put_partition(*id, *index, partition),
            Change::RolledBack => self.rolled_back = true,
        }
    }

    fn put_topic(&mut self, id: TopicId, resource: &weir_crds::Topic) {
        let partitions =
            self.topics.get(&id).map(|topic| topic.partitions.clone()).unwrap_or_default();
        let key = self.cluster.key_of(&resource.metadata);
        let topic = Topic { id, key: key.clone(), resource: resource.clone(), partitions };
        let wanted_before = self.topics.get(&id).map_or(0, |topic| topic.partitions_wanted());
        self.sums.wanted = self.sums.wanted + topic.partitions_wanted() - wanted_before;
        let kept = |topic: &Topic| sums::kept(topic, self.cluster.namespace());
        let (kept_before, kept_after) =
            (self.topics.get(&id).map_or(0, |topic| kept(topic)), kept(&topic));
        self.sums.keep(id, kept_before, kept_after);
        if let Some(unified) = unified(topic.name()) {
            self.lookalikes.insert((unified, topic.name().to_owned()));
        }
        let owner = self.names.insert(topic.name().to_owned(), id);
        assert!(owner.is_none_or(|owner| owner == id), "a topic's name belongs to one topic");
        let owner = self.resources.insert(key, id);
        assert!(owner.is_none_or(|owner| owner == id), "a resource is that of one topic");
        self.topics.insert(id, Arc::new(topic));
    }

    fn put_partition(&mut self, id: TopicId, index: i32, partition: &Partition) {
        partition.assert_valid();
        let topic = self.topics.get_mut(&id).expect("partitions of a topic come after the topic");
        let partitions = &mut Arc::make_mut(topic).partitions;
        let index = usize::try_from(index).expect("a partition's index is not negative");
        if let Some(slot) = partitions.get_mut(index) {
            assert!(
                partition.partition_epoch > slot.partition_epoch,
                "every change raises the partition's epoch"
            );
            assert!(
                partition.leader_epoch > slot.leader_epoch
                    || (partition.leader_epoch == slot.leader_epoch
                        && partition.leader == slot.leader),
                "a new leader has a new epoch"
            );
            self.sums.change(id, slot.replicas.len(), partition.replicas.len());
            *slot = partition.clone();
        } else {
            assert_eq!(index, partitions.len(), "partitions are created in their order");
            partitions.push(partition.clone());
            self.sums.add(id, partition.replicas.len());
        }
    }
}

/// A name in which '.' or '_' is, once both are the same; `None`: no other name can look like it.
fn unified(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

/// How many changes of the controller of this epoch a version holds; 0 for a version of a
/// predecessor.
pub fn changes_since_takeover(epoch: ControllerEpoch, version: u64) -> i64 {
    i64::try_from(version.saturating_sub(first_version(epoch))).unwrap_or(i64::MAX)
}

fn first_version(epoch: ControllerEpoch) -> u64 {
    u64::try_from(epoch.0).unwrap_or_default() << VERSIONS_PER_CONTROLLER_BITS
}

impl Cluster {
    /// A cluster that never had a controller.
    pub fn new(id: String, resource: KafkaCluster) -> Self {
        Self {
            id,
            controller_epoch: ControllerEpoch(0),
            next_broker_epoch: BrokerEpoch(0),
            next_producer_id: 0,
            features: Features::default(),
            resource: Arc::new(resource),
        }
    }

    /// The value of a setting of brokers that is in force for all of them: what is set, else
    /// Kafka's default.
    pub fn setting(&self, name: &'static str) -> Option<&str> {
        let set = self.configs().get(name).map(String::as_str);
        set.or_else(|| config::broker_key(name)?.default)
    }

    /// What is set for all brokers.
    pub fn configs(&self) -> &Configs {
        self.resource.spec.config.texts()
    }

    /// `metadata.name` of the cluster's resource.
    pub fn name(&self) -> &str {
        self.resource.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.resource.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }

    /// The key of a resource of this name in the cluster's namespace.
    pub fn key(&self, name: &str) -> Key {
        Key::new(Some(self.namespace()), Some(name))
    }

    /// The key of a resource. One that names no namespace lies in the cluster's.
    pub fn key_of(&self, metadata: &ObjectMeta) -> Key {
        Key::new(
            metadata.namespace.as_deref().or_else(|| Some(self.namespace())),
            metadata.name.as_deref(),
        )
    }
}

impl Broker {
    /// Whether its controlled shutdown is granted: it leads nothing, and its successors know.
    pub fn may_shut_down(&self) -> bool {
        self.fenced && self.shutting_down
    }

    /// Whether it can lead and take new partitions.
    pub fn is_usable(&self) -> bool {
        !self.fenced && !self.shutting_down
    }
}
