//! PURE: the state from the objects at the API server.

use std::collections::{BTreeMap, BTreeSet};

use kube::api::DynamicObject;
use serde_json::Value;
use tracing::warn;
use weir_crds::{KafkaCluster, Topic};
use weir_protocol::types::TopicId;

use crate::controller::state::{Change, Partition, State};
use crate::controller::{TOPIC_ID_ANNOTATION, topic_id_on};
use crate::store::error::StoreError;
use crate::store::lenient::topic_spec;
use crate::store::packed::{BadLine, Registry, Shard, read_registry, read_shard};
use crate::store::parts::Parts;

/// A topic of the state, and its resource at the API server.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) id: TopicId,
    pub(super) resource: Topic,
    /// `None` if the operator may not look there.
    pub(super) seen: Option<Topic>,
}

pub(super) fn registry(object: &str, content: &str) -> Result<Registry, StoreError> {
    read_registry(content).map_err(|bad| damaged(object, bad))
}

pub(super) fn shard(object: &str, content: &str) -> Result<Shard, StoreError> {
    read_shard(content).map_err(|bad| damaged(object, bad))
}

fn damaged(object: &str, bad: BadLine) -> StoreError {
    let object = format!("PartitionTable {object}");
    StoreError::DamagedObject { object, line: bad.line, reason: bad.reason }
}

/// The topics of the cluster's own namespace: the resources with a topic id. The controller has
/// never accepted a resource without one; it becomes an event later.
pub(super) fn topics(
    cluster: &str,
    home: &str,
    objects: Vec<DynamicObject>,
    partitions: &BTreeMap<TopicId, Vec<Partition>>,
) -> Vec<Loaded> {
    let ours = objects.into_iter().filter(|object| names_it(cluster, home, object));
    ours.filter_map(|object| load(object, partitions)).collect()
}

/// Whether a topic of the cluster's own namespace refers to the cluster.
fn names_it(cluster: &str, home: &str, object: &DynamicObject) -> bool {
    let text = |pointer: &str| object.data.pointer(pointer).and_then(Value::as_str);
    text("/spec/clusterRef/name") == Some(cluster)
        && text("/spec/clusterRef/namespace").is_none_or(|namespace| namespace == home)
}

/// The topics with resources in other namespaces, by namespace.
pub(super) fn by_other_namespace(
    kept: &BTreeMap<TopicId, Topic>,
) -> BTreeMap<String, Vec<(TopicId, Topic)>> {
    let mut by_namespace: BTreeMap<String, Vec<(TopicId, Topic)>> = BTreeMap::new();
    for (id, topic) in kept {
        if let Some(namespace) = &topic.metadata.namespace {
            by_namespace.entry(namespace.clone()).or_default().push((*id, topic.clone()));
        }
    }
    by_namespace
}

/// The topics of another namespace. They are the ones that the controller accepted from there, in
/// the form that it accepted. A topic id that a user writes on a resource counts for nothing. A
/// change that the controller has not seen, or does not follow, becomes an event later if at all. A
/// topic whose resource is gone is deleted, unless it is retained or the operator may not look
/// there.
pub(super) fn topics_elsewhere(
    kept: Vec<(TopicId, Topic)>,
    there: Option<Vec<DynamicObject>>,
    partitions: &BTreeMap<TopicId, Vec<Partition>>,
) -> Vec<Loaded> {
    let mut objects: Option<BTreeMap<String, DynamicObject>> = there.map(|there| {
        there
            .into_iter()
            .map(|object| (object.metadata.name.clone().unwrap_or_default(), object))
            .collect()
    });
    let mut topics = Vec::new();
    for (id, kept) in kept {
        let name = kept.metadata.name.as_deref().unwrap_or_default();
        let found = match &mut objects {
            Some(objects) => objects
                .remove(name)
                .and_then(|object| load(object, partitions))
                .filter(|found| found.id == id),
            None => Some(unseen(id, &kept, partitions)),
        };
        topics.extend(found.map(|found| {
            let (count, replicas) = (found.resource.spec.partitions, found.resource.spec.replicas);
            let mut resource = found.resource;
            resource.spec.clone_from(&kept.spec);
            (resource.spec.partitions, resource.spec.replicas) = (count, replicas);
            Loaded { resource, ..found }
        }));
    }
    topics
}

fn unseen(id: TopicId, kept: &Topic, partitions: &BTreeMap<TopicId, Vec<Partition>>) -> Loaded {
    let mut resource = kept.clone();
    resource.metadata.annotations =
        Some([(TOPIC_ID_ANNOTATION.to_owned(), id.0.to_string())].into());
    as_there_is(&mut resource, partitions.get(&id));
    Loaded { id, resource, seen: None }
}

/// Of two topics with one id or one name the older counts; the other becomes an event later.
pub(super) fn oldest_of_each(mut all: Vec<Loaded>) -> Vec<Loaded> {
    let age = |topic: &Loaded| {
        let metadata = &topic.resource.metadata;
        (metadata.creation_timestamp.clone(), metadata.namespace.clone(), metadata.name.clone())
    };
    all.sort_by_key(age);
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    all.retain(|topic| {
        ids.insert(topic.id) && names.insert(topic.resource.topic_name().to_owned())
    });
    all
}

/// The topics of the cluster's own namespace with a resource, one for each name: in the state's
/// form and as they are at the API server. It includes topics that the controller never accepted.
pub(super) fn written(
    cluster: &str,
    home: &str,
    objects: Vec<DynamicObject>,
) -> Vec<(Topic, Topic)> {
    let mut all: Vec<(Topic, Topic)> = objects
        .into_iter()
        .filter(|object| names_it(cluster, home, object))
        .filter_map(|object| seen(object).map(|seen| (stripped(&seen), seen)))
        .collect();
    all.sort_by_key(|(_, seen)| {
        (seen.metadata.creation_timestamp.clone(), seen.metadata.name.clone())
    });
    let mut names = BTreeSet::new();
    all.retain(|(topic, _)| names.insert(topic.topic_name().to_owned()));
    all
}

/// A topic without the metadata that the state does not keep.
fn stripped(seen: &Topic) -> Topic {
    let mut resource = seen.clone();
    let metadata = &mut resource.metadata;
    metadata.managed_fields = None;
    metadata.resource_version = None;
    metadata.labels = None;
    metadata.annotations =
        topic_id_on(seen).map(|id| [(TOPIC_ID_ANNOTATION.to_owned(), id.0.to_string())].into());
    metadata.owner_references = None;
    resource.status = None;
    resource
}

fn seen(object: DynamicObject) -> Option<Topic> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let raw = serde_json::to_value(&object).ok()?;
    match serde_json::from_value(raw) {
        Ok(topic) => Some(topic),
        Err(_) => {
            // Invalid settings cost no records. The watch reports them to the user.
            let (topic, left_out) = as_far_as_it_can_be_read(&object)?;
            warn!(
                topic = name,
                left_out = left_out.join(", "),
                "a Topic is kept without what cannot be read of it"
            );
            Some(topic)
        }
    }
}

fn load(object: DynamicObject, partitions: &BTreeMap<TopicId, Vec<Partition>>) -> Option<Loaded> {
    let seen = seen(object)?;
    let id = topic_id_on(&seen)?;
    let mut resource = stripped(&seen);
    as_there_is(&mut resource, partitions.get(&id));
    Some(Loaded { id, resource, seen: Some(seen) })
}

/// Sets the existing numbers of partitions and replicas, not those that a user asked for meanwhile.
/// The request becomes an event later, which the controller checks.
fn as_there_is(resource: &mut Topic, existing: Option<&Vec<Partition>>) {
    if let Some(existing) = existing.filter(|existing| !existing.is_empty()) {
        resource.spec.partitions = i32::try_from(existing.len()).ok();
        resource.spec.replicas =
            existing.first().and_then(|partition| i16::try_from(partition.replicas_wanted()).ok());
    }
    resource.spec.partitions.get_or_insert(1);
    resource.spec.replicas.get_or_insert(1);
}

fn as_far_as_it_can_be_read(object: &DynamicObject) -> Option<(Topic, Vec<String>)> {
    let (spec, left_out) = topic_spec(object.data.get("spec")?)?;
    let mut topic = Topic::new("", spec);
    topic.metadata = object.metadata.clone();
    Some((topic, left_out))
}

pub(super) fn assemble(
    registry: Registry,
    resource: KafkaCluster,
    topics: Vec<Loaded>,
    shards: Shard,
    credentials: Vec<Change>,
) -> State {
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
        credentials,
    }
    .assemble()
}
