//! PURE: the Kubernetes objects of a cluster, computed from its resource alone.
//!
//! The pod template does not contain the operator's version, its address or the cluster's id: those
//! are in the ConfigMap, so a new operator restarts no broker.

mod config_map;
mod families;
mod names;
mod nodes;
mod object_meta;
mod patch;
mod plan;
mod pods;
mod services;
mod shared;
mod tls;

use std::collections::BTreeSet;

use serde_json::{Value, json};

pub(super) use config_map::CONTROLLER_KEY;
use config_map::config_map;
pub(super) use names::{Names, broker_of_pod, listeners};
pub(super) use nodes::{brokers_in, node_secrets, trusted_in};
use object_meta::{metadata, plain_metadata};
pub(super) use patch::CONTAINER;
pub(super) use plan::{Evictions, Monitoring, Plan};
pub(super) use pods::{CONTROLLER_FILE_VARIABLE, HTTP_PORT, HTTP_PORT_NAME};
pub(super) use shared::{Place, SLICE_MANAGED_BY, port_of, service_of, slices};
pub(super) use tls::{
    all_issued_in, authority_in, hosts, issued_in, secrets, secrets_of_users, secured,
};

pub(super) use crate::store::kube::ours::{MANAGED_BY, MANAGER};

/// The pod label with the cluster's name, as Prometheus passes it to relabelings.
const CLUSTER_META_LABEL: &str = "__meta_kubernetes_pod_label_weir_dev_cluster";

/// The label with a pod's own name, which the StatefulSet controller writes.
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";

/// The objects of a cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    /// The objects, in the order in which they are applied.
    pub(super) all: Vec<Value>,
    /// Why the StatefulSet is missing among them: the existing one stays as it is.
    pub(super) refusal: Option<String>,
}

/// Builds the objects of a cluster.
pub(super) fn build(plan: &Plan<'_>) -> Objects {
    let names = Names::of(plan.cluster);
    let mut objects = vec![service_account(plan, &names), config_map(plan, &names)];
    objects.extend(services::build(plan, &names));
    let refusal = pods::stateful_set(plan, &names).map(|set| objects.push(set)).err();
    objects.extend(disruption_budgets(plan, &names));
    objects.push(network_policy(plan, &names));
    if let Some(monitoring) = plan.monitoring {
        objects.push(pod_monitor(plan, &names, monitoring));
    }
    Objects { all: objects, refusal }
}

/// Brokers need no permissions: the account has no role, and no token is mounted.
fn service_account(plan: &Plan<'_>, names: &Names) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(plan.cluster, names, &names.brokers(), &plan.cluster.spec.brokers.pod.service_account_annotations),
        "automountServiceAccountToken": false,
    })
}

/// The budgets that Kubernetes asks before it evicts a pod. It takes no second one for a pod, so
/// brokers that cannot be spared have one of their own, and the others the cluster's. A broker that
/// goes from one to the other has both for a moment, in which Kubernetes evicts it not at all.
fn disruption_budgets(plan: &Plan<'_>, names: &Names) -> Vec<Value> {
    let held = &plan.evictions.held;
    let both: BTreeSet<i32> = held.union(plan.held_before).copied().collect();
    let budget = |name: &str, available_min: i32, operator: &str, ids: &BTreeSet<i32>| {
        let pods: Vec<String> = ids.iter().map(|id| names.broker(*id)).collect();
        let expressions = match pods.is_empty() {
            true => json!([]),
            false => json!([{"key": POD_NAME_LABEL, "operator": operator, "values": pods}]),
        };
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": plain_metadata(plan.cluster, names, name),
            "spec": {
                "minAvailable": available_min,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": names.selector(), "matchExpressions": expressions},
            },
        })
    };
    let of_held = |ids: &BTreeSet<i32>| {
        let all = i32::try_from(ids.len()).unwrap_or(i32::MAX);
        (!ids.is_empty()).then(|| budget(&names.held(), all, "In", ids))
    };
    // Once no broker is held, the second budget is deleted after the cluster's has been applied.
    let first = if held.is_empty() { held } else { &both };
    let of_others = budget(&names.cluster, plan.evictions.available_min, "NotIn", held);
    let mut all: Vec<Value> = of_held(first).into_iter().collect();
    all.push(of_others);
    all.extend(of_held(held).filter(|_| first != held));
    all
}

fn network_policy(plan: &Plan<'_>, names: &Names) -> Value {
    let wanted = listeners(plan.cluster);
    let mut ports: BTreeSet<u16> = wanted.iter().map(|listener| listener.port).collect();
    ports.extend(plan.listening.iter().map(|(_, port)| *port));
    ports.extend([HTTP_PORT, nodes::INTERNAL_PORT]);
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
            // The cluster's own labels win: the operator finds the object by them.
            labels.entry(name).or_insert_with(|| json!(value));
        }
    }
    let mut endpoint = json!({
        "port": HTTP_PORT_NAME,
        "path": "/metrics",
        // The operator's metrics name the cluster in the same label, so both can be joined.
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
