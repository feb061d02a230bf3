//! Where brokers run: the rack of their node, and the addresses for clients outside Kubernetes.
//!
//! A broker knows neither, since it has no access to the Kubernetes API. The operator adds them to
//! its registration, and corrects them when they change.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::{Api, Client};
use tokio::sync::watch;
use tracing::warn;
use weir_crds::{KafkaCluster, Listener, ListenerType};

use super::objects::{Names, listeners, port_of};
use crate::controller::Registration;
use crate::controller::state::Endpoint;
use crate::listener::{listener_name, security_protocol};
use crate::rpc::RegistrationEnricher;
use crate::store::kube::ours::{if_ours, is_ours, is_pod_of};

/// The most time that a registration waits for the Kubernetes API. Then the broker tries again,
/// which it does of itself after four seconds.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// The label of a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The hosted clusters, by their id in the Kafka protocol.
#[derive(Debug, Default)]
pub(super) struct HostedClusters {
    by_id: RwLock<BTreeMap<String, watch::Receiver<Arc<KafkaCluster>>>>,
}

impl HostedClusters {
    pub(super) fn put(&self, cluster_id: String, resource: watch::Receiver<Arc<KafkaCluster>>) {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).insert(cluster_id, resource);
    }

    pub(super) fn remove(&self, cluster_id: &str) {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(cluster_id);
    }

    fn resource(&self, cluster_id: &str) -> Option<Arc<KafkaCluster>> {
        let by_id = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        by_id.get(cluster_id).map(|resource| Arc::clone(&resource.borrow()))
    }
}

/// Returns the function that completes registrations.
pub(super) fn enricher(client: Client, sites: Arc<HostedClusters>) -> RegistrationEnricher {
    Arc::new(move |registration| {
        let (client, sites) = (client.clone(), Arc::clone(&sites));
        async move {
            let Some(cluster) = sites.resource(&registration.cluster_id) else {
                return Ok(registration);
            };
            let broker = registration.broker;
            let read = BrokerAddresses::of(&client, &cluster, broker.0);
            let why = match tokio::time::timeout(ANSWER_MAX, read).await {
                Ok(Ok(standing)) => return Ok(standing.complete(&cluster, registration)),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {ANSWER_MAX:?}"),
            };
            // What is registered stays: a broker without its rack would never get one.
            warn!(cluster = cluster.metadata.name, %broker, why, "the Kubernetes API does not say where a broker runs, which has to register again");
            Err(format!("the Kubernetes API does not say where broker {broker} runs: {why}"))
        }
        .boxed()
    })
}

/// The facts about a broker from the Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BrokerAddresses {
    /// The zone of its node.
    rack: Option<String>,
    /// The addresses for clients outside, by listener name.
    outside: BTreeMap<String, (String, u16)>,
    /// Somebody else's service has the name that the broker advertises.
    is_impersonated: bool,
}

/// The hosts for clients inside: the broker's service, whose address is stable, and its pod, for
/// the case that somebody else created a service of that name.
fn hosts_inside(names: &Names, broker: i32) -> [String; 2] {
    let (pod, namespace) = (names.broker(broker), &names.namespace);
    [format!("{pod}.{namespace}.svc"), format!("{pod}.{}.{namespace}.svc", names.brokers())]
}

/// Whether a broker advertises its pod.
pub(super) fn is_told_by_pod(cluster: &KafkaCluster, broker: i32, endpoints: &[Endpoint]) -> bool {
    let [_, by_pod] = hosts_inside(&Names::of(cluster), broker);
    endpoints.iter().any(|endpoint| endpoint.host == by_pod)
}

impl BrokerAddresses {
    /// Reads the facts. An operator that may not read nodes knows none about them.
    ///
    /// # Errors
    /// The Kubernetes API does not answer, or refuses another read than that of a node. An error
    /// says nothing of the facts: a caller keeps those it has.
    pub(super) async fn of(
        client: &Client,
        cluster: &KafkaCluster,
        broker: i32,
    ) -> kube::Result<Self> {
        let names = Names::of(cluster);
        let pods: Api<Pod> = Api::namespaced(client.clone(), &names.namespace);
        let node_name = pods
            .get_opt(&names.broker(broker))
            .await?
            .filter(|pod| is_pod_of(&names.cluster, &pod.metadata))
            .and_then(|pod| pod.spec?.node_name);
        let node = match node_name {
            Some(name) => if_permitted(Api::<Node>::all(client.clone()).get_opt(&name).await)?,
            None => None,
        };
        let rack =
            node.as_ref().and_then(|node| node.metadata.labels.as_ref()?.get(ZONE_LABEL).cloned());
        let services: Api<Service> = Api::namespaced(client.clone(), &names.namespace);
        let mut outside = BTreeMap::new();
        for listener in
            listeners(cluster).iter().filter(|listener| listener.kind != ListenerType::Internal)
        {
            let shared = listener.kind == ListenerType::SharedLoadBalancer;
            let name = match shared {
                true => names.listener_bootstrap(&listener.name),
                false => names.listener_broker(&listener.name, broker),
            };
            // The address of somebody else's service is never used.
            let service = if_ours(
                services.get_opt(&name).await?,
                cluster.metadata.uid.as_deref().unwrap_or_default(),
            );
            let address = service
                .and_then(|service| address_of(listener, Some(broker), &service, node.as_ref()));
            let address = address.and_then(|(host, port)| {
                Some((host, if shared { port_of(listener, broker)? } else { port }))
            });
            if let Some(address) = address {
                outside.insert(listener_name(listener), address);
            }
        }
        let is_impersonated = is_impersonated(&services, &names, cluster, broker).await?;
        Ok(Self { rack, outside, is_impersonated })
    }

    /// Adds to a registration what the broker does not know of itself.
    fn complete(&self, cluster: &KafkaCluster, mut registration: Registration) -> Registration {
        registration.rack = registration.rack.or_else(|| self.rack.clone());
        registration.endpoints =
            self.endpoints(cluster, registration.broker.0, registration.endpoints);
        registration
    }

    /// The endpoints of a broker. Internal ones are as it reported them, except through somebody
    /// else's service. External ones are those known here; an unknown one is omitted.
    pub(super) fn endpoints(
        &self,
        cluster: &KafkaCluster,
        broker: i32,
        said: Vec<Endpoint>,
    ) -> Vec<Endpoint> {
        let hosts = hosts_inside(&Names::of(cluster), broker);
        let listeners = listeners(cluster);
        let outside = |name: &str| {
            listeners.iter().any(|listener| {
                listener.kind != ListenerType::Internal && listener_name(listener) == name
            })
        };
        let mut endpoints: Vec<Endpoint> =
            said.into_iter().filter(|endpoint| !outside(&endpoint.listener)).collect();
        let [by_service, by_pod] = &hosts;
        for endpoint in endpoints.iter_mut().filter(|endpoint| hosts.contains(&endpoint.host)) {
            endpoint.host.clone_from(if self.is_impersonated { by_pod } else { by_service });
        }
        let protocol = |name: &str| {
            let own = listeners.iter().find(|listener| listener_name(listener) == name);
            own.map_or("PLAINTEXT", security_protocol)
        };
        endpoints.extend(self.outside.iter().map(|(listener, (host, port))| Endpoint {
            listener: listener.clone(),
            host: host.clone(),
            port: *port,
            security_protocol: protocol(listener).to_owned(),
        }));
        endpoints
    }
}

/// Whether somebody else's service has the broker's name, while its pod is reachable without it.
async fn is_impersonated(
    services: &Api<Service>,
    names: &Names,
    cluster: &KafkaCluster,
    broker: i32,
) -> kube::Result<bool> {
    let uid = cluster.metadata.uid.as_deref().unwrap_or_default();
    Ok(is_service_ours(services, &names.broker(broker), uid).await? == Some(false)
        && is_service_ours(services, &names.brokers(), uid).await? == Some(true))
}

/// Whether a service was created for the cluster; `None` if it does not exist.
async fn is_service_ours(
    services: &Api<Service>,
    name: &str,
    cluster_uid: &str,
) -> kube::Result<Option<bool>> {
    let service = services.get_metadata_opt(name).await?;
    Ok(service.map(|service| is_ours(&service.metadata, cluster_uid)))
}

/// What was read, or nothing if the operator lacks the right to read it.
pub(super) fn if_permitted<T>(read: kube::Result<Option<T>>) -> kube::Result<Option<T>> {
    match read {
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        read => read,
    }
}

/// The external address of a listener's service, by its first port. With `broker` it is that
/// broker's service, without one the bootstrap service. `node` is the node of a pod behind it. A
/// host with the placeholder for a broker's id gives no bootstrap address.
pub(super) fn address_of(
    listener: &Listener,
    broker: Option<i32>,
    service: &Service,
    node: Option<&Node>,
) -> Option<(String, u16)> {
    let host = match (listener.host.as_deref(), broker) {
        (Some(host), Some(broker)) => Some(host.replace(Listener::BROKER, &broker.to_string())),
        (Some(host), None) if host.contains(Listener::BROKER) => return None,
        (host, _) => host.map(str::to_owned),
    };
    match listener.kind {
        ListenerType::Internal => None,
        ListenerType::NodePort => {
            let port = service.spec.as_ref()?.ports.as_ref()?.first()?.node_port?;
            let families = service.spec.as_ref()?.ip_families.as_deref().unwrap_or_default();
            let host = host.or_else(|| node.and_then(|node| address_of_node(node, families)))?;
            Some((host, u16::try_from(port).ok()?))
        }
        ListenerType::LoadBalancer | ListenerType::SharedLoadBalancer => {
            let ingress =
                service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
            let host = host.or_else(|| ingress.hostname.clone()).or_else(|| ingress.ip.clone())?;
            Some((host, listener.port))
        }
    }
}

/// The node address with the widest reach, of the first of these families that the node has.
/// Without families it is the node's first address. A service answers only on its own families.
pub(super) fn address_of_node(node: &Node, families: &[String]) -> Option<String> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let of = |kind: &str| {
        let mut all = addresses
            .iter()
            .filter(|address| address.type_ == kind)
            .map(|address| &address.address);
        let is_of = |address: &str, family: &str| {
            address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6() == (family == "IPv6"))
        };
        match families {
            [] => all.next(),
            families => families
                .iter()
                .find_map(|family| all.clone().find(|address| is_of(address, family))),
        }
    };
    of("ExternalIP").or_else(|| of("InternalIP")).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use uuid::Uuid;
    use weir_protocol::types::{BrokerId, ControllerEpoch};

    use super::*;
    use crate::store::kube::tests::server::Server;

    fn cluster() -> KafkaCluster {
        let listeners = json!([{"name": "plain", "port": 9092}, {"name": "ext", "port": 9094, "type": "NodePort"}]);
        let object = json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "c", "namespace": "n"}, "spec": {"listeners": listeners}});
        serde_json::from_value(object).unwrap()
    }

    fn endpoint(listener: &str, host: &str, port: u16) -> Endpoint {
        Endpoint {
            listener: listener.to_owned(),
            host: host.to_owned(),
            port,
            security_protocol: "PLAINTEXT".to_owned(),
        }
    }

    /// An API server with a broker of [`cluster`] on a node in zone `a`.
    fn server() -> Server {
        let server = Server::default();
        let pod = json!({"metadata": {"name": "c-0", "namespace": "n", "generateName": "c-", "labels": {"controller-revision-hash": "1"}}, "spec": {"containers": [], "nodeName": "node"}});
        server.put("/api/v1/namespaces/n/pods/c-0", &pod);
        server.put("/api/v1/nodes/node", &json!({"metadata": {"name": "node", "labels": {ZONE_LABEL: "a"}}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.7"}]}}));
        server
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_not_taken_for_absent() {
        let server = server();
        let read = async || BrokerAddresses::of(&server.client(), &cluster(), 0).await;
        let rack = async || read().await.unwrap().rack;
        assert_eq!(rack().await.as_deref(), Some("a"));
        for path in [
            "/api/v1/namespaces/n/pods/c-0",
            "/api/v1/nodes/node",
            "/api/v1/namespaces/n/services/c-0-ext",
            "/api/v1/namespaces/n/services/c-0",
        ] {
            server.refuse("GET", path, 500, "etcdserver: request timed out");
            assert!(read().await.is_err(), "{path}");
            server.allow_all();
        }
        // An operator without a ClusterRole never sees nodes.
        server.refuse("GET", "/api/v1/nodes/node", 403, "nodes is forbidden");
        assert_eq!(rack().await, None);
    }

    #[tokio::test]
    async fn a_broker_registers_once_its_place_is_known() {
        let server = server();
        let sites = Arc::new(HostedClusters::default());
        let (_resource, seen) = watch::channel(Arc::new(cluster()));
        sites.put("id".to_owned(), seen);
        let enrich = enricher(server.client(), sites);
        let registration = Registration {
            cluster_id: "id".to_owned(),
            broker: BrokerId(0),
            incarnation: Uuid::from_u128(1),
            log_dir: Uuid::from_u128(2),
            endpoints: Vec::new(),
            rack: None,
            previous_epoch: None,
            clean: true,
            controller_epoch: ControllerEpoch(1),
            leader_epochs: Vec::new(),
            is_certified: false,
        };
        server.refuse("GET", "/api/v1/nodes/node", 500, "etcdserver: request timed out");
        assert!(enrich(registration.clone()).await.unwrap_err().contains("timed out"));
        server.allow_all();
        assert_eq!(enrich(registration).await.unwrap().rack.as_deref(), Some("a"));
    }

    #[test]
    fn a_listener_outside_is_told_once_it_is_known() {
        let said = || vec![endpoint("PLAIN", "c-0.n.svc", 9092), endpoint("EXT", "::", 9094)];
        assert_eq!(
            BrokerAddresses::default().endpoints(&cluster(), 0, said()),
            [endpoint("PLAIN", "c-0.n.svc", 9092)]
        );
        let known = BrokerAddresses {
            outside: [("EXT".to_owned(), ("10.0.0.7".to_owned(), 30_001))].into(),
            ..BrokerAddresses::default()
        };
        assert_eq!(
            known.endpoints(&cluster(), 0, said()),
            [endpoint("PLAIN", "c-0.n.svc", 9092), endpoint("EXT", "10.0.0.7", 30_001)]
        );
    }

    #[test]
    fn nobody_is_led_to_a_service_of_somebody_else() {
        let said = |host: &str| vec![endpoint("PLAIN", host, 9092)];
        let impersonated = BrokerAddresses { is_impersonated: true, ..BrokerAddresses::default() };
        for before in ["c-1.n.svc", "c-1.c-brokers.n.svc"] {
            assert_eq!(
                impersonated.endpoints(&cluster(), 1, said(before)),
                said("c-1.c-brokers.n.svc")
            );
            assert_eq!(
                BrokerAddresses::default().endpoints(&cluster(), 1, said(before)),
                said("c-1.n.svc")
            );
        }
        assert!(is_told_by_pod(&cluster(), 1, &said("c-1.c-brokers.n.svc")));
        assert!(!is_told_by_pod(&cluster(), 1, &said("c-1.n.svc")));
    }

    #[test]
    fn addresses_are_those_of_nodes_and_load_balancers() {
        let node: Node = serde_json::from_value(json!({"metadata": {}, "status": {"addresses": [
            {"type": "InternalIP", "address": "10.0.0.7"}, {"type": "Hostname", "address": "n"},
        ]}}))
        .unwrap();
        let service: Service = serde_json::from_value(json!({
            "spec": {"ports": [{"port": 9094, "nodePort": 30001}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
        }))
        .unwrap();
        let listener = |kind: &str, host: Option<&str>| -> Listener {
            serde_json::from_value(json!({"name": "ext", "port": 9094, "type": kind, "host": host}))
                .unwrap()
        };
        let address = |kind, host, node| address_of(&listener(kind, host), None, &service, node);
        let both: Node = serde_json::from_value(json!({"metadata": {}, "status": {"addresses": [
            {"type": "InternalIP", "address": "10.0.0.7"}, {"type": "InternalIP", "address": "fd00::7"}, {"type": "ExternalIP", "address": "2001:db8::7"},
        ]}}))
        .unwrap();
        // The node's address has a family that the service answers on.
        for (families, host) in [
            (json!(null), "2001:db8::7"),
            (json!(["IPv4"]), "10.0.0.7"),
            (json!(["IPv6"]), "2001:db8::7"),
            (json!(["IPv4", "IPv6"]), "2001:db8::7"),
        ] {
            let mut service = service.clone();
            service.spec.as_mut().unwrap().ip_families = serde_json::from_value(families).unwrap();
            let found = address_of(&listener("NodePort", None), None, &service, Some(&both));
            assert_eq!(found, Some((host.to_owned(), 30_001)), "{service:?}");
        }
        assert_eq!(address_of_node(&node, &["IPv6".to_owned()]), None);
        assert_eq!(address("NodePort", None, Some(&node)), Some(("10.0.0.7".to_owned(), 30_001)));
        assert_eq!(
            address("NodePort", Some("k.example"), None),
            Some(("k.example".to_owned(), 30_001))
        );
        assert_eq!(address("NodePort", None, None), None);
        assert_eq!(address("LoadBalancer", None, None), Some(("192.0.2.1".to_owned(), 9094)));
        assert_eq!(address("Internal", None, Some(&node)), None);
        // Each broker has its own host, and the bootstrap service has none.
        for (kind, port) in
            [("LoadBalancer", 9094), ("NodePort", 30_001), ("SharedLoadBalancer", 9094)]
        {
            let listener = listener(kind, Some("k-{broker}.example"));
            let of = |broker| address_of(&listener, broker, &service, Some(&node));
            assert_eq!(of(Some(0)), Some(("k-0.example".to_owned(), port)));
            assert_eq!(of(Some(12)), Some(("k-12.example".to_owned(), port)));
            assert_eq!(of(None), None);
        }
    }
}
