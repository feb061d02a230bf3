//! PURE: the services of a cluster.
//!
//! Each broker has a service of its own, whose address stays when the pod's changes. So no client
//! waits for a cached name to expire during a rolling restart.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_crds::{Listener, ListenerType};

use super::families::of_families;
use super::names::{Names, listeners};
use super::nodes;
use super::object_meta::{metadata, plain_metadata};
use super::plan::Plan;
use super::shared;

/// The label with the pod's name, which the StatefulSet controller sets.
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";

pub(super) fn build(plan: &Plan<'_>, names: &Names) -> Vec<Value> {
    let listeners = listeners(plan.cluster);
    let internal = internal_ports(plan, &listeners);
    let of_brokers: Vec<Value> = internal.iter().cloned().chain([nodes::port()]).collect();
    let mut services = vec![headless(plan, names, &of_brokers), bootstrap(plan, names, &internal)];
    services.extend((0..plan.replicas).map(|id| broker(plan, names, id, &of_brokers)));
    for listener in listeners.iter() {
        match listener.kind {
            ListenerType::Internal => {}
            ListenerType::NodePort => services.extend(external(plan, names, listener, "NodePort")),
            ListenerType::LoadBalancer => {
                services.extend(external(plan, names, listener, "LoadBalancer"))
            }
            ListenerType::SharedLoadBalancer => {
                services.push(shared::service(plan, names, listener))
            }
        }
    }
    services
}

/// A listener's port. It targets the container's port of that name: while a listener moves to
/// another port, each pod is reached on its own.
fn port(listener: &Listener) -> Value {
    json!({"name": listener.name, "port": listener.port, "targetPort": listener.name, "protocol": "TCP"})
}

/// The ports of the internal listeners. An old port stays until the last pod with it has been
/// restarted, because brokers and clients still use it.
fn internal_ports(plan: &Plan<'_>, listeners: &[Listener]) -> Vec<Value> {
    let internal = || listeners.iter().filter(|listener| listener.kind == ListenerType::Internal);
    let leaving = plan.listening.iter().filter(|(name, port)| {
        let is_known = internal().any(|listener| listener.name == *name);
        is_known && internal().all(|listener| listener.port != *port)
    });
    let leaving = leaving.map(|(name, port)| json!({"name": format!("{name}-{port}"), "port": port, "targetPort": name, "protocol": "TCP"}));
    internal().map(port).chain(leaving).collect()
}

/// The StatefulSet's service, for the names of its pods.
fn headless(plan: &Plan<'_>, names: &Names, ports: &[Value]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": plain_metadata(plan.cluster, names, &names.brokers()),
        "spec": of_families(plan, json!({"clusterIP": "None", "publishNotReadyAddresses": true, "selector": names.selector(), "ports": ports})),
    })
}

fn bootstrap(plan: &Plan<'_>, names: &Names, ports: &[Value]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": plain_metadata(plan.cluster, names, &names.bootstrap()),
        "spec": of_families(plan, json!({"type": "ClusterIP", "selector": names.selector(), "ports": ports})),
    })
}

/// It includes pods that are not ready: brokers talk to each other before clients connect.
fn broker(plan: &Plan<'_>, names: &Names, id: i32, ports: &[Value]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": plain_metadata(plan.cluster, names, &names.broker(id)),
        "spec": of_families(plan, json!({"type": "ClusterIP", "publishNotReadyAddresses": true, "selector": of_pod(names, id), "ports": ports})),
    })
}

fn of_pod(names: &Names, id: i32) -> BTreeMap<String, String> {
    let mut selector = names.selector();
    selector.insert(POD_NAME_LABEL.to_owned(), names.broker(id));
    selector
}

/// A service for each broker, and a bootstrap service. The bootstrap service selects only ready
/// brokers. A broker's own service includes it as soon as it listens: it may lead before the
/// kubelet has probed it.
fn external(plan: &Plan<'_>, names: &Names, listener: &Listener, kind: &str) -> Vec<Value> {
    let service = |name: &str, selector: &BTreeMap<String, String>, also_not_ready: bool| {
        let spec = json!({"type": kind, "publishNotReadyAddresses": also_not_ready, "selector": selector, "ports": [port(listener)]});
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(plan.cluster, names, name, &listener.annotations),
            "spec": of_families(plan, spec),
        })
    };
    let bootstrap = names.listener_bootstrap(&listener.name);
    let mut services = vec![service(&bootstrap, &names.selector(), false)];
    services.extend(
        (0..plan.replicas).map(|id| {
            service(&names.listener_broker(&listener.name, id), &of_pod(names, id), true)
        }),
    );
    services
}
