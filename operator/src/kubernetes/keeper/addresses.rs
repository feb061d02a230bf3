//! Keeps the endpoints of running brokers current: a load balancer gets its address, a pod moves to
//! another node, or somebody else owns a service.

use tracing::debug;
use weir_crds::{KafkaCluster, Listener, ListenerType};

use super::super::context::Context;
use super::super::host::Host;
use super::super::hosted_clusters::{BrokerAddresses, is_told_by_pod};
use super::super::objects::listeners;
use crate::controller::Event;
use crate::controller::state::{Broker, State};
use crate::store::kube::ours::Taken;

/// Checks the brokers' addresses if they can have changed, and sends changes to the controller.
pub(super) async fn keep_true(
    context: &Context,
    host: &Host,
    cluster: &KafkaCluster,
    state: &State,
    taken: &[Taken],
) {
    let is_taken = taken.iter().any(|by| by.kind == "Service");
    let is_outside = |listener: &Listener| listener.kind != ListenerType::Internal;
    let by_pod = |broker: &Broker| is_told_by_pod(cluster, broker.id.0, &broker.endpoints);
    if !is_taken
        && !listeners(cluster).iter().any(is_outside)
        && !state.brokers.values().any(by_pod)
    {
        return;
    }
    // A broker that a recovery has found on a volume, and that has not registered, has no
    // endpoints.
    for broker in state.brokers.values().filter(|broker| !broker.endpoints.is_empty()) {
        let standing = match BrokerAddresses::of(&context.client, cluster, broker.id.0).await {
            Ok(standing) => standing,
            Err(error) => {
                // Clients keep the addresses that they know, until the next pass reads them.
                debug!(cluster = cluster.metadata.name, broker = %broker.id, %error, "cannot read where a broker runs");
                continue;
            }
        };
        let endpoints = standing.endpoints(cluster, broker.id.0, broker.endpoints.clone());
        if endpoints != broker.endpoints {
            let before = broker.endpoints.clone();
            let event = Event::UpdateEndpoints { broker: broker.id, before, endpoints };
            // If the controller does not answer, or the broker has registered meanwhile, the next
            // pass sends it.
            let _ = host.controller().ask(event).await;
        }
    }
}
