//! A model of the operators' store, in which each object is written by compare-and-swap, as in
//! `operator/src/store.rs`. The objects are the resources of topics, the shards with the
//! partitions, and the registry with the brokers and the cluster's counters.

use std::collections::BTreeMap;

use weir_operator::controller::state::{
    Broker, Change, Cluster, Partition, SHARDS, State, shard_of,
};

use weir_protocol::types::{BrokerEpoch, TopicId};

use crate::topics::partition_of;

/// The name of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// The resource of a topic, by the number of its partition.
    Topic(usize),
    /// The partitions of the topics in a shard.
    Shard(u8),
    /// The brokers and counters.
    Registry,
}

/// The content of an object.
#[derive(Clone, Debug)]
pub enum Content {
    /// The resource of the topic that has the name, if there is one.
    Topic(Option<(TopicId, Box<weir_crds::Topic>)>),
    /// A shard.
    Shard(BTreeMap<TopicId, Vec<Partition>>),
    /// The registry.
    Registry(Box<Cluster>, Vec<Broker>),
}

/// The versions of the objects that an operator has read or written.
pub type Versions = BTreeMap<Object, u64>;

/// The store.
#[derive(Debug)]
pub struct Store {
    objects: BTreeMap<Object, (u64, Content)>,
}

/// Another operator has written the object since it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

impl Store {
    /// A store with these topics, without partitions and brokers.
    pub fn new(cluster: Cluster, topics: Vec<(TopicId, weir_crds::Topic)>) -> Self {
        let shard =
            |id: &TopicId| (Object::Shard(shard_of(*id)), (0, Content::Shard(BTreeMap::new())));
        let mut objects: BTreeMap<Object, (u64, Content)> =
            topics.iter().map(|(id, _)| shard(id)).collect();
        objects.insert(Object::Registry, (0, Content::Registry(Box::new(cluster), Vec::new())));
        let resources =
            topics.into_iter().map(|(id, topic)| (0, Content::Topic(Some((id, Box::new(topic))))));
        objects.extend(resources.enumerate().map(|(index, topic)| (Object::Topic(index), topic)));
        Self { objects }
    }

    /// The committed state, with the versions of the objects, at one moment.
    pub fn load(&self) -> (State, Versions) {
        let versions = self.objects.iter().map(|(name, (version, _))| (*name, *version)).collect();
        let Some((_, Content::Registry(cluster, brokers))) = self.objects.get(&Object::Registry)
        else {
            unreachable!("the registry is made with the store and never removed");
        };
        let mut cluster = Cluster::clone(cluster);
        // As in `store::Parts::assemble`.
        let newest = brokers.iter().map(|broker| broker.epoch.0 + 1).max().unwrap_or_default();
        cluster.next_broker_epoch = cluster.next_broker_epoch.max(BrokerEpoch(newest));
        let mut state = State::new(cluster);
        for broker in brokers {
            state.apply(&Change::Broker(broker.clone()));
        }
        for (_, content) in self.objects.values() {
            let Content::Topic(Some((id, topic))) = content else { continue };
            state.apply(&Change::Topic(*id, topic.clone()));
            let shard = self.objects.get(&Object::Shard(shard_of(*id)));
            let Some((_, Content::Shard(partitions))) = shard else { continue };
            for (index, partition) in (0..).zip(partitions.get(id).into_iter().flatten()) {
                state.apply(&Change::Partition(*id, index, partition.clone()));
            }
        }
        (state, versions)
    }

    /// The objects that the changes write, in the order of writing. A new controller writes all of
    /// them, so that its predecessor's writes fail from then on.
    pub fn touched(&self, changes: &[Change], fences_all: bool) -> Vec<Object> {
        let takes_over = changes.iter().any(|change| matches!(change, Change::ControllerEpoch(_)));
        let resource = |change: &Change| match change {
            Change::Topic(id, _) | Change::RemoveTopic(id, _) => {
                partition_of(*id).map(Object::Topic)
            }
            _ => None,
        };
        let mut touched: Vec<Object> = changes.iter().filter_map(resource).collect();
        touched.dedup();
        for shard in 0..SHARDS {
            let named = changes.iter().any(
                |change| matches!(change, Change::Partition(id, ..) | Change::Topic(id, _) | Change::RemoveTopic(id, _) if shard_of(*id) == shard),
            );
            if named || (takes_over && fences_all) {
                touched.push(Object::Shard(shard));
            }
        }
        touched.retain(|object| self.objects.contains_key(object));
        if changes.iter().any(|change| {
            !matches!(change, Change::Partition(..) | Change::Topic(..) | Change::RemoveTopic(..))
        }) {
            touched.push(Object::Registry);
        }
        touched
    }

    /// The content of an object for this state.
    pub fn content(&self, object: Object, state: &State, nonsense: bool) -> Content {
        match object {
            Object::Topic(index) => {
                let topic =
                    state.topics.values().find(|topic| partition_of(topic.id) == Some(index));
                Content::Topic(topic.map(|topic| (topic.id, Box::new(topic.resource.clone()))))
            }
            Object::Registry => Content::Registry(
                Box::new(state.cluster.clone()),
                state.brokers.values().cloned().collect(),
            ),
            Object::Shard(shard) => {
                let topics = state.topics.values().filter(|topic| shard_of(topic.id) == shard);
                let mut shard: BTreeMap<TopicId, Vec<Partition>> =
                    topics.map(|topic| (topic.id, topic.partitions.clone())).collect();
                for partition in shard.values_mut().flatten().filter(|_| nonsense) {
                    partition.isr.retain(|id| Some(*id) != partition.leader);
                }
                Content::Shard(shard)
            }
        }
    }

    /// Writes an object if its version is the one that was read.
    ///
    /// # Errors
    /// When another operator has written it since.
    pub fn swap(
        &mut self,
        object: Object,
        seen: u64,
        content: Content,
        compares: bool,
    ) -> Result<u64, Conflict> {
        let slot = self.objects.get_mut(&object).ok_or(Conflict)?;
        if compares && slot.0 != seen {
            return Err(Conflict);
        }
        *slot = (slot.0 + 1, content);
        Ok(slot.0)
    }

    /// The id of the topic that has a name, by the number of its partition.
    pub fn topic(&self, partition: usize) -> Option<TopicId> {
        match self.objects.get(&Object::Topic(partition)) {
            Some((_, Content::Topic(Some((id, _))))) => Some(*id),
            _ => None,
        }
    }

    /// Whether the topic exists.
    pub fn has(&self, topic: TopicId) -> bool {
        partition_of(topic).and_then(|partition| self.topic(partition)) == Some(topic)
    }

    /// The partitions of a shard's existing topics.
    pub fn partitions(&self, object: Object) -> Vec<(TopicId, Partition)> {
        match self.objects.get(&object) {
            Some((_, Content::Shard(topics))) => {
                let there = topics.iter().filter(|(id, _)| self.has(**id));
                there.filter_map(|(id, all)| Some((*id, all.first()?.clone()))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The registered processes, with their brokers.
    pub fn runs(&self) -> Vec<(usize, u64)> {
        match self.objects.get(&Object::Registry) {
            Some((_, Content::Registry(_, brokers))) => brokers
                .iter()
                .map(|broker| (broker.id.0 as usize, broker.incarnation.as_u128() as u64))
                .collect(),
            _ => Vec::new(),
        }
    }
}
