//! The state as it lies in a store, part by part: the texts that are written, and the state that is
//! made of them again.

use std::sync::Arc;

use weir_crds::{DeletionPolicy, KafkaCluster};
use weir_protocol::types::{BrokerEpoch, TopicId};

use super::packed::{Registry, Shard, write_registry, write_shard};
use crate::controller::TOPIC_ID_ANNOTATION;
use crate::controller::state::{Change, Cluster, State, shard_of};

/// The text of a shard of the state.
pub(crate) fn shard_text(state: &State, shard: u8) -> String {
    let topics = || state.topics.iter().filter(|(id, _)| shard_of(**id) == shard);
    let partitions = topics().flat_map(|(id, topic)| {
        (0..).zip(&topic.partitions).map(|(index, partition)| (*id, index, partition))
    });
    let home = state.cluster.namespace();
    // Whose resource it is stands nowhere else, where it lies in another namespace: what bears the
    // id there may be anybody's.
    let kept = topics().filter(|(_, topic)| {
        topic.resource.spec.deletion_policy == DeletionPolicy::Retain || topic.key.namespace != home
    });
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
    /// The state. A topic that is to be retained and has lost its resource has it again, with the
    /// id on it; other partitions without a topic are what a deletion left behind in a crash: they
    /// are dropped.
    pub(crate) fn assemble(mut self) -> State {
        let brokers = self.registry.brokers;
        let newest =
            brokers.iter().map(|broker| broker.epoch.0.saturating_add(1)).max().unwrap_or_default();
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
        for (id, mut resource) in
            kept.filter(|(_, resource)| resource.spec.deletion_policy == DeletionPolicy::Retain)
        {
            let key = state.cluster.key_of(&resource.metadata);
            if state.topic_by_resource(&key).is_none()
                && state.topic_by_name(resource.topic_name()).is_none()
            {
                resource.metadata.annotations =
                    Some([(TOPIC_ID_ANNOTATION.to_owned(), id.0.to_string())].into());
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
