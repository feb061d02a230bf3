//! PURE: what the status of a cluster says: how many brokers serve, how its partitions do, where clients connect, and if something is wrong, what and what helps.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use weir_crds::{BrokerSummary, KafkaCluster, KafkaClusterStatus, ListenerType, PartitionSummary};
use weir_protocol::types::BrokerId;

use super::super::objects::{Names, listeners};
use super::super::topics::{Judgement, condition};
use super::Findings;
use super::rollout::Step;
use crate::controller::state::State;
use crate::controller::summary;
use crate::store::kube::ours::Taken;

/// How long it is said that the state came from a backup.
const ROLLED_BACK_SECONDS: i64 = 24 * 3600;

/// The conditions whose changes are events.
const TOLD: [&str; 5] = ["Ready", "StorageOk", "ListenersReady", NAME_TAKEN, ROLLED_BACK];

/// Objects of others that a message names; it says how many there are besides.
const NAMED_MAX: usize = 5;

/// Kinds of objects without which brokers do not run.
const KEEP_BROKERS_AWAY: [&str; 6] = [
    "PartitionTable",
    "ServiceAccount",
    "ConfigMap",
    "PersistentVolumeClaim",
    "StatefulSet",
    "Pod",
];

const NAME_TAKEN: &str = "NameTaken";
const ROLLED_BACK: &str = "StateRolledBack";

/// Whether what a condition says is as it should be.
pub(super) fn is_good(condition: &Condition) -> bool {
    let holds_when_wrong = ["Degraded", "Paused", NAME_TAKEN, ROLLED_BACK].contains(&condition.type_.as_str());
    (condition.status == "True") != holds_when_wrong
}

/// The conditions that say something new, which is worth an event: another status, or another thing that is wrong. Numbers that change are no news.
pub(super) fn news<'a>(before: &'a [Condition], after: &'a [Condition]) -> Vec<&'a Condition> {
    let plain = |message: &str| message.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let is_new = |is: &&Condition| match before.iter().find(|was| was.type_ == is.type_) {
        None => !is_good(is) || is.type_ == "Ready",
        Some(was) if was.status != is.status => true,
        Some(was) => !is_good(is) && (was.reason != is.reason || plain(&was.message) != plain(&is.message)),
    };
    after.iter().filter(|is| TOLD.contains(&is.type_.as_str())).filter(is_new).collect()
}

/// The status.
pub(super) fn status_of(
    cluster: &KafkaCluster,
    before: &KafkaClusterStatus,
    state: Option<&State>,
    findings: &Findings,
    now: &Time,
) -> KafkaClusterStatus {
    let names = Names::of(cluster);
    let wanted = cluster.spec.brokers.replicas;
    let serving = state.map_or(0, |state| (0..wanted).filter(|id| state.is_usable(BrokerId(*id))).count());
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let partitions = state.map(|state| summary(state.topics.values().flat_map(|topic| &topic.partitions)));
    let mut brokers = BrokerSummary {
        replicas: count(findings.pods.len()),
        ready: count(serving),
        updated: count(findings.pods.iter().filter(|pod| pod.outdated == Some(false)).count()),
        summary: format!("{serving}/{wanted}"),
        selector: names.selector_text(),
    };
    // A pass that failed did not come to look at the pods.
    if let Some(known) = before.brokers.as_ref().filter(|_| findings.failed.is_some()) {
        (brokers.replicas, brokers.updated) = (known.replicas, known.updated);
    }
    let generation = cluster.metadata.generation;
    let said = |kind: &'static str, judgement: Judgement| condition(kind, judgement, generation, &before.conditions, now);
    let mut conditions: Vec<Condition> = judge(cluster, state, findings, serving)
        .into_iter()
        .map(|(kind, judgement)| said(kind, judgement))
        .collect();
    // Neither did it look at volumes and listeners.
    let looked_at = |condition: &Condition| ["StorageOk", "ListenersReady"].contains(&condition.type_.as_str());
    if findings.failed.is_some() {
        conditions.retain(|condition| !looked_at(condition));
        conditions.extend(before.conditions.iter().filter(|condition| looked_at(condition)).cloned());
    }
    match &findings.taken {
        Some(taken) => conditions.push(said(NAME_TAKEN, name_taken(taken))),
        None => conditions.extend(before.conditions.iter().find(|condition| condition.type_ == NAME_TAKEN).cloned()),
    }
    let rolled_back = before.conditions.iter().find(|condition| condition.type_ == ROLLED_BACK);
    let is_told = rolled_back.is_some_and(|condition| now.0.duration_since(condition.last_transition_time.0).as_secs() < ROLLED_BACK_SECONDS);
    if is_told || (rolled_back.is_none() && state.is_some_and(|state| state.rolled_back)) {
        let message = "brokers had seen later epochs than the partition tables and topics hold, so these come from a backup: what was made or changed since is missing. Epochs were raised, and \
                       nothing of it is used twice; see docs/backup.md";
        conditions.push(said(ROLLED_BACK, Judgement::holds("BrokersKnowMore", message)));
    }
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
        conditions,
    }
}

fn judge(cluster: &KafkaCluster, state: Option<&State>, findings: &Findings, serving: usize) -> Vec<(&'static str, Judgement)> {
    let wanted = usize::try_from(cluster.spec.brokers.replicas).unwrap_or_default();
    let partitions = state
        .map(|state| summary(state.topics.values().flat_map(|topic| &topic.partitions)))
        .unwrap_or_default();
    // What the API server refuses, and names that are taken, come before all that waits for them, and a pod that waits for its volume says less of it than the volume does.
    let taken = findings.taken.iter().flatten().find(|by| KEEP_BROKERS_AWAY.contains(&by.kind.as_str()));
    let taken = taken.map(|by| name_taken(std::slice::from_ref(by)).message);
    let troubles = [
        findings.failed.as_ref(),
        taken.as_ref(),
        findings.storage.first(),
        findings.troubles.first(),
    ];
    let trouble = troubles.into_iter().flatten().next();
    let available = available(state.is_some(), serving, &partitions, trouble);
    let degraded = if serving < wanted {
        let message = trouble.map_or("the others go on", String::as_str);
        Judgement::holds("BrokersNotReady", format!("{serving} of {wanted} brokers serve: {message}"))
    } else if partitions.under_replicated > 0 {
        let message = format!("{} of {} partitions lack replicas in sync", partitions.under_replicated, partitions.total);
        Judgement::holds("UnderReplicated", message)
    } else {
        Judgement::fails("AsWanted", "every broker serves, and every replica is in sync")
    };
    let up_to_date = up_to_date(findings);
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
    } else if findings.failed.is_some() || findings.refusal.is_some() {
        up_to_date.clone()
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
        ("ListenersReady", listeners_ready(cluster, findings)),
        ("Paused", paused),
    ]
}

fn available(hosted: bool, serving: usize, partitions: &PartitionSummary, trouble: Option<&String>) -> Judgement {
    let said = |else_: &str| trouble.cloned().unwrap_or_else(|| else_.to_owned());
    if !hosted {
        Judgement::fails("NoController", said("the controller is starting"))
    } else if serving == 0 {
        Judgement::fails("NoBroker", said("no broker serves yet"))
    } else if partitions.offline > 0 {
        let message = format!(
            "{} of {} partitions have no leader: `kubectl get topics` shows of which topics",
            partitions.offline, partitions.total
        );
        Judgement::fails("PartitionsOffline", message)
    } else {
        Judgement::holds("Available", "every partition has a leader")
    }
}

fn up_to_date(findings: &Findings) -> Judgement {
    if let Some(error) = &findings.failed {
        return Judgement::fails("Failed", format!("what the spec says cannot be carried out, and is tried again: {error}"));
    }
    if let Some(reason) = &findings.scale_down {
        return Judgement::fails("ScaleDownBlocked", reason.clone());
    }
    if let Some(refusal) = &findings.refusal {
        return Judgement::fails("Refused", refusal.clone());
    }
    if let Some(taken) = findings.taken.as_deref().filter(|taken| !taken.is_empty()) {
        return Judgement::fails(NAME_TAKEN, name_taken(taken).message);
    }
    if findings.paused {
        return Judgement::fails("Paused", "what is written in the spec waits until spec.paused is false");
    }
    match &findings.rollout {
        Some(Step::Wait(reason)) => Judgement::fails("RolloutWaits", format!("brokers are to be restarted, and wait: {reason}")),
        Some(Step::Restart { id, .. }) => Judgement::fails("RollingOut", format!("broker {id} is being restarted")),
        _ => Judgement::holds("AsWanted", "brokers are as the spec wants them"),
    }
}

/// Whether objects of others stand where the cluster's would.
fn name_taken(taken: &[Taken]) -> Judgement {
    if taken.is_empty() {
        return Judgement::fails("AsWanted", "every object of the cluster has its name");
    }
    let mut named: Vec<String> = taken.iter().take(NAMED_MAX).map(Taken::to_string).collect();
    if let Some(more) = taken.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        named.push(format!("and {more} more"));
    }
    let message = format!(
        "{}: it stays as it is, and the cluster goes without. Give it another name, or make the KafkaCluster anew under another",
        named.join(", ")
    );
    Judgement::holds("MadeByOthers", message)
}

fn listeners_ready(cluster: &KafkaCluster, findings: &Findings) -> Judgement {
    let has_address = |name: &str| findings.listeners.iter().any(|said| said.name == name && !said.bootstrap.is_empty());
    let all = listeners(cluster);
    match all.iter().find(|listener| !has_address(&listener.name)) {
        None => Judgement::holds("Addressed", "clients find an address of every listener in status.listeners"),
        Some(listener) => {
            let why = match listener.kind {
                ListenerType::Internal => "its service is not there yet, or somebody else's has its name",
                ListenerType::NodePort => {
                    "its service is not there yet, or no node tells an address: that takes the right to read nodes (rbac.clusterReader in the chart), or spec.listeners[].host"
                }
                ListenerType::LoadBalancer | ListenerType::SharedLoadBalancer => {
                    "its load balancer has none yet: is there anything in this Kubernetes cluster that provides load balancers?"
                }
            };
            Judgement::fails("NoAddress", format!("the listener {} has no address: {why}", listener.name))
        }
    }
}

#[cfg(test)]
mod tests;
