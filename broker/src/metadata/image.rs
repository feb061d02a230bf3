//! The image: the controller's metadata at one version, and its update to the next version.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use uuid::Uuid;
use weir_protocol::controller as rpc;
use weir_protocol::types::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch, TopicId, TopicPartition,
};
use weir_security::scram::Stored;
use weir_security::secret::Secret;
use weir_settings::Layers;

use super::credentials;

/// Configuration by Kafka's names and text forms.
pub type Configs = BTreeMap<String, String>;

/// Configurations by the name of their resource. Cloning is cheap.
pub type NamedConfigs = OrdMap<String, Arc<Configs>>;

/// The address of a broker on one of its listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name.
    pub listener: String,
    /// The host that clients connect to.
    pub host: String,
    /// The port that clients connect to.
    pub port: u16,
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerImage {
    /// Its id.
    pub id: BrokerId,
    /// The epoch of its registration.
    pub epoch: BrokerEpoch,
    /// Its advertised endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Its rack, if it has one.
    pub rack: Option<String>,
    /// The controller counts it as dead: it leads nothing.
    pub fenced: bool,
    /// In a controlled shutdown: it leads nothing any more, and joins no ISR.
    pub shutting_down: bool,
}

impl BrokerImage {
    /// Its endpoint on `listener`.
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.listener == listener)
    }
}

/// A partition's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionImage {
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Box<[BrokerId]>,
    /// The replicas that have all committed records.
    pub isr: Box<[BrokerId]>,
    /// Eligible leader replicas (KIP-966).
    pub elr: Box<[BrokerId]>,
    /// The leader, if there is one.
    pub leader: Option<BrokerId>,
    /// The epoch of the leader; it rises with each new leader.
    pub leader_epoch: LeaderEpoch,
    /// The epoch of the state; it rises with each change.
    pub partition_epoch: PartitionEpoch,
    /// Replicas that a reassignment adds, of those above.
    pub adding: Box<[BrokerId]>,
    /// Replicas that a reassignment removes, of those above.
    pub removing: Box<[BrokerId]>,
    /// The leader was elected uncleanly and has not reported its recovery yet.
    pub recovering: bool,
}

/// The leader of a partition, for a client that asked another broker (KIP-951).
#[derive(Clone, Copy, Debug)]
pub struct LeaderHint<'a> {
    /// The leader's id.
    pub id: BrokerId,
    /// The leader epoch.
    pub epoch: LeaderEpoch,
    /// Its endpoint on the requested listener, and its rack.
    pub node: Option<(&'a Endpoint, &'a Option<String>)>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicImage {
    /// Its immutable id.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// Whether brokers keep it for themselves.
    pub internal: bool,
    /// The configuration of the topic itself.
    pub configs: Arc<Configs>,
    /// Its partitions, by index.
    pub partitions: Vec<PartitionImage>,
}

impl TopicImage {
    /// The partition with this index.
    pub fn partition(&self, index: i32) -> Option<&PartitionImage> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// The whole metadata at one version. Cloning is cheap: the maps are persistent.
#[derive(Clone, Debug, Default)]
pub struct MetadataImage {
    /// The version of the controller's metadata; 0 before the first image.
    pub version: u64,
    /// The epoch of the controller that sent it.
    pub controller_epoch: ControllerEpoch,
    /// Registered brokers.
    pub brokers: BTreeMap<BrokerId, Arc<BrokerImage>>,
    pub(super) topics: OrdMap<TopicId, Arc<TopicImage>>,
    names: OrdMap<Arc<str>, TopicId>,
    /// The configuration of the whole cluster.
    pub cluster_configs: Arc<Configs>,
    /// The configurations of single brokers.
    pub broker_configs: BTreeMap<BrokerId, Arc<Configs>>,
    /// The configurations of groups, by group id.
    pub group_configs: NamedConfigs,
    /// Subscriptions to client metrics, by name.
    pub client_metrics: NamedConfigs,
    /// The SCRAM credentials of all users.
    pub scram_credentials: Arc<Stored>,
    /// The key that makes the salts of users who do not exist; the same at every broker.
    pub scram_mock_key: Option<Secret>,
    /// Finalised features and their levels (KIP-584).
    pub features: BTreeMap<String, u32>,
    /// The epoch of the features.
    pub features_epoch: i64,
}

impl MetadataImage {
    /// The layers of configuration in force on a broker.
    pub fn layers(&self, broker: BrokerId) -> Layers<'_> {
        let of_broker: Option<&Configs> = self.broker_configs.get(&broker).map(Arc::as_ref);
        Layers { broker: of_broker, cluster: Some(&self.cluster_configs), process: None }
    }

    /// The topic with this id.
    pub fn topic(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(&id)
    }

    /// The topic with this name.
    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.names.get(name)?)
    }

    /// All topics in the order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// The topics from `name` on, in the order of their names.
    pub fn topics_from(&self, name: &str) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.names.range(Arc::<str>::from(name)..).filter_map(|(_, id)| self.topics.get(id))
    }

    /// The number of topics.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Returns the leader of a partition and its endpoint on `listener`; `None` if there is none.
    pub fn leader_hint(&self, key: TopicPartition, listener: &str) -> Option<LeaderHint<'_>> {
        let partition = self.topic(key.topic)?.partition(key.index)?;
        let id = partition.leader?;
        let node =
            self.brokers.get(&id).and_then(|node| Some((node.endpoint(listener)?, &node.rack)));
        Some(LeaderHint { id, epoch: partition.leader_epoch, node })
    }

    /// The live brokers.
    pub fn live_brokers(&self) -> impl Iterator<Item = &Arc<BrokerImage>> {
        self.brokers.values().filter(|broker| !broker.fenced)
    }

    /// Returns the image after `update`, and the ids of the topics that it touched. A full update
    /// starts from an empty image.
    ///
    /// # Errors
    /// When the update is invalid, for instance with a topic id that is not 16 bytes. This image
    /// does not change.
    pub fn after(
        &self,
        controller_epoch: ControllerEpoch,
        update: &rpc::MetadataUpdate,
    ) -> Result<(Self, Vec<TopicId>), BadUpdate> {
        let mut next = if update.full { Self::default() } else { self.clone() };
        next.version = update.version;
        next.controller_epoch = controller_epoch;
        for id in &update.removed_brokers {
            next.brokers.remove(&BrokerId(*id));
            next.broker_configs.remove(&BrokerId(*id));
        }
        for broker in &update.brokers {
            next.brokers.insert(BrokerId(broker.id), Arc::new(broker_image(broker)?));
        }
        let mut touched: Vec<TopicId> =
            if update.full { self.topics.keys().copied().collect() } else { Vec::new() };
        for id in &update.removed_topics {
            let id = topic_id(id)?;
            if let Some(topic) = next.topics.remove(&id)
                // A topic may be deleted and created again in one update. Its name then already
                // belongs to the new one.
                && next.names.get(&topic.name) == Some(&id)
            {
                next.names.remove(&topic.name);
            }
            touched.push(id);
        }
        for topic in &update.topics {
            let image =
                topic_image(next.topics.get(&topic_id(&topic.id)?).map(Arc::as_ref), topic)?;
            touched.push(image.id);
            next.names.insert(Arc::clone(&image.name), image.id);
            next.topics.insert(image.id, Arc::new(image));
        }
        if let Some(configs) = &update.cluster_configs {
            next.cluster_configs = Arc::new(configs.entries.clone().into_iter().collect());
        }
        for entry in &update.broker_configs {
            let configs = entry.configs.clone().unwrap_or_default();
            next.broker_configs
                .insert(BrokerId(entry.broker_id), Arc::new(configs.entries.into_iter().collect()));
        }
        apply_configs(&mut next.group_configs, &update.group_configs);
        apply_configs(&mut next.client_metrics, &update.client_metrics);
        if !update.scram_mock_key.is_empty() {
            next.scram_mock_key = Some(Secret::new(update.scram_mock_key.clone()));
        }
        if !update.scram_credentials.is_empty() {
            credentials::apply(Arc::make_mut(&mut next.scram_credentials), update);
        }
        if let Some(features) = &update.features {
            next.features = features.levels.clone().into_iter().collect();
            next.features_epoch = features.epoch;
        }
        Ok((next, touched))
    }
}

/// Applies changed configurations. An empty one is removed.
fn apply_configs(known: &mut NamedConfigs, changed: &[rpc::NamedConfigs]) {
    for rpc::NamedConfigs { name, configs } in changed {
        let entries = configs.clone().unwrap_or_default().entries;
        if entries.is_empty() {
            known.remove(name);
        } else {
            known.insert(name.clone(), Arc::new(entries.into_iter().collect()));
        }
    }
}

/// An invalid metadata update.
#[derive(Debug, thiserror::Error)]
#[error("metadata update: {0}")]
pub struct BadUpdate(&'static str);

fn topic_id(bytes: &[u8]) -> Result<TopicId, BadUpdate> {
    Uuid::from_slice(bytes).map(TopicId).map_err(|_| BadUpdate("a topic id is not 16 bytes"))
}

fn broker_image(broker: &rpc::Broker) -> Result<BrokerImage, BadUpdate> {
    let endpoints = broker.endpoints.iter().map(|endpoint| {
        let port = u16::try_from(endpoint.port).map_err(|_| BadUpdate("a port is over 65535"))?;
        Ok(Endpoint { listener: endpoint.listener.clone(), host: endpoint.host.clone(), port })
    });
    Ok(BrokerImage {
        id: BrokerId(broker.id),
        epoch: BrokerEpoch(broker.epoch),
        endpoints: endpoints.collect::<Result<_, _>>()?,
        rack: Some(broker.rack.clone()).filter(|rack| !rack.is_empty()),
        fenced: broker.fenced,
        shutting_down: broker.shutting_down,
    })
}

fn topic_image(before: Option<&TopicImage>, topic: &rpc::Topic) -> Result<TopicImage, BadUpdate> {
    let configs = match (&topic.configs, before) {
        (Some(configs), _) => Arc::new(configs.entries.clone().into_iter().collect()),
        (None, Some(before)) => Arc::clone(&before.configs),
        (None, None) => Arc::default(),
    };
    let mut partitions = before.map_or_else(Vec::new, |topic| topic.partitions.clone());
    for partition in &topic.partitions {
        let index = usize::try_from(partition.index)
            .map_err(|_| BadUpdate("a partition index is negative"))?;
        let image = partition_image(partition);
        if index == partitions.len() {
            partitions.push(image);
        } else {
            *partitions
                .get_mut(index)
                .ok_or(BadUpdate("the partitions of a topic have a gap"))? = image;
        }
    }
    Ok(TopicImage {
        id: topic_id(&topic.id)?,
        name: topic.name.as_str().into(),
        internal: topic.internal,
        configs,
        partitions,
    })
}

fn partition_image(partition: &rpc::Partition) -> PartitionImage {
    let brokers = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect();
    PartitionImage {
        replicas: brokers(&partition.replicas),
        isr: brokers(&partition.isr),
        elr: brokers(&partition.elr),
        leader: (partition.leader >= 0).then_some(BrokerId(partition.leader)),
        leader_epoch: LeaderEpoch(partition.leader_epoch),
        partition_epoch: PartitionEpoch(partition.partition_epoch),
        adding: brokers(&partition.adding),
        removing: brokers(&partition.removing),
        recovering: partition.recovering,
    }
}
