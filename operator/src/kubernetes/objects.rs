//! PURE: the Kubernetes objects of a cluster, made of its resource alone.
//!
//! The pod template does not know the operator's version, its address or the cluster's id: those are in the ConfigMap, so that no new operator restarts a broker.

mod names;
mod pods;
mod services;
mod shared;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use weir_crds::KafkaCluster;

pub(super) use names::{Names, broker_of_pod, listener_name, listeners};
pub(super) use pods::{CONTROLLER_FILE_VARIABLE, HTTP_PORT_NAME};
pub(super) use shared::{Place, SLICE_MANAGED_BY, port_of, service_of, slices};

pub(super) use crate::store::kube::ours::{MANAGED_BY, MANAGER};

/// What brokers are told by their ConfigMap, by variables of these names.
const CLUSTER_ID_KEY: &str = "WEIR_CLUSTER_ID";
pub(super) const CONTROLLER_KEY: &str = "WEIR_CONTROLLER";

/// What the objects are made of.
#[derive(Clone, Debug)]
pub(super) struct Plan<'a> {
    /// The resource.
    pub(super) cluster: &'a KafkaCluster,
    /// The image of the brokers.
    pub(super) image: &'a str,
    /// The cluster's id in the Kafka protocol.
    pub(super) cluster_id: &'a str,
    /// Where brokers find the controller.
    pub(super) controller: &'a str,
    /// How many pods there are to be: what the resource says, or more while brokers that are to go still hold partitions.
    pub(super) replicas: i32,
    /// The listeners of the pods that there are, with their ports: others than the resource's until the last pod has been restarted.
    pub(super) listening: &'a BTreeSet<(String, u16)>,
    /// How many of them may be evicted at the moment.
    pub(super) evictable: i32,
    /// The kind `PodMonitor` is known.
    pub(super) monitored: bool,
}

/// The objects of a cluster, in the order in which they are applied.
pub(super) fn build(plan: &Plan<'_>) -> Vec<Value> {
    let names = Names::of(plan.cluster);
    let mut objects = vec![service_account(plan, &names), config_map(plan, &names)];
    objects.extend(services::build(plan, &names));
    objects.push(pods::stateful_set(plan, &names));
    objects.push(disruption_budget(plan, &names));
    objects.push(network_policy(plan, &names));
    if plan.monitored {
        objects.push(pod_monitor(plan, &names));
    }
    objects
}

/// The metadata of an object of the cluster.
fn metadata(cluster: &KafkaCluster, names: &Names, name: &str, annotations: &BTreeMap<String, String>) -> Value {
    let mut metadata = json!({
        "name": name,
        "namespace": names.namespace,
        "labels": names.labels(),
        "ownerReferences": [crate::store::kube::owner(cluster)],
    });
    if !annotations.is_empty()
        && let Some(fields) = metadata.as_object_mut()
    {
        fields.insert("annotations".to_owned(), json!(annotations));
    }
    metadata
}

fn plain_metadata(cluster: &KafkaCluster, names: &Names, name: &str) -> Value {
    metadata(cluster, names, name, &BTreeMap::new())
}

/// Brokers need no rights: nothing is bound to it, and no token is mounted.
fn service_account(plan: &Plan<'_>, names: &Names) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": plain_metadata(plan.cluster, names, &names.brokers()),
        "automountServiceAccountToken": false,
    })
}

fn config_map(plan: &Plan<'_>, names: &Names) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": plain_metadata(plan.cluster, names, &names.brokers()),
        "data": {CLUSTER_ID_KEY: plan.cluster_id, CONTROLLER_KEY: plan.controller},
    })
}

/// How many pods may be evicted follows the partitions: none where the loss of one more broker would stop writes.
fn disruption_budget(plan: &Plan<'_>, names: &Names) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": plain_metadata(plan.cluster, names, &names.cluster),
        "spec": {
            "maxUnavailable": plan.evictable,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.selector()},
        },
    })
}

fn network_policy(plan: &Plan<'_>, names: &Names) -> Value {
    let wanted = listeners(plan.cluster);
    let mut ports: BTreeSet<u16> = wanted.iter().map(|listener| listener.port).collect();
    ports.extend(plan.listening.iter().map(|(_, port)| *port));
    ports.insert(pods::HTTP_PORT);
    let ports: Vec<Value> = ports.into_iter().map(|port| json!({"protocol": "TCP", "port": port})).collect();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": plain_metadata(plan.cluster, names, &names.cluster),
        "spec": {
            "podSelector": {"matchLabels": names.selector()},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": ports}],
        },
    })
}

fn pod_monitor(plan: &Plan<'_>, names: &Names) -> Value {
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": plain_metadata(plan.cluster, names, &names.cluster),
        "spec": {
            "selector": {"matchLabels": names.selector()},
            "podMetricsEndpoints": [{"port": HTTP_PORT_NAME, "path": "/metrics"}],
        },
    })
}

#[cfg(test)]
mod tests;
