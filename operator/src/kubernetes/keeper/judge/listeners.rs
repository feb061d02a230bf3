//! PURE: whether clients find an address of every listener.

use weir_crds::{KafkaCluster, Listener, ListenerType};

use super::super::super::objects::listeners;
use super::super::observation::Observation;
use crate::conditions::ConditionValue;

pub(super) fn listeners_ready(cluster: &KafkaCluster, findings: &Observation) -> ConditionValue {
    let has_address = |name: &str| {
        findings.listeners.iter().any(|said| said.name == name && !said.bootstrap.is_empty())
    };
    let all = listeners(cluster);
    // A resource from before the schema refused such a host.
    let is_one_for_all = |listener: &&Listener| {
        let host = listener.host.as_ref().filter(|_| listener.kind == ListenerType::LoadBalancer);
        host.is_some_and(|host| !host.contains(Listener::BROKER))
            && cluster.spec.brokers.replicas > 1
    };
    if let Some(listener) = all.iter().find(is_one_for_all) {
        let message = format!(
            "clients of the listener {} are told one host for all brokers, each of which has a load balancer of its own: give a host with {}, or none",
            listener.name,
            Listener::BROKER
        );
        return ConditionValue::fails("OneHostForAll", message);
    }
    match all.iter().find(|listener| !has_address(&listener.name)) {
        None => ConditionValue::holds(
            "AddressesAssigned",
            "clients find an address of every listener in status.listeners",
        ),
        Some(listener) => {
            let why = match listener.kind {
                ListenerType::Internal => {
                    "its service is not there yet, or somebody else's has its name"
                }
                ListenerType::NodePort => {
                    "its service is not there yet, or no node tells an address: that takes the right to read nodes (rbac.clusterReader in the chart), or spec.listeners[].host"
                }
                ListenerType::LoadBalancer | ListenerType::SharedLoadBalancer => {
                    "its load balancer has none yet: is there anything in this Kubernetes cluster that provides load balancers?"
                }
            };
            ConditionValue::fails(
                "NoAddress",
                format!("the listener {} has no address: {why}", listener.name),
            )
        }
    }
}
