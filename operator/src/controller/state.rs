//! The controller's persistent state: the cluster, its brokers, its topics and their partitions.
//!
//! [`State::apply`] is the only mutator. It accepts every change and decides nothing: other modules
//! decide, and this one asserts the invariants. A clone is cheap (the maps are persistent), so a
//! decision of many steps works on a draft. Never reads a clock or a file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod cluster;
mod credentials;
mod objects;
mod partition;
mod shard;
mod sums;
mod topic;

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use uuid::Uuid;
use weir_crds::{KafkaCluster, KafkaClusterSpec, TopicSpec};
use weir_protocol::controller::is_uncertified;
use weir_protocol::types::{BrokerEpoch, BrokerId, ControllerEpoch, TopicId};
use weir_security::secret::Secret;
use weir_settings::Layers;

pub use self::cluster::{Cluster, Features};
pub use self::credentials::{CredentialChange, ScramCredentials};
pub use self::objects::{Objects, TakenUp};
pub use self::partition::Partition;
pub use self::shard::{SHARDS, shard_of};
use self::sums::Sums;
pub use self::topic::{Topic, is_internal};
use super::key::Key;

/// The whole of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The values that exist once per cluster.
    pub cluster: Cluster,
    /// Registered brokers, alive or not.
    pub brokers: OrdMap<BrokerId, Broker>,
    /// Topics by their id.
    pub topics: OrdMap<TopicId, Arc<Topic>>,
    /// Topic ids by the topic's name in Kafka.
    names: OrdMap<String, TopicId>,
    /// Topic ids by the namespace and the name of the resource.
    resources: OrdMap<Key, TopicId>,
    /// Resource names in the cluster's namespace that exist in the store but are no topics of this
    /// cluster. A new topic cannot take them.
    pub(crate) taken: Arc<BTreeSet<String>>,
    /// The SCRAM credentials of users.
    pub credentials: ScramCredentials,
    /// The objects that users write too, as far as the state has taken them up.
    pub(crate) objects: Objects,
    /// The version that holds the last change of each broker's registration.
    pub(crate) told_at: OrdMap<BrokerId, u64>,
    /// Since this controller loaded the state, brokers have shown that it is older than theirs: it
    /// was restored from a backup.
    pub rolled_back: bool,
    /// Topic names that contain '.' or '_', each after its form with '.' replaced by '_'.
    lookalikes: OrdSet<(String, String)>,
    /// Sums over all topics, so that decisions need not compute them.
    sums: Sums,
    /// The controller epoch in the upper bits, and the number of changes since this controller took
    /// over. So it is above every version of its predecessors.
    pub version: u64,
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
    /// The addresses at which clients reach it.
    pub endpoints: Vec<Endpoint>,
    /// Its rack, if it has one.
    pub rack: Option<String>,
    /// Not alive, or not ready: it leads nothing and gets no new partitions.
    pub fenced: bool,
    /// In a controlled shutdown: it no longer leads.
    pub shutting_down: bool,
}

/// The address of a broker's listener.
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
    /// A controller took over, or raised its epoch above the one that brokers have seen.
    ControllerEpoch(ControllerEpoch),
    /// Broker epochs below this one were handed out.
    NextBrokerEpoch(BrokerEpoch),
    /// Producer ids below this one were handed out.
    NextProducerId(i64),
    /// A broker registered or changed its state.
    Broker(Broker),
    /// A broker was unregistered.
    RemoveBroker(BrokerId),
    /// The levels of the finalised features, and their epoch.
    Features(Features),
    /// A topic was created or its resource changed.
    Topic(TopicId, Box<weir_crds::Topic>),
    /// A topic was deleted, with its partitions. The key is its resource's.
    RemoveTopic(TopicId, Key),
    /// A partition was created or changed.
    Partition(TopicId, i32, Partition),
    /// A user's SCRAM credential was set or deleted.
    ScramCredential(CredentialChange),
    /// The cluster got the key that makes the salts of users who do not exist.
    ScramMockKey(Secret),
    /// A partition got a leader that may lack committed records. The store does not keep this
    /// change; the partition's own comes before it.
    UncleanElection(TopicId, i32),
    /// Brokers hold later epochs than the state: it was restored from a backup. The store does not
    /// keep this change.
    RolledBack,
    /// The state has taken up this version of the cluster's object. The store does not keep this
    /// change, and brokers are not told of it.
    TookUpCluster(Box<TakenUp<KafkaClusterSpec>>),
    /// The same of a topic's object; `None`: it is gone.
    TookUpTopic(Key, Option<Box<TakenUp<TopicSpec>>>),
}

impl Change {
    /// Whether it raises the version of the metadata that brokers are told.
    fn is_told(&self) -> bool {
        !matches!(self, Self::TookUpCluster(_) | Self::TookUpTopic(..))
    }
}

/// The bits of a version that count the changes of one controller; the bits above hold its epoch.
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
            credentials: ScramCredentials::default(),
            objects: Objects::default(),
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

    /// The topic whose resource has this key.
    pub fn topic_by_resource(&self, key: &Key) -> Option<&Arc<Topic>> {
        self.topics.get(self.resources.get(key)?)
    }

    /// Topics in the order of their names in Kafka.
    pub fn topics_by_name(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// A topic whose name equals `name` once '.' and '_' count as the same character, as in the
    /// names of metrics.
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

    /// Whether `more` partitions of a topic, with `replicas` replicas each, fit into its shard. A
    /// store may keep each shard in one object, and objects have a maximum size.
    pub fn has_room(&self, topic: TopicId, more: usize, replicas: usize) -> bool {
        self.sums.has_room(topic, more, replicas)
    }

    /// Whether the shard has room for a partition of the topic to grow from `before` to `after`
    /// replicas. During a move the old and the new replicas count together.
    pub(crate) fn has_room_to_move(&self, topic: TopicId, before: usize, after: usize) -> bool {
        self.sums.has_room_to_move(topic, before, after)
    }

    #[cfg(test)]
    /// Whether the sums and the lookalike names agree with the topics.
    pub(super) fn sums_are_true(&self) -> bool {
        let mut truth = Self::new(self.cluster.clone());
        for (id, topic) in &self.topics {
            truth.put_topic(*id, &topic.resource);
            for (index, partition) in (0..).zip(&topic.partitions) {
                truth.put_partition(*id, index, partition);
            }
        }
        self.credentials.iter().for_each(|change| truth.credentials.apply(&change));
        self.credentials.mock_key().into_iter().for_each(|key| truth.credentials.set_mock_key(key));
        (truth.sums, truth.lookalikes, truth.credentials)
            == (self.sums, self.lookalikes.clone(), self.credentials.clone())
    }

    /// Brokers that can lead and take new partitions.
    pub fn usable_brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values().filter(|broker| broker.is_usable())
    }

    /// Whether a broker is to be removed: its id is beyond the replicas of the cluster's resource.
    /// It keeps its replicas, leads as before, and gets no new ones (Kafka calls it cordoned,
    /// KIP-1066).
    pub fn is_cordoned(&self, id: BrokerId) -> bool {
        id.0 >= self.cluster.resource.spec.brokers.replicas
    }

    /// Brokers that can take new replicas, including those that are down at the moment.
    pub fn open_brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values().filter(|broker| !self.is_cordoned(broker.id))
    }

    /// Whether this broker can lead.
    pub fn is_usable(&self, id: BrokerId) -> bool {
        self.brokers.get(&id).is_some_and(Broker::is_usable)
    }

    /// The version that contains the last change of this broker's registration and the decisions
    /// made with it. A broker that has applied it knows of that change. For changes of a
    /// predecessor it is the first version of this controller, which does not know what the
    /// predecessor sent.
    pub fn told_at(&self, id: BrokerId) -> u64 {
        let taken_over = first_version(self.cluster.controller_epoch);
        self.told_at.get(&id).copied().unwrap_or_default().max(taken_over)
    }

    /// The effective value of a topic's setting, as the controller knows it. It does not see the
    /// brokers' command lines.
    pub fn topic_setting(&self, topic: &Topic, name: &'static str) -> Option<String> {
        let layers = Layers {
            cluster: Some(self.cluster.resource.spec.config.texts()),
            ..Layers::default()
        };
        layers.topic_value(topic.resource.spec.config.texts(), name).map(Into::into)
    }

    /// Applies a change.
    ///
    /// # Panics
    /// When the change breaks an invariant: a leader out of its ISR, an ISR beyond the replicas, an
    /// epoch that goes back, a gap in the partitions. Going on would lose data.
    pub fn apply(&mut self, change: &Change) {
        if change.is_told() {
            self.version += 1;
        }
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
            Change::RemoveTopic(id, key) => {
                if let Some(object) = self.objects.topics.get_mut(key) {
                    object.spec = None;
                }
                if let Some(topic) = self.topics.remove(id) {
                    self.sums.subtract(&topic, self.cluster.namespace());
                    if let Some(unified) = unified(topic.name()) {
                        self.lookalikes.remove(&(unified, topic.name().to_owned()));
                    }
                    self.names.remove(topic.name());
                    self.resources.remove(&topic.key);
                }
            }
            Change::Partition(id, index, partition) => self.put_partition(*id, *index, partition),
            Change::ScramCredential(change) => self.credentials.apply(change),
            Change::ScramMockKey(key) => self.credentials.set_mock_key(key),
            Change::UncleanElection(..) => {}
            Change::RolledBack => self.rolled_back = true,
            Change::TookUpCluster(object) => self.objects.cluster = Some((**object).clone()),
            Change::TookUpTopic(key, Some(object)) => {
                self.objects.topics.insert(key.clone(), (**object).clone());
            }
            Change::TookUpTopic(key, None) => drop(self.objects.topics.remove(key)),
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

/// A name that contains '.' or '_', with '.' replaced by '_'. `None`: no other name can look like
/// it.
fn unified(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

/// The number of changes in a version since the controller of this epoch took over; 0 for a version
/// of a predecessor.
pub fn changes_since_takeover(epoch: ControllerEpoch, version: u64) -> i64 {
    i64::try_from(version.saturating_sub(first_version(epoch))).unwrap_or(i64::MAX)
}

fn first_version(epoch: ControllerEpoch) -> u64 {
    u64::try_from(epoch.0).unwrap_or_default() << VERSIONS_PER_CONTROLLER_BITS
}

impl Broker {
    /// Whether its controlled shutdown is granted: it leads nothing, and the other brokers know
    /// their new leaders.
    pub fn may_shut_down(&self) -> bool {
        self.fenced && self.shutting_down
    }

    /// Whether it has registered without a certificate.
    pub fn is_uncertified(&self) -> bool {
        is_uncertified(self.endpoints.iter().map(|endpoint| &*endpoint.listener))
    }

    /// Whether it can lead and take new partitions.
    pub fn is_usable(&self) -> bool {
        !self.fenced && !self.shutting_down
    }
}
