//! PURE: the one load balancer of a listener that all brokers share, with a port for each of them.
//!
//! A Service's selector cannot send its ports to different pods. So this one has none, and the operator writes the slices of endpoints that lead each port to its pod.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};
use weir_crds::{KafkaCluster, Listener, ListenerType};

use super::{MANAGER, Names, Plan, listeners, metadata, plain_metadata};

/// Who writes a slice, for Kubernetes' own controllers, which leave it alone then.
pub(in crate::kubernetes) const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Where the pod of a broker is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kubernetes) struct Place<'a> {
    /// The broker.
    pub(in crate::kubernetes) id: i32,
    /// The address of its pod.
    pub(in crate::kubernetes) address: IpAddr,
    /// The ports of its listeners, by name.
    pub(in crate::kubernetes) ports: &'a BTreeMap<String, u16>,
    /// It serves.
    pub(in crate::kubernetes) ready: bool,
}

impl Place<'_> {
    /// The port on which it has a listener. A pod that is not restarted yet may have another one than the resource says.
    fn port(&self, listener: &Listener) -> u16 {
        self.ports.get(&listener.name).copied().unwrap_or(listener.port)
    }
}

/// The port of a broker on the load balancer: the listener's own is for whoever does not know the brokers yet. `None` beyond the last port there is.
pub(in crate::kubernetes) fn port_of(listener: &Listener, broker: i32) -> Option<u16> {
    u16::try_from(i32::from(listener.port) + 1 + broker).ok()
}

/// The service that a slice belongs to.
pub(in crate::kubernetes) fn service_of(slice: &Value) -> Option<&str> {
    slice.get("metadata")?.get("labels")?.get(SERVICE_NAME)?.as_str()
}

fn name_of_port(broker: i32) -> String {
    format!("broker-{broker}")
}

/// The service.
pub(super) fn service(plan: &Plan<'_>, names: &Names, listener: &Listener) -> Value {
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": listener.port, "protocol": "TCP"});
    let mut ports = vec![port(&listener.name, listener.port)];
    ports.extend((0..plan.replicas).filter_map(|id| Some(port(&name_of_port(id), port_of(listener, id)?))));
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(plan.cluster, names, &names.listener_bootstrap(&listener.name), &listener.annotations),
        "spec": {"type": "LoadBalancer", "ports": ports},
    })
}

/// The slices of all such listeners, for the pods as they are: one for those who look for any broker that serves, and one for each broker, served or not.
pub(in crate::kubernetes) fn slices(cluster: &KafkaCluster, replicas: i32, places: &[Place<'_>]) -> Vec<Value> {
    let names = Names::of(cluster);
    let all = listeners(cluster);
    let shared = all.iter().filter(|listener| listener.kind == ListenerType::SharedLoadBalancer);
    shared
        .flat_map(|listener| slices_of(cluster, replicas, &names, listener, places))
        .collect()
}

fn slices_of(cluster: &KafkaCluster, replicas: i32, names: &Names, listener: &Listener, places: &[Place<'_>]) -> Vec<Value> {
    let service = names.listener_bootstrap(&listener.name);
    let slice = |name: &str, port_name: &str, port: u16, endpoints: Vec<Value>| {
        let mut metadata = plain_metadata(cluster, names, name);
        metadata["labels"][SERVICE_NAME] = json!(service);
        metadata["labels"][SLICE_MANAGED_BY] = json!(MANAGER);
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            // All pods have addresses of one family, that of the first.
            "addressType": if places.iter().any(|place| place.address.is_ipv6()) { "IPv6" } else { "IPv4" },
            "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
            "endpoints": endpoints,
        })
    };
    let endpoint = |place: &Place<'_>, ready: bool| json!({"addresses": [place.address.to_string()], "conditions": {"ready": ready}});
    // All endpoints of a slice have one port: while the listener moves to another, that of the first pod, and the pods that have it.
    let common = places.first().map_or(listener.port, |place| place.port(listener));
    let any = places.iter().filter(|place| place.port(listener) == common);
    let any = any.map(|place| endpoint(place, place.ready)).collect();
    let mut slices = vec![slice(&service, &listener.name, common, any)];
    slices.extend((0..replicas).map(|id| {
        let place = places.iter().find(|place| place.id == id);
        let port = place.map_or(listener.port, |place| place.port(listener));
        // Who asks for a broker gets it, ready or not, as from the services of single brokers.
        let endpoints = place.map(|place| endpoint(place, true)).into_iter().collect();
        slice(&names.listener_broker(&listener.name, id), &name_of_port(id), port, endpoints)
    }));
    slices
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_broker_has_a_port_that_leads_to_its_pod() {
        let cluster: KafkaCluster = serde_json::from_value(json!({
            "apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "c", "namespace": "n"},
            "spec": {"brokers": {"replicas": 2}, "listeners": [{"name": "plain", "port": 9092}, {"name": "ext", "port": 9094, "type": "SharedLoadBalancer"}]},
        }))
        .unwrap();
        let plan = Plan {
            cluster: &cluster,
            image: "i",
            cluster_id: "id",
            controller: "c:1",
            replicas: 2,
            listening: &BTreeSet::new(),
            evictable: 1,
            monitoring: None,
        };
        let all = listeners(&cluster);
        let service = service(&plan, &Names::of(&cluster), &all[1]);
        assert!(service["spec"].get("selector").is_none(), "{service}");
        let ports: Vec<_> = service["spec"]["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (p["name"].as_str(), p["port"].as_u64()))
            .collect();
        assert_eq!(
            ports,
            [(Some("ext"), Some(9094)), (Some("broker-0"), Some(9095)), (Some("broker-1"), Some(9096))]
        );

        let (now, moved) = (BTreeMap::from([("ext".to_owned(), 9094)]), BTreeMap::from([("ext".to_owned(), 9000)]));
        let place = |id, last, ready| Place {
            id,
            address: IpAddr::from([10, 244, 0, last]),
            ports: &now,
            ready,
        };
        let other = Place {
            ports: &moved,
            ..place(1, 8, true)
        };
        // Each is reached where it listens.
        let ports = |slices: Vec<Value>| slices.iter().map(|slice| slice["ports"][0]["port"].as_u64()).collect::<Vec<_>>();
        assert_eq!(
            ports(slices(&cluster, 2, &[place(0, 7, true), other])),
            [Some(9094), Some(9094), Some(9000)]
        );
        let slices = slices(&cluster, 2, &[place(0, 7, true), place(1, 8, false)]);
        let told = |slice: &Value| {
            let endpoints = slice["endpoints"].as_array().unwrap();
            let address = |e: &Value| {
                format!(
                    "{}{}",
                    e["addresses"][0].as_str().unwrap(),
                    if e["conditions"]["ready"] == true { "" } else { " (not ready)" }
                )
            };
            (
                slice["ports"][0]["name"].as_str().unwrap().to_owned(),
                endpoints.iter().map(address).collect::<Vec<_>>(),
            )
        };
        let told: Vec<_> = slices.iter().map(told).collect();
        assert_eq!(
            told,
            [
                ("ext".to_owned(), vec!["10.244.0.7".to_owned(), "10.244.0.8 (not ready)".to_owned()]),
                ("broker-0".to_owned(), vec!["10.244.0.7".to_owned()]),
                ("broker-1".to_owned(), vec!["10.244.0.8".to_owned()]),
            ]
        );
        assert!(slices.iter().all(|slice| service_of(slice) == Some("c-bootstrap-ext")));
    }

    #[test]
    fn ports_end() {
        let listener: Listener = serde_json::from_value(json!({"name": "ext", "port": 65534, "type": "SharedLoadBalancer"})).unwrap();
        assert_eq!((port_of(&listener, 0), port_of(&listener, 1)), (Some(65_535), None));
    }
}
