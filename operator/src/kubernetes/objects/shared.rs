//! PURE: the shared load balancer of a listener, with a port for each broker.
//!
//! A Service's selector cannot send its ports to different pods. So this one has no selector, and
//! the operator writes the endpoint slices that map each port to its pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};
use weir_crds::{IpFamily, IpFamilyPolicy, KafkaCluster, Listener, ListenerType};

use super::families::of_families;
use super::names::{Names, listeners};
use super::object_meta::{metadata, plain_metadata};
use super::plan::Plan;
use crate::store::kube::ours::MANAGER;

/// The label with a slice's writer; Kubernetes' own controllers ignore the slice then.
pub(in crate::kubernetes) const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The label with a slice's service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The addresses of a broker's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kubernetes) struct Place<'a> {
    /// The broker's id.
    pub(in crate::kubernetes) id: i32,
    /// The addresses of its pod: at least one, at most one of each family, the pod's primary
    /// address first.
    pub(in crate::kubernetes) addresses: &'a [IpAddr],
    /// The ports of its listeners, by name.
    pub(in crate::kubernetes) ports: &'a BTreeMap<String, u16>,
    /// The pod is ready.
    pub(in crate::kubernetes) ready: bool,
}

impl Place<'_> {
    fn address(&self, family: IpFamily) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| family_of(*address) == family)
    }

    /// The port of its listener. A pod that has not been restarted yet may have another one than
    /// the resource.
    fn port(&self, listener: &Listener) -> u16 {
        self.ports.get(&listener.name).copied().unwrap_or(listener.port)
    }
}

fn family_of(address: IpAddr) -> IpFamily {
    match address {
        IpAddr::V4(_) => IpFamily::IPv4,
        IpAddr::V6(_) => IpFamily::IPv6,
    }
}

/// The service's families, as far as the resource and the pods tell. A slice has one family, and a
/// load balancer uses only slices of its service's families.
fn families(cluster: &KafkaCluster, places: &[Place<'_>]) -> BTreeSet<IpFamily> {
    let network = &cluster.spec.network;
    let of_pods =
        places.iter().flat_map(|place| place.addresses).map(|address| family_of(*address));
    let first = network.ip_families.first().copied();
    match network.ip_family_policy {
        Some(IpFamilyPolicy::PreferDualStack | IpFamilyPolicy::RequireDualStack) => {
            of_pods.chain(first).collect()
        }
        // A service's default family is the first one of the Kubernetes cluster, as is that of a
        // pod's primary address.
        Some(IpFamilyPolicy::SingleStack) | None => {
            [first.or_else(|| of_pods.into_iter().next()).unwrap_or(IpFamily::IPv4)].into()
        }
    }
}

/// The name of a slice; a slice never changes its family.
fn name_of_slice(name: &str, family: IpFamily) -> String {
    match family {
        IpFamily::IPv4 => name.to_owned(),
        // No service has a dot in its name, so no other slice has this one.
        IpFamily::IPv6 => format!("{name}.ipv6"),
    }
}

/// The port of a broker on the load balancer; the listener's own port is for bootstrap. `None`
/// beyond the last valid port.
pub(in crate::kubernetes) fn port_of(listener: &Listener, broker: i32) -> Option<u16> {
    u16::try_from(i32::from(listener.port) + 1 + broker).ok()
}

/// The name of the service of a slice.
pub(in crate::kubernetes) fn service_of(slice: &Value) -> Option<&str> {
    slice.get("metadata")?.get("labels")?.get(SERVICE_NAME)?.as_str()
}

fn name_of_port(broker: i32) -> String {
    format!("broker-{broker}")
}

/// The load balancer's service.
pub(super) fn service(plan: &Plan<'_>, names: &Names, listener: &Listener) -> Value {
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": listener.port, "protocol": "TCP"});
    let mut ports = vec![port(&listener.name, listener.port)];
    ports.extend(
        (0..plan.replicas).filter_map(|id| Some(port(&name_of_port(id), port_of(listener, id)?))),
    );
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(plan.cluster, names, &names.listener_bootstrap(&listener.name), &listener.annotations),
        "spec": of_families(plan, json!({"type": "LoadBalancer", "ports": ports})),
    })
}

/// The slices of all shared listeners for the current pods, for each family of the service. One
/// slice contains any ready broker, and each broker has one, ready or not.
pub(in crate::kubernetes) fn slices(
    cluster: &KafkaCluster,
    replicas: i32,
    places: &[Place<'_>],
) -> Vec<Value> {
    let names = Names::of(cluster);
    let all = listeners(cluster);
    let families = families(cluster, places);
    let shared = all.iter().filter(|listener| listener.kind == ListenerType::SharedLoadBalancer);
    shared
        .flat_map(|listener| families.iter().map(move |family| (listener, *family)))
        .flat_map(|(listener, family)| {
            slices_of(cluster, replicas, &names, listener, family, places)
        })
        .collect()
}

fn slices_of(
    cluster: &KafkaCluster,
    replicas: i32,
    names: &Names,
    listener: &Listener,
    family: IpFamily,
    places: &[Place<'_>],
) -> Vec<Value> {
    let service = names.listener_bootstrap(&listener.name);
    let slice = |name: &str, port_name: &str, port: u16, endpoints: Vec<Value>| {
        let mut metadata = plain_metadata(cluster, names, &name_of_slice(name, family));
        metadata["labels"][SERVICE_NAME] = json!(service);
        metadata["labels"][SLICE_MANAGED_BY] = json!(MANAGER);
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": family,
            "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
            "endpoints": endpoints,
        })
    };
    let endpoint = |place: &Place<'_>, ready: bool| {
        let address = place.address(family)?;
        Some(json!({"addresses": [address.to_string()], "conditions": {"ready": ready}}))
    };
    // All endpoints of a slice have one port. While the listener moves to another, the slice has
    // the first pod's port and the pods with it.
    let common = places.first().map_or(listener.port, |place| place.port(listener));
    let any = places.iter().filter(|place| place.port(listener) == common);
    let any = any.filter_map(|place| endpoint(place, place.ready)).collect();
    let mut slices = vec![slice(&service, &listener.name, common, any)];
    slices.extend((0..replicas).map(|id| {
        let place = places.iter().find(|place| place.id == id);
        let port = place.map_or(listener.port, |place| place.port(listener));
        // A client of one broker gets it, ready or not, as from the services of single brokers.
        let endpoints = place.and_then(|place| endpoint(place, true)).into_iter().collect();
        slice(&names.listener_broker(&listener.name, id), &name_of_port(id), port, endpoints)
    }));
    slices
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::plan::Evictions;
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
            evictions: Evictions { available_min: 2, ..Evictions::default() },
            held_before: const { &BTreeSet::new() },
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
            [
                (Some("ext"), Some(9094)),
                (Some("broker-0"), Some(9095)),
                (Some("broker-1"), Some(9096))
            ]
        );

        let (now, moved) = (
            BTreeMap::from([("ext".to_owned(), 9094)]),
            BTreeMap::from([("ext".to_owned(), 9000)]),
        );
        let (seven, eight) = ([IpAddr::from([10, 244, 0, 7])], [IpAddr::from([10, 244, 0, 8])]);
        let place = |id, ready| Place {
            id,
            addresses: if id == 0 { &seven } else { &eight },
            ports: &now,
            ready,
        };
        let other = Place { ports: &moved, ..place(1, true) };
        // Each pod is reached on its own port.
        let ports = |slices: Vec<Value>| {
            slices.iter().map(|slice| slice["ports"][0]["port"].as_u64()).collect::<Vec<_>>()
        };
        assert_eq!(
            ports(slices(&cluster, 2, &[place(0, true), other])),
            [Some(9094), Some(9094), Some(9000)]
        );
        let slices = slices(&cluster, 2, &[place(0, true), place(1, false)]);
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
                (
                    "ext".to_owned(),
                    vec!["10.244.0.7".to_owned(), "10.244.0.8 (not ready)".to_owned()]
                ),
                ("broker-0".to_owned(), vec!["10.244.0.7".to_owned()]),
                ("broker-1".to_owned(), vec!["10.244.0.8".to_owned()]),
            ]
        );
        assert!(slices.iter().all(|slice| service_of(slice) == Some("c-bootstrap-ext")));
    }

    #[test]
    fn slices_are_of_the_families_of_the_service() {
        let slices_with = |network: Value, pods: &[&str]| {
            let listeners = json!([{"name": "plain", "port": 9092}, {"name": "ext", "port": 9094, "type": "SharedLoadBalancer"}]);
            let cluster: KafkaCluster = serde_json::from_value(json!({
                "apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "c", "namespace": "n"},
                "spec": {"network": network, "listeners": listeners},
            }))
            .unwrap();
            let addresses: Vec<IpAddr> = pods.iter().map(|text| text.parse().unwrap()).collect();
            let place =
                Place { id: 0, addresses: &addresses, ports: &BTreeMap::new(), ready: true };
            let places = if pods.is_empty() { vec![] } else { vec![place] };
            let told = |slice: &Value| {
                assert_eq!(service_of(slice), Some("c-bootstrap-ext"));
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let endpoint = &slice["endpoints"][0]["addresses"][0];
                [text(&slice["metadata"]["name"]), text(&slice["addressType"]), text(endpoint)]
                    .join(" ")
            };
            slices(&cluster, 1, &places).iter().map(told).collect::<Vec<_>>()
        };
        let both = ["10.244.0.7", "fd00::7"];
        let (ipv4, ipv6) = (
            ["c-bootstrap-ext IPv4 10.244.0.7", "c-0-ext IPv4 10.244.0.7"],
            ["c-bootstrap-ext.ipv6 IPv6 fd00::7", "c-0-ext.ipv6 IPv6 fd00::7"],
        );
        assert_eq!(slices_with(json!({}), &both), ipv4);
        assert_eq!(slices_with(json!({}), &["fd00::7", "10.244.0.7"]), ipv6);
        assert_eq!(slices_with(json!({}), &["fd00::7"]), ipv6);
        assert_eq!(slices_with(json!({"ipFamilies": ["IPv6"]}), &both), ipv6);
        for policy in ["PreferDualStack", "RequireDualStack"] {
            assert_eq!(
                slices_with(json!({"ipFamilyPolicy": policy}), &both),
                [ipv4, ipv6].concat()
            );
        }
        assert_eq!(slices_with(json!({"ipFamilyPolicy": "PreferDualStack"}), &["fd00::7"]), ipv6);
        // Without a pod there are no endpoints.
        assert_eq!(slices_with(json!({}), &[]), ["c-bootstrap-ext IPv4 ", "c-0-ext IPv4 "]);
        assert_eq!(
            slices_with(json!({"ipFamilies": ["IPv6"]}), &[]),
            ["c-bootstrap-ext.ipv6 IPv6 ", "c-0-ext.ipv6 IPv6 "]
        );
    }

    #[test]
    fn ports_end() {
        let listener: Listener = serde_json::from_value(
            json!({"name": "ext", "port": 65534, "type": "SharedLoadBalancer"}),
        )
        .unwrap();
        assert_eq!((port_of(&listener, 0), port_of(&listener, 1)), (Some(65_535), None));
    }
}
