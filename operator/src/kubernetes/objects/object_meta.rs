//! The metadata of a cluster's objects.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_crds::KafkaCluster;

use super::names::Names;
use crate::store::kube::owner;

/// The metadata of an object of the cluster.
pub(super) fn metadata(
    cluster: &KafkaCluster,
    names: &Names,
    name: &str,
    annotations: &BTreeMap<String, String>,
) -> Value {
    let mut metadata = json!({
        "name": name,
        "namespace": names.namespace,
        "labels": names.labels(),
        "ownerReferences": [owner(cluster)],
    });
    if !annotations.is_empty()
        && let Some(fields) = metadata.as_object_mut()
    {
        fields.insert("annotations".to_owned(), json!(annotations));
    }
    metadata
}

pub(super) fn plain_metadata(cluster: &KafkaCluster, names: &Names, name: &str) -> Value {
    metadata(cluster, names, name, &BTreeMap::new())
}
