//! The status of a cluster: how many brokers serve, how its partitions do, where clients connect, and if something is wrong, what and what helps.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, ObjectReference, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource as _;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::events::Recorder;
use serde_json::json;
use weir_crds::{BrokerSummary, KafkaCluster, KafkaClusterStatus, ListenerStatus, ListenerType};
use weir_protocol::types::BrokerId;

use super::super::objects::{Names, listeners as listeners_of};
use super::super::sites::{address_of, address_of_node};
use super::super::topics::{Judgement, condition, now, publish};
use super::rollout::Step;
use super::{Context, Figures, Findings};
use crate::controller::state::State;
use crate::controller::summary;

/// The most nodes that are named for the bootstrap of a listener.
const BOOTSTRAP_NODES: usize = 3;

/// The least time between two writes.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);

/// The status as this process last wrote it.
#[derive(Debug, Default)]
pub(super) struct Written {
    last: Option<(Option<String>, KafkaClusterStatus)>,
    at: Option<Instant>,
}

/// What became of a status.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is as it should be.
    Done,
    /// It was written a moment ago, and is to be written again after this time.
    Later(Duration),
}

impl Written {
    pub(super) async fn write(
        &mut self,
        context: &Context,
        recorder: &Recorder,
        cluster: &KafkaCluster,
        state: Option<&State>,
        findings: &Findings,
    ) -> kube::Result<Outcome> {
        // What was written last may not have come back through the watch.
        let ours = self
            .last
            .as_ref()
            .filter(|(uid, _)| *uid == cluster.metadata.uid)
            .map(|(_, status)| status.clone());
        let before = ours.or_else(|| cluster.status.clone()).unwrap_or_default();
        let status = status_of(cluster, &before, state, findings, &now());
        let unchanged = status == before && cluster.status.as_ref().is_some_and(|shown| *shown == status || self.last.is_some());
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
        let names = Names::of(cluster);
        let api: Api<KafkaCluster> = Api::namespaced(context.client.clone(), &names.namespace);
        let patch = json!({"metadata": {"uid": cluster.metadata.uid}, "status": status});
        Figures::count(&context.figures.writes);
        self.at = Some(Instant::now());
        api.patch_status(&names.cluster, &PatchParams::default(), &Patch::Merge(patch)).await?;
        let (was, is) = (ready(&before).cloned(), ready(&status).cloned());
        self.last = Some((cluster.metadata.uid.clone(), status));
        if let Some(is) = is.filter(|is| was.is_none_or(|was| was.status != is.status || was.reason != is.reason)) {
            tell(recorder, cluster, is.status == "True", &is.reason, &is.message).await;
        }
        Ok(Outcome::Done)
    }
}

fn ready(status: &KafkaClusterStatus) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == "Ready")
}

/// Publishes an event about a cluster.
pub(super) async fn tell(recorder: &Recorder, cluster: &KafkaCluster, good: bool, reason: &str, note: &str) {
    let regarding: ObjectReference = cluster.object_ref(&());
    publish(recorder, &regarding, good, reason, note, "LookAfter").await;
}

/// PURE: the status.
fn status_of(cluster: &KafkaCluster, before: &KafkaClusterStatus, state: Option<&State>, findings: &Findings, now: &Time) -> KafkaClusterStatus {
    let names = Names::of(cluster);
    let wanted = cluster.spec.brokers.replicas;
    let serving = state.map_or(0, |state| (0..wanted).filter(|id| state.is_usable(BrokerId(*id))).count());
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let partitions = state.map(|state| summary(state.topics.values().flat_map(|topic| &topic.partitions)));
    let brokers = BrokerSummary {
        replicas: count(findings.pods.len()),
        ready: count(serving),
        updated: count(findings.pods.iter().filter(|pod| pod.outdated == Some(false)).count()),
        summary: format!("{serving}/{wanted}"),
        selector: names.selector_text(),
    };
    let generation = cluster.metadata.generation;
    let judged = judge(cluster, state, findings, serving);
    let conditions = judged
        .into_iter()
        .map(|(kind, judgement)| condition(kind, judgement, generation, &before.conditions, now));
    KafkaClusterStatus {
        observed_generation: generation,
        cluster_id: state.map(|state| state.cluster.id.clone()).or_else(|| before.cluster_id.clone()),
        image: Some(findings.image.clone()).filter(|image| !image.is_empty()),
        brokers: Some(if state.is_some() {
            brokers
        } else {
            before.brokers.clone().unwrap_or(brokers)
        }),
        listeners: if findings.listeners.is_empty() {
            before.listeners.clone()
        } else {
            findings.listeners.clone()
        },
        topics: state.and_then(|state| i64::try_from(state.topics.len()).ok()).or(before.topics),
        partitions: partitions.or(before.partitions),
        conditions: conditions.collect(),
    }
}

fn judge(cluster: &KafkaCluster, state: Option<&State>, findings: &Findings, serving: usize) -> Vec<(&'static str, Judgement)> {
    let wanted = usize::try_from(cluster.spec.brokers.replicas).unwrap_or_default();
    let partitions = state
        .map(|state| summary(state.topics.values().flat_map(|topic| &topic.partitions)))
        .unwrap_or_default();
    // A pod that waits for its volume says less of it than the volume does.
    let trouble = findings.storage.first().or(findings.troubles.first()).cloned();
    let available = if state.is_none() {
        Judgement::fails("NoController", trouble.clone().unwrap_or_else(|| "the controller is starting".to_owned()))
    } else if serving == 0 {
        Judgement::fails("NoBroker", trouble.clone().unwrap_or_else(|| "no broker serves yet".to_owned()))
    } else if partitions.offline > 0 {
        let message = format!(
            "{} of {} partitions have no leader: `kubectl get topics` shows of which topics",
            partitions.offline, partitions.total
        );
        Judgement::fails("PartitionsOffline", message)
    } else {
        Judgement::holds("Available", "every partition has a leader")
    };
    let degraded = if serving < wanted {
        let message = trouble.clone().unwrap_or_else(|| "the others go on".to_owned());
        Judgement::holds("BrokersNotReady", format!("{serving} of {wanted} brokers serve: {message}"))
    } else if partitions.under_replicated > 0 {
        let message = format!("{} of {} partitions lack replicas in sync", partitions.under_replicated, partitions.total);
        Judgement::holds("UnderReplicated", message)
    } else {
        Judgement::fails("AsWanted", "every broker serves, and every replica is in sync")
    };
    let up_to_date = match (&findings.refusal, &findings.scale_down) {
        (_, Some(reason)) => Judgement::fails("ScaleDownBlocked", reason.clone()),
        (Some(refusal), _) => Judgement::fails("Refused", refusal.clone()),
        _ if findings.paused => Judgement::fails("Paused", "what is written in the spec waits until spec.paused is false"),
        _ => match &findings.rollout {
            Some(Step::Wait(reason)) => Judgement::fails("RolloutWaits", format!("brokers are to be restarted, and wait: {reason}")),
            Some(Step::Restart { id, .. }) => Judgement::fails("RollingOut", format!("broker {id} is being restarted")),
            _ => Judgement::holds("AsWanted", "brokers are as the spec wants them"),
        },
    };
    let storage = match findings.storage.first() {
        Some(reason) => Judgement::fails("StorageTrouble", reason.clone()),
        None => Judgement::holds("AsWanted", "the volumes are as the spec wants them"),
    };
    let paused = if findings.paused {
        Judgement::holds("Paused", "the objects stay as they are; leaders still move when brokers fail")
    } else {
        Judgement::fails("NotPaused", "the operator acts on the spec")
    };
    let ready = if !available.holds {
        available.clone()
    } else if serving < wanted {
        Judgement::fails(degraded.reason, degraded.message.clone())
    } else if let Some(refusal) = &findings.refusal {
        Judgement::fails("Refused", refusal.clone())
    } else {
        let message = if degraded.holds {
            format!("every broker serves; {}", degraded.message)
        } else {
            "every broker serves, and every partition has a leader".to_owned()
        };
        Judgement::holds("Ready", message)
    };
    vec![
        ("Ready", ready),
        ("Available", available),
        ("Degraded", degraded),
        ("UpToDate", up_to_date),
        ("StorageOk", storage),
        ("Paused", paused),
    ]
}

/// Where clients connect on each listener, as far as is known.
pub(super) async fn listeners(context: &Context, cluster: &KafkaCluster, replicas: i32) -> Vec<ListenerStatus> {
    let names = Names::of(cluster);
    let services: Api<Service> = Api::namespaced(context.client.clone(), &names.namespace);
    let mut statuses = Vec::new();
    for listener in listeners_of(cluster).iter() {
        let mut status = ListenerStatus {
            name: listener.name.clone(),
            ..ListenerStatus::default()
        };
        if listener.kind == ListenerType::Internal {
            status.bootstrap = format!("{}.{}.svc:{}", names.bootstrap(), names.namespace, listener.port);
            status.brokers = (0..replicas)
                .map(|id| format!("{}.{}.svc:{}", names.broker(id), names.namespace, listener.port))
                .collect();
        } else {
            // A service of type NodePort answers on every node. One of them may be the next to fail, so several are named.
            let nodes = match (listener.kind, &listener.host) {
                (ListenerType::NodePort, None) => some_nodes(context).await.into_iter().map(Some).collect(),
                _ => vec![None],
            };
            if let Ok(Some(service)) = services.get_opt(&names.listener_bootstrap(&listener.name)).await {
                let addresses = nodes.iter().filter_map(|node| address_of(listener, &service, node.as_ref()));
                let addresses: Vec<String> = addresses.map(|(host, port)| format!("{host}:{port}")).collect();
                status.bootstrap = addresses.join(",");
            }
        }
        statuses.push(status);
    }
    statuses
}

/// Some nodes that are there, the first ones by name.
async fn some_nodes(context: &Context) -> Vec<Node> {
    let nodes: Api<Node> = Api::all(context.client.clone());
    let listed = nodes.list(&ListParams::default()).await.map(|listed| listed.items).unwrap_or_default();
    let is_ready = |node: &Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
    };
    let mut nodes: Vec<Node> = listed
        .into_iter()
        .filter(|node| address_of_node(node).is_some() && is_ready(node))
        .collect();
    nodes.sort_by_key(|node| node.metadata.name.clone());
    nodes.truncate(BOOTSTRAP_NODES);
    nodes
}
