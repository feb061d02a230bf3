//! The metadata of resources: the topic's id on its `Topic`, generations, and the labels and
//! annotations kept from a user's metadata.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use uuid::Uuid;
use weir_crds::{KafkaCluster, Topic};
use weir_protocol::types::TopicId;

use super::event::Moment;
use super::key::Key;

/// The annotation with a topic's id, a UUID: it survives a backup that drops the status.
pub const TOPIC_ID_ANNOTATION: &str = "weir.dev/topic-id";

/// The topic id in a resource's annotation.
pub fn topic_id_on(resource: &Topic) -> Option<TopicId> {
    let annotations = resource.metadata.annotations.as_ref()?;
    Uuid::parse_str(annotations.get(TOPIC_ID_ANNOTATION)?).ok().map(TopicId)
}

/// The metadata of a new topic.
pub(super) fn new_meta(moment: &Moment, key: &Key, id: TopicId) -> ObjectMeta {
    ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        uid: Some(id.0.to_string()),
        generation: Some(1),
        creation_timestamp: Some(moment.wall.clone()),
        annotations: Some([(TOPIC_ID_ANNOTATION.to_owned(), id.0.to_string())].into()),
        ..ObjectMeta::default()
    }
}

/// Merges metadata: labels and annotations are the user's, everything else is ours, or the API
/// server's if there is one.
pub(super) fn merged_meta(ours: &ObjectMeta, theirs: ObjectMeta, spec_changed: bool) -> ObjectMeta {
    let ours = if theirs.resource_version.is_some() {
        &ObjectMeta {
            namespace: theirs.namespace.clone(),
            uid: theirs.uid.clone(),
            generation: theirs.generation.map(|generation| generation - i64::from(spec_changed)),
            creation_timestamp: theirs.creation_timestamp.clone(),
            ..ours.clone()
        }
    } else {
        ours
    };
    let id = ours
        .annotations
        .iter()
        .flatten()
        .filter(|(name, _)| *name == TOPIC_ID_ANNOTATION)
        .map(|(name, id)| (name.clone(), id.clone()));
    let annotations: BTreeMap<_, _> = theirs.annotations.into_iter().flatten().chain(id).collect();
    ObjectMeta {
        labels: theirs.labels.filter(|labels| !labels.is_empty()),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        generation: ours.generation.map(|generation| generation + i64::from(spec_changed)),
        ..ours.clone()
    }
}

/// A topic's resource with the generation of its next spec.
pub(super) fn with_generation(resource: &Topic) -> Topic {
    let mut next = resource.clone();
    next.metadata.generation = next.metadata.generation.map(|generation| generation + 1);
    next
}

/// The cluster's resource with the generation of its next spec.
pub(super) fn with_cluster_generation(resource: &KafkaCluster) -> KafkaCluster {
    let mut next = resource.clone();
    next.metadata.generation = next.metadata.generation.map(|generation| generation + 1);
    next
}
