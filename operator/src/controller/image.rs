//! The metadata for brokers: the whole image, or the delta of some changes.
//!
//! Called by the shell after a commit. A delta lists what changed and takes the values from the
//! state after the batch. So ten changes of one partition are sent once.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use weir_crds::{ClientMetricsConfig, GroupConfig};
use weir_protocol::controller as rpc;
use weir_protocol::types::{BrokerId, TopicId};
use weir_security::scram::Credential;
use weir_settings::Configs;

use super::apply::broker_of;
use super::state::{Broker, Change, CredentialChange, Partition, State, Topic};

/// The whole metadata image.
pub fn full(state: &State) -> rpc::MetadataUpdate {
    rpc::MetadataUpdate {
        version: state.version,
        full: true,
        brokers: state.brokers.values().map(broker).collect(),
        topics: state
            .topics
            .values()
            .filter(|topic| is_told(topic))
            .map(|topic| whole_topic(topic))
            .collect(),
        cluster_configs: Some(configs(state.cluster.configs())),
        broker_configs: broker_configs(state),
        features: Some(features(state)),
        group_configs: changed(
            &BTreeMap::new(),
            &state.cluster.resource.spec.consumer_groups.config,
            GroupConfig::texts,
        ),
        client_metrics: changed(
            &BTreeMap::new(),
            &state.cluster.resource.spec.client_metrics,
            ClientMetricsConfig::texts,
        ),
        scram_mock_key: mock_key(state),
        scram_credentials: state.credentials.iter().map(|of| credential(&of)).collect(),
        ..rpc::MetadataUpdate::default()
    }
}

/// A topic without partitions waits for a broker. Until then brokers and their clients do not see
/// it.
fn is_told(topic: &Topic) -> bool {
    !topic.partitions.is_empty()
}

/// The parts of a topic that changed.
#[derive(Default)]
struct Touched {
    configs: bool,
    partitions: BTreeSet<i32>,
}

/// The delta between two states for brokers; `None` without changes. It may contain only its
/// version, because a request that was answered as of that version waits for it.
pub fn delta(before: &State, after: &State, changes: &[Change]) -> Option<rpc::MetadataUpdate> {
    let mut update =
        rpc::MetadataUpdate { version: after.version, ..rpc::MetadataUpdate::default() };
    let mut topics: BTreeMap<TopicId, Touched> = BTreeMap::new();
    let mut brokers: BTreeSet<BrokerId> = BTreeSet::new();
    let mut removed: BTreeSet<TopicId> = BTreeSet::new();
    for change in changes {
        match change {
            Change::Cluster(_) => {
                update.cluster_configs = Some(configs(after.cluster.configs()));
                update.broker_configs = broker_configs_changed(before, after);
                let (old, new) = (&before.cluster.resource.spec, &after.cluster.resource.spec);
                update.group_configs = changed(
                    &old.consumer_groups.config,
                    &new.consumer_groups.config,
                    GroupConfig::texts,
                );
                update.client_metrics =
                    changed(&old.client_metrics, &new.client_metrics, ClientMetricsConfig::texts);
            }
            Change::Broker(Broker { id, .. }) | Change::RemoveBroker(id) => {
                brokers.insert(*id);
            }
            Change::ScramMockKey(_) => update.scram_mock_key = mock_key(after),
            Change::ScramCredential(change) => update.scram_credentials.push(credential(change)),
            Change::Features(_) => update.features = Some(features(after)),
            Change::Topic(id, _) => topics.entry(*id).or_default().configs = true,
            Change::Partition(id, index, _) => {
                topics.entry(*id).or_default().partitions.insert(*index);
            }
            Change::RemoveTopic(id, _) => drop(removed.insert(*id)),
            Change::ControllerEpoch(_)
            | Change::NextBrokerEpoch(_)
            | Change::NextProducerId(_)
            | Change::UncleanElection(..)
            | Change::RolledBack
            | Change::TookUpCluster(_)
            | Change::TookUpTopic(..) => {}
        }
    }
    update.brokers = brokers.iter().filter_map(|id| after.brokers.get(id)).map(broker).collect();
    let gone = brokers
        .iter()
        .filter(|id| before.brokers.contains_key(*id) && !after.brokers.contains_key(*id));
    update.removed_brokers = gone.map(|id| id.0).collect();
    update.removed_topics = removed
        .iter()
        .filter(|id| before.topics.contains_key(*id))
        .map(|id| id.0.into_bytes().to_vec())
        .collect();
    for (id, touched) in topics {
        let Some(topic) = after.topics.get(&id).filter(|topic| is_told(topic)) else {
            continue;
        };
        let known = before.topics.get(&id).is_some_and(|topic| is_told(topic));
        update.topics.push(if known { part_of_topic(topic, &touched) } else { whole_topic(topic) });
    }
    (after.version != before.version).then_some(update)
}

fn features(state: &State) -> rpc::Features {
    let features = &state.cluster.features;
    let level = |(name, level): (&String, &i16)| Some((name.clone(), u32::try_from(*level).ok()?));
    rpc::Features {
        epoch: features.epoch,
        levels: features.levels.iter().filter_map(level).collect(),
    }
}

fn mock_key(state: &State) -> Vec<u8> {
    state.credentials.mock_key().map(|key| key.expose().to_vec()).unwrap_or_default()
}

/// A user's credential; an empty text deletes it.
fn credential(change: &CredentialChange) -> rpc::ScramCredential {
    rpc::ScramCredential {
        user: change.user.clone(),
        mechanism: i32::from(change.mechanism.code()),
        credential: change.credential.as_ref().map(Credential::to_text).unwrap_or_default(),
    }
}

fn configs(entries: &Configs) -> rpc::Configs {
    rpc::Configs { entries: entries.clone().into_iter().collect() }
}

fn broker_configs(state: &State) -> Vec<rpc::BrokerConfigs> {
    let settings = state.cluster.resource.spec.brokers.config.iter();
    settings
        .filter_map(|(key, config)| {
            Some(rpc::BrokerConfigs {
                broker_id: broker_of(key)?.0,
                configs: Some(configs(config.texts())),
            })
        })
        .collect()
}

/// The broker settings that differ. A broker whose settings were all removed gets an empty list.
fn broker_configs_changed(before: &State, after: &State) -> Vec<rpc::BrokerConfigs> {
    let (old, new) =
        (&before.cluster.resource.spec.brokers.config, &after.cluster.resource.spec.brokers.config);
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let gone = gone.filter_map(|key| {
        Some(rpc::BrokerConfigs {
            broker_id: broker_of(key)?.0,
            configs: Some(rpc::Configs::default()),
        })
    });
    let changed = broker_configs(after).into_iter().filter(|entry| {
        old.get(&entry.broker_id.to_string()) != new.get(&entry.broker_id.to_string())
    });
    gone.chain(changed).collect()
}

/// The named settings that differ. A name whose settings were all removed gets an empty list.
fn changed<T: PartialEq>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    texts: impl Fn(&T) -> &Configs,
) -> Vec<rpc::NamedConfigs> {
    let gone = old
        .keys()
        .filter(|name| !new.contains_key(*name))
        .map(|name| (name, rpc::Configs::default()));
    let changed = new.iter().filter(|(name, config)| old.get(*name) != Some(*config));
    let told = gone.chain(changed.map(|(name, config)| (name, configs(texts(config)))));
    told.map(|(name, configs)| rpc::NamedConfigs { name: name.clone(), configs: Some(configs) })
        .collect()
}

fn broker(broker: &Broker) -> rpc::Broker {
    let endpoints = broker.endpoints.iter().map(|endpoint| rpc::Endpoint {
        listener: endpoint.listener.clone(),
        host: endpoint.host.clone(),
        port: endpoint.port.into(),
        security_protocol: endpoint.security_protocol.clone(),
    });
    rpc::Broker {
        id: broker.id.0,
        epoch: broker.epoch.0,
        endpoints: endpoints.collect(),
        rack: broker.rack.clone().unwrap_or_default(),
        fenced: broker.fenced,
        shutting_down: broker.shutting_down,
    }
}

fn whole_topic(topic: &Topic) -> rpc::Topic {
    let partitions = (0..).zip(&topic.partitions).map(|(index, state)| partition(index, state));
    rpc::Topic {
        configs: Some(configs(topic.resource.spec.config.texts())),
        partitions: partitions.collect(),
        ..header(topic)
    }
}

fn part_of_topic(topic: &Topic, touched: &Touched) -> rpc::Topic {
    let partitions = touched.partitions.iter().filter_map(|index| {
        let state = topic.partitions.get(usize::try_from(*index).ok()?)?;
        Some(partition(*index, state))
    });
    rpc::Topic {
        configs: touched.configs.then(|| configs(topic.resource.spec.config.texts())),
        partitions: partitions.collect(),
        ..header(topic)
    }
}

fn header(topic: &Topic) -> rpc::Topic {
    rpc::Topic {
        id: topic.id.0.into_bytes().to_vec(),
        name: topic.name().to_owned(),
        internal: topic.is_internal(),
        ..rpc::Topic::default()
    }
}

/// One partition in the form of the controller RPC.
pub fn partition(index: i32, state: &Partition) -> rpc::Partition {
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect();
    rpc::Partition {
        index,
        replicas: ids(&state.replicas),
        leader: state.leader.map_or(-1, |leader| leader.0),
        leader_epoch: state.leader_epoch.0,
        partition_epoch: state.partition_epoch.0,
        isr: ids(&state.isr),
        elr: ids(&state.elr),
        adding: ids(&state.adding),
        removing: ids(&state.removing),
        recovering: state.recovering,
    }
}
