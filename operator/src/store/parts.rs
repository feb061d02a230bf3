//! Converts between the state and its parts in a store: writes their texts, and assembles the state
//! from them.

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
    // Only the shard records the owner of a resource in another namespace. The id annotation proves
    // nothing: any user there can write it.
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

/// The parts of a state as a store holds them: counters and brokers, resources, partitions,
/// credentials.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) registry: Registry,
    pub(crate) resource: KafkaCluster,
    pub(crate) topics: Vec<(TopicId, weir_crds::Topic)>,
    pub(crate) shards: Shard,
    pub(crate) credentials: Vec<Change>,
}

impl Parts {
    /// Assembles the state. A retained topic that lost its resource gets it back, with the id on
    /// it. Other partitions without a topic remain from a deletion that a crash cut off; they are
    /// dropped.
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
        for credential in self.credentials {
            state.apply(&credential);
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
    /// Adds the contents of another shard.
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
