//! PURE: the services of a cluster.
//!
//! Each broker has a service of its own: its address stays when the pod gets another one, so that no client waits for a name to run out of a cache when brokers are restarted one after the other.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_crds::{Listener, ListenerType};

use super::{Names, Plan, listeners, metadata, plain_metadata};

/// The label that a StatefulSet gives each of its pods.
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";

pub(super) fn build(plan: &Plan<'_>, names: &Names) -> Vec<Value> {
    let listeners = listeners(plan.cluster);
    let internal: Vec<Value> = listeners
        .iter()
        .filter(|listener| listener.kind == ListenerType::Internal)
        .map(port)
        .collect();
    let mut services = vec![headless(plan, names, &internal), bootstrap(plan, names, &internal)];
    services.extend((0..plan.replicas).map(|id| broker(plan, names, id, &internal)));
    for listener in listeners.iter().filter(|listener| listener.kind != ListenerType::Internal) {
        services.extend(external(plan, names, listener));
    }
    services
}

fn port(listener: &Listener) -> Value {
    json!({"name": listener.name, "port": listener.port, "targetPort": listener.port, "protocol": "TCP"})
}

/// What the StatefulSet needs for the names of its pods.
fn headless(plan: &Plan<'_>, names: &Names, ports: &[Value]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": plain_metadata(plan, names, &names.brokers()),
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": true, "selector": names.selector(), "ports": ports},
    })
}

fn bootstrap(plan: &Plan<'_>, names: &Names, ports: &[Value]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": plain_metadata(plan, names, &names.bootstrap()),
        "spec": {"type": "ClusterIP", "selector": names.selector(), "ports": ports},
    })
}

/// Not only when it is ready: brokers speak to one another before clients come.
fn broker(plan: &Plan<'_>, names: &Names, id: i32, ports: &[Value]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": plain_metadata(plan, names, &names.broker(id)),
        "spec": {"type": "ClusterIP", "publishNotReadyAddresses": true, "selector": of_pod(names, id), "ports": ports},
    })
}

fn of_pod(names: &Names, id: i32) -> BTreeMap<String, String> {
    let mut selector = names.selector();
    selector.insert(POD_NAME_LABEL.to_owned(), names.broker(id));
    selector
}

fn external(plan: &Plan<'_>, names: &Names, listener: &Listener) -> Vec<Value> {
    let service = |name: &str, kind: &str, selector: &BTreeMap<String, String>, ports: Vec<Value>| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(plan, names, name, &listener.annotations),
            "spec": {"type": kind, "selector": selector, "ports": ports},
        })
    };
    let bootstrap = names.listener_bootstrap(&listener.name);
    let kind = match listener.kind {
        ListenerType::NodePort => "NodePort",
        _ => "LoadBalancer",
    };
    let mut services = vec![service(&bootstrap, kind, &names.selector(), vec![port(listener)])];
    services.extend((0..plan.replicas).map(|id| service(&names.listener_broker(&listener.name, id), kind, &of_pod(names, id), vec![port(listener)])));
    services
}
