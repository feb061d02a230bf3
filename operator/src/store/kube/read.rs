//! PURE: the state from what the API server holds.

use std::collections::{BTreeMap, BTreeSet};

use kube::api::DynamicObject;
use serde_json::Value;
use tracing::warn;
use weir_crds::{KafkaCluster, Topic};
use weir_protocol::types::TopicId;

use crate::controller::state::{Partition, State};
use crate::controller::{TOPIC_ID_ANNOTATION, topic_id_on};
use crate::store::lenient::topic_spec;
use crate::store::packed::{BadLine, Registry, Shard, read_registry, read_shard};
use crate::store::{Parts, StoreError};

/// A topic that is part of the state, and its resource as it lies at the API server.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) id: TopicId,
    pub(super) resource: Topic,
    pub(super) seen: Topic,
}

pub(super) fn registry(object: &str, content: &str) -> Result<Registry, StoreError> {
    read_registry(content).map_err(|bad| damaged(object, bad))
}

pub(super) fn shard(object: &str, content: &str) -> Result<Shard, StoreError> {
    read_shard(content).map_err(|bad| damaged(object, bad))
}

fn damaged(object: &str, bad: BadLine) -> StoreError {
    StoreError::DamagedObject {
        object: object.to_owned(),
        line: bad.line,
        reason: bad.reason,
    }
}

/// The cluster's topics: the resources that bear a topic's id. One without was never taken up and is an event to come; of two that claim one id or one name, the older counts, and the other is such an
/// event, too.
pub(super) fn topics(cluster: &str, objects: Vec<DynamicObject>, partitions: &BTreeMap<TopicId, Vec<Partition>>) -> Vec<Loaded> {
    let mut all: Vec<Loaded> = objects
        .into_iter()
        .filter(|object| object.data.pointer("/spec/clusterRef/name").and_then(Value::as_str) == Some(cluster))
        .filter_map(|object| load(object, partitions))
        .collect();
    let age = |topic: &Loaded| (topic.seen.metadata.creation_timestamp.clone(), topic.seen.metadata.name.clone());
    all.sort_by_key(age);
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    all.retain(|topic| ids.insert(topic.id) && names.insert(topic.resource.topic_name().to_owned()));
    all
}

fn load(object: DynamicObject, partitions: &BTreeMap<TopicId, Vec<Partition>>) -> Option<Loaded> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let raw = serde_json::to_value(&object).ok()?;
    let seen: Topic = match serde_json::from_value(raw) {
        Ok(topic) => topic,
        Err(_) => {
            // Whatever is wrong with its settings, its records stay. The watch tells the user.
            let (topic, left_out) = as_far_as_it_can_be_read(&object)?;
            warn!(
                topic = name,
                left_out = left_out.join(", "),
                "a Topic is kept without what cannot be read of it"
            );
            topic
        }
    };
    let id = topic_id_on(&seen)?;
    let mut resource = seen.clone();
    let metadata = &mut resource.metadata;
    metadata.managed_fields = None;
    metadata.resource_version = None;
    metadata.labels = None;
    metadata.annotations = Some([(TOPIC_ID_ANNOTATION.to_owned(), id.0.to_string())].into());
    metadata.owner_references = None;
    resource.status = None;
    // What there is counts, not what was asked for while nobody listened: that is an event to come, and is checked then.
    if let Some(existing) = partitions.get(&id).filter(|existing| !existing.is_empty()) {
        resource.spec.partitions = i32::try_from(existing.len()).ok();
        resource.spec.replicas = existing.first().and_then(|partition| i16::try_from(partition.replicas_wanted()).ok());
    }
    resource.spec.partitions.get_or_insert(1);
    resource.spec.replicas.get_or_insert(1);
    Some(Loaded { id, resource, seen })
}

fn as_far_as_it_can_be_read(object: &DynamicObject) -> Option<(Topic, Vec<String>)> {
    let (spec, left_out) = topic_spec(object.data.get("spec")?)?;
    let mut topic = Topic::new("", spec);
    topic.metadata = object.metadata.clone();
    Some((topic, left_out))
}

pub(super) fn assemble(registry: Registry, resource: KafkaCluster, topics: Vec<Loaded>, shards: Shard) -> State {
    let mut resource = resource;
    resource.status = None;
    resource.metadata.managed_fields = None;
    resource.metadata.resource_version = None;
    resource.metadata.annotations = None;
    resource.metadata.labels = None;
    Parts {
        registry,
        resource,
        topics: topics.into_iter().map(|topic| (topic.id, topic.resource)).collect(),
        shards,
    }
    .assemble()
}
