//! Writes the status of a cluster when it changes, at a limited rate, and publishes the events
//! about it.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, ObjectReference, Service};
use kube::Resource as _;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use weir_crds::{KafkaCluster, KafkaClusterStatus, Listener, ListenerStatus, ListenerType};
use weir_protocol::address;
use weir_protocol::types::BrokerId;

use super::super::context::Context;
use super::super::events::publish;
use super::super::hosted_clusters::{address_of, address_of_node, if_permitted};
use super::super::metrics::{BrokerFigures, ConditionFigure, Metrics};
use super::super::objects::{Names, listeners as listeners_of};
use super::judge::{Told, is_good, is_wrong, news, status_of};
use super::observation::Observation;
use super::words::in_words;
use crate::controller::state::State;
use crate::listener::listener_name;
use crate::store::kube::ours::{Taken, if_ours};
use crate::time::now;

/// The most nodes in the bootstrap addresses of a listener.
const BOOTSTRAP_NODES: usize = 3;

/// Nodes read by one request.
const NODES_AT_A_TIME: u32 = 10;

/// The most brokers in the bootstrap addresses, if each has a host of its own.
const BOOTSTRAP_BROKERS: usize = 3;

/// The least time between two writes.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);

/// The status that this process wrote last.
#[derive(Debug, Default)]
pub(super) struct Written {
    last: Option<(Option<String>, KafkaClusterStatus)>,
    at: Option<Instant>,
    told: Told,
}

/// The result of writing a status.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The status is current.
    Done,
    /// The last write was a moment ago; write again after this time.
    Later(Duration),
}

impl Written {
    pub(super) async fn write(
        &mut self,
        context: &Context,
        cluster: &KafkaCluster,
        state: Option<&State>,
        findings: &Observation,
    ) -> kube::Result<Outcome> {
        // The watch may not have returned the last write yet.
        let ours = self
            .last
            .as_ref()
            .filter(|(uid, _)| *uid == cluster.metadata.uid)
            .map(|(_, status)| status.clone());
        let before = ours.or_else(|| cluster.status.clone()).unwrap_or_default();
        let status = status_of(cluster, &before, state, findings, &now());
        let names = Names::of(cluster);
        let conditions = status
            .conditions
            .iter()
            .map(|condition| ConditionFigure {
                kind: condition.type_.clone(),
                reason: condition.reason.clone(),
                is_good: is_good(condition),
            })
            .collect();
        context
            .figures
            .conditions()
            .insert((names.namespace.clone(), names.cluster.clone()), conditions);
        // A failed pass did not read the pods.
        if findings.failed.is_none() {
            let outdated = findings.pods.iter().filter(|pod| pod.outdated == Some(true)).count();
            let brokers = BrokerFigures {
                wanted: cluster.spec.brokers.replicas,
                serving: status.brokers.as_ref().map_or(0, |brokers| brokers.ready),
                outdated: i32::try_from(outdated).unwrap_or(i32::MAX),
            };
            context
                .figures
                .brokers()
                .insert((names.namespace.clone(), names.cluster.clone()), brokers);
        }
        let unchanged = status == before
            && cluster.status.as_ref().is_some_and(|shown| *shown == status || self.last.is_some());
        if unchanged {
            return Ok(Outcome::Done);
        }
        if let Some(early) = self
            .at
            .map(|at| BETWEEN_WRITES.saturating_sub(at.elapsed()))
            .filter(|left| !left.is_zero())
        {
            return Ok(Outcome::Later(early));
        }
        let api: Api<KafkaCluster> = Api::namespaced(context.client.clone(), &names.namespace);
        let patch = json!({"metadata": {"uid": cluster.metadata.uid}, "status": status});
        Metrics::count(&context.figures.writes);
        self.at = Some(Instant::now());
        api.patch_status(&names.cluster, &PatchParams::default(), &Patch::Merge(patch)).await?;
        for condition in self.told.only_new(news(&before.conditions, &status.conditions)) {
            publish_event(
                context,
                cluster,
                !is_wrong(condition),
                &condition.reason,
                &condition.message,
            )
            .await;
        }
        self.told.forget(&status.conditions);
        self.last = Some((cluster.metadata.uid.clone(), status));
        Ok(Outcome::Done)
    }
}

/// An error, with the API server's message if it has one.
pub(super) fn said(error: &anyhow::Error) -> String {
    in_words(&match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => format!("{error}: {}", status.message),
        _ => format!("{error:#}"),
    })
}

/// Publishes an event about a cluster.
pub(super) async fn publish_event(
    context: &Context,
    cluster: &KafkaCluster,
    good: bool,
    reason: &str,
    note: &str,
) {
    let regarding: ObjectReference = cluster.object_ref(&());
    publish(context, &regarding, good, reason, note, "LookAfter").await;
}

/// The known addresses of each listener. None is that of somebody else's service.
///
/// # Errors
/// The Kubernetes API does not answer.
pub(super) async fn listeners(
    context: &Context,
    cluster: &KafkaCluster,
    replicas: i32,
    state: Option<&State>,
    taken: &[Taken],
) -> kube::Result<Vec<ListenerStatus>> {
    let names = Names::of(cluster);
    let inside = |service: String, port: u16| {
        let is_taken = taken.iter().any(|by| by.kind == "Service" && by.name == service);
        if is_taken { String::new() } else { format!("{service}.{}.svc:{port}", names.namespace) }
    };
    let services: Api<Service> = Api::namespaced(context.client.clone(), &names.namespace);
    let mut statuses = Vec::new();
    for listener in listeners_of(cluster).iter() {
        let mut status =
            ListenerStatus { name: listener.name.clone(), ..ListenerStatus::default() };
        if listener.kind == ListenerType::Internal {
            status.bootstrap = inside(names.bootstrap(), listener.port);
            let broker = |id| match inside(names.broker(id), listener.port) {
                // Somebody else owns its service: its pod's host counts, once the broker advertises
                // it.
                taken if taken.is_empty() => {
                    let by_pod = told(state, id, &listener_name(listener));
                    Some(by_pod).filter(|host| host.contains(&names.brokers())).unwrap_or_default()
                }
                service => service,
            };
            status.brokers = (0..replicas).map(broker).collect();
        } else {
            // A NodePort service answers on every node. Several are listed, because any one may
            // fail.
            let nodes = match (listener.kind, &listener.host) {
                (ListenerType::NodePort, None) => {
                    some_nodes(context).await?.into_iter().map(Some).collect()
                }
                _ => vec![None],
            };
            let service = services.get_opt(&names.listener_bootstrap(&listener.name)).await?;
            if let Some(service) =
                if_ours(service, cluster.metadata.uid.as_deref().unwrap_or_default())
            {
                let addresses = nodes
                    .iter()
                    .filter_map(|node| address_of(listener, None, &service, node.as_ref()));
                let addresses: Vec<String> =
                    addresses.map(|(host, port)| address::join(&host, port)).collect();
                status.bootstrap = addresses.join(",");
            }
            status.brokers =
                (0..replicas).map(|id| told(state, id, &listener_name(listener))).collect();
            // If each broker has a host of its own, no host stands for all; the first brokers serve
            // as bootstrap.
            if listener.host.as_ref().is_some_and(|host| host.contains(Listener::BROKER)) {
                status.bootstrap = first_known(&status.brokers);
            }
        }
        statuses.push(status);
    }
    Ok(statuses)
}

/// The first brokers with known addresses, separated by commas.
fn first_known(brokers: &[String]) -> String {
    let known = brokers.iter().filter(|broker| !broker.is_empty()).take(BOOTSTRAP_BROKERS);
    known.map(String::as_str).collect::<Vec<_>>().join(",")
}

/// The address of a broker for clients of a listener; empty while unknown.
fn told(state: Option<&State>, broker: i32, listener: &str) -> String {
    let broker = state.and_then(|state| state.brokers.get(&BrokerId(broker)));
    let endpoint = broker
        .and_then(|broker| broker.endpoints.iter().find(|endpoint| endpoint.listener == listener));
    endpoint.map(|endpoint| address::join(&endpoint.host, endpoint.port)).unwrap_or_default()
}

/// The first ready nodes by name. The API server lists them in that order, so the rest need not be
/// read.
async fn some_nodes(context: &Context) -> kube::Result<Vec<Node>> {
    let api: Api<Node> = Api::all(context.client.clone());
    let is_ready = |node: &Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| {
            all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
    };
    let mut nodes = Vec::new();
    let mut params = ListParams::default().limit(NODES_AT_A_TIME);
    // Without permission to read nodes there are none.
    while let Some(page) = if_permitted(api.list(&params).await.map(Some))? {
        nodes.extend(
            page.items
                .into_iter()
                .filter(|node| address_of_node(node, &[]).is_some() && is_ready(node)),
        );
        match page
            .metadata
            .continue_
            .filter(|next| !next.is_empty() && nodes.len() < BOOTSTRAP_NODES)
        {
            Some(next) => params = params.continue_token(&next),
            None => break,
        }
    }
    nodes.truncate(BOOTSTRAP_NODES);
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::kube::tests::server::Server;

    #[tokio::test]
    async fn of_many_nodes_few_are_read() {
        let server = Server::default();
        for node in 0..100 {
            let is_ready = if node < 5 { "False" } else { "True" };
            let status = json!({"conditions": [{"type": "Ready", "status": is_ready}], "addresses": [{"type": "InternalIP", "address": format!("10.0.0.{node}")}]});
            let name = format!("node-{node:03}");
            server.put(
                &format!("/api/v1/nodes/{name}"),
                &json!({"metadata": {"name": name}, "status": status}),
            );
        }
        let context = Context::of_tests(&server);
        let names = |nodes: Vec<Node>| {
            nodes.into_iter().filter_map(|node| node.metadata.name).collect::<Vec<_>>()
        };
        assert_eq!(
            names(some_nodes(&context).await.unwrap()),
            ["node-005", "node-006", "node-007"]
        );
        assert_eq!(server.take_listed(), 10);
        // It reads on if the first nodes are not ready.
        for node in 0..12 {
            server.remove(&format!("/api/v1/nodes/node-{node:03}"));
        }
        assert_eq!(
            names(some_nodes(&context).await.unwrap()),
            ["node-012", "node-013", "node-014"]
        );
        for node in 12..24 {
            let name = format!("node-{node:03}");
            server.put(&format!("/api/v1/nodes/{name}"), &json!({"metadata": {"name": name}}));
        }
        assert_eq!(
            names(some_nodes(&context).await.unwrap()),
            ["node-024", "node-025", "node-026"]
        );
        assert_eq!(server.take_listed(), 10 + 20);
    }

    #[test]
    fn brokers_that_are_known_are_named_for_all() {
        let brokers =
            ["", "k-1.example:9094", "k-2.example:9094", "k-3.example:9094", "k-4.example:9094"]
                .map(str::to_owned);
        assert_eq!(first_known(&brokers), "k-1.example:9094,k-2.example:9094,k-3.example:9094");
        assert_eq!(first_known(&[String::new()]), "");
    }
}
