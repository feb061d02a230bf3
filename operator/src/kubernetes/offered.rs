//! Resources in the form that the controller gets. Without the parts that it does not use, their
//! changes do not reach it.

use kube::api::ObjectMeta;
use weir_crds::{KafkaCluster, Topic};

use crate::controller::{TOPIC_ID_ANNOTATION, topic_id_on};

/// The metadata for the controller: the identity of the object and its version.
fn metadata(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        generation: metadata.generation,
        creation_timestamp: metadata.creation_timestamp.clone(),
        resource_version: metadata.resource_version.clone(),
        ..ObjectMeta::default()
    }
}

/// A cluster.
pub(super) fn cluster(cluster: &KafkaCluster) -> KafkaCluster {
    let metadata = &cluster.metadata;
    let mut offered =
        KafkaCluster::new(metadata.name.as_deref().unwrap_or_default(), cluster.spec.clone());
    offered.metadata = self::metadata(metadata);
    offered
}

/// A topic, with its id if it is annotated.
pub(super) fn topic(topic: &Topic) -> Topic {
    let metadata = &topic.metadata;
    let id =
        topic_id_on(topic).map(|id| [(TOPIC_ID_ANNOTATION.to_owned(), id.0.to_string())].into());
    let mut offered = Topic::new(metadata.name.as_deref().unwrap_or_default(), topic.spec.clone());
    offered.metadata = ObjectMeta { annotations: id, ..self::metadata(metadata) };
    offered
}
