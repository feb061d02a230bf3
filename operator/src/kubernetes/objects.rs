//! PURE: the Kubernetes objects of a cluster, made of its resource alone.
//!
//! The pod template does not know the operator's version, its address or the cluster's id: those
//! are in the ConfigMap, so that no new operator restarts a broker.

mod config_map;
mod families;
mod names;
mod object_meta;
mod patch;
mod plan;
mod pods;
mod services;
mod shared;

use std::collections::BTreeSet;

use serde_json::{Value, json};

pub(super) use config_map::CONTROLLER_KEY;
use config_map::config_map;
pub(super) use names::{Names, broker_of_pod, listener_name, listeners};
use object_meta::{metadata, plain_metadata};
pub(super) use patch::CONTAINER;
pub(super) use plan::{Monitoring, Plan};
pub(super) use pods::{CONTROLLER_FILE_VARIABLE, HTTP_PORT, HTTP_PORT_NAME};
pub(super) use shared::{Place, SLICE_MANAGED_BY, port_of, service_of, slices};

pub(super) use crate::store::kube::ours::{MANAGED_BY, MANAGER};

/// The label of a pod that names its cluster, as Prometheus shows it to relabelings.
const CLUSTER_META_LABEL: &str = "__meta_kubernetes_pod_label_weir_dev_cluster";

/// What a cluster is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    /// The objects, in the order in which they are applied.
    pub(super) all: Vec<Value>,
    /// Why the StatefulSet is not among them: what there is of it stays.
    pub(super) refusal: Option<String>,
}

/// The objects of a cluster.
pub(super) fn build(plan: &Plan<'_>) -> Objects {
    let names = Names::of(plan.cluster);
    let mut objects = vec![service_account(plan, &names), config_map(plan, &names)];
    objects.extend(services::build(plan, &names));
    let refusal = pods::stateful_set(plan, &names).map(|set| objects.push(set)).err();
    objects.push(disruption_budget(plan, &names));
    objects.push(network_policy(plan, &names));
    if let Some(monitoring) = plan.monitoring {
        objects.push(pod_monitor(plan, &names, monitoring));
    }
    Objects { all: objects, refusal }
}

/// Brokers need no rights: nothing is bound to it, and no token is mounted.
fn service_account(plan: &Plan<'_>, names: &Names) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(plan.cluster, names, &names.brokers(), &plan.cluster.spec.brokers.pod.service_account_annotations),
        "automountServiceAccountToken": false,
    })
}

/// How many pods may be evicted follows the partitions: none where the loss of one more broker
/// would stop writes.
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
    ports.insert(HTTP_PORT);
    let ports: Vec<Value> =
        ports.into_iter().map(|port| json!({"protocol": "TCP", "port": port})).collect();
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

fn pod_monitor(plan: &Plan<'_>, names: &Names, monitoring: &Monitoring) -> Value {
    let mut metadata = plain_metadata(plan.cluster, names, &names.cluster);
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        for (name, value) in &monitoring.labels {
            // The cluster's own stay: by them the object is found.
            labels.entry(name).or_insert_with(|| json!(value));
        }
    }
    let mut endpoint = json!({
        "port": HTTP_PORT_NAME,
        "path": "/metrics",
        // As the operator says of which cluster it speaks, so that both can be joined.
        "relabelings": [{"sourceLabels": [CLUSTER_META_LABEL], "targetLabel": "cluster"}],
    });
    if let (Some(interval), Some(fields)) = (&monitoring.interval, endpoint.as_object_mut()) {
        fields.insert("interval".to_owned(), json!(interval));
    }
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata,
        "spec": {"selector": {"matchLabels": names.selector()}, "podMetricsEndpoints": [endpoint]},
    })
}

#[cfg(test)]
mod tests;
