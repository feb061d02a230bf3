//! PURE: the status of a cluster: brokers, partitions, listeners, the progress towards the spec,
//! and each fault with what helps.

mod name_taken;
mod progress;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use weir_crds::{
    BrokerSummary, KafkaCluster, KafkaClusterStatus, Listener, ListenerType, PartitionSummary,
};
use weir_protocol::types::BrokerId;

use self::name_taken::{NAME_TAKEN, name_taken};
use self::progress::progress;
use super::super::objects::{Names, listeners};
use super::super::sizes::shown;
use super::drain::{Drain, drain};
use super::findings::Findings;
use super::table_recovery::Stage;
use crate::conditions::{ConditionValue, condition};
use crate::controller::state::{Partition, State};
use crate::controller::summary;

/// How long the status says that the state came from a backup, in seconds.
const ROLLED_BACK_SECONDS: i64 = 24 * 3600;

/// The conditions whose changes become events.
const TOLD: [&str; 8] = [
    "Ready",
    "StorageOk",
    "ListenersReady",
    NAME_TAKEN,
    ROLLED_BACK,
    DRAIN_BLOCKED,
    RECOVERING,
    "Stalled",
];

/// Reasons without a fault: the condition is not yet as it should be, but the operator is working
/// on it.
const IN_ITS_TURN: [&str; 2] = ["Starting", "Restarting"];

/// Conditions whose status `True` is not the normal one.
const ABNORMAL: [&str; 9] = [
    "Degraded",
    "Paused",
    "Progressing",
    "Reconciling",
    "Stalled",
    DRAIN_BLOCKED,
    NAME_TAKEN,
    ROLLED_BACK,
    RECOVERING,
];

/// Kinds of objects without which brokers do not run.
const KEEP_BROKERS_AWAY: [&str; 6] = [
    "PartitionTable",
    "ServiceAccount",
    "ConfigMap",
    "PersistentVolumeClaim",
    "StatefulSet",
    "Pod",
];

const ROLLED_BACK: &str = "StateRolledBack";
const DRAIN_BLOCKED: &str = "DrainBlocked";
const RECOVERING: &str = "Recovering";

/// Whether a condition is in its normal status.
pub(super) fn is_good(condition: &Condition) -> bool {
    (condition.status == "True") != ABNORMAL.contains(&condition.type_.as_str())
}

/// Whether a condition deserves a warning.
pub(super) fn is_wrong(condition: &Condition) -> bool {
    !is_good(condition) && !IN_ITS_TURN.contains(&condition.reason.as_str())
}

/// The conditions that deserve an event: a new status, or a new fault. A message with other numbers
/// is not new, nor is one that another condition has too.
pub(super) fn news<'a>(before: &'a [Condition], after: &'a [Condition]) -> Vec<&'a Condition> {
    let plain = |message: &str| message.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let is_new = |is: &&Condition| match before.iter().find(|was| was.type_ == is.type_) {
        None => is_wrong(is) || is.type_ == "Ready",
        Some(was) if was.status != is.status => {
            is_wrong(is) || is_wrong(was) || is.type_ == "Ready"
        }
        Some(was) => {
            is_wrong(is) && (was.reason != is.reason || plain(&was.message) != plain(&is.message))
        }
    };
    let mut news: Vec<&Condition> = Vec::new();
    for condition in after.iter().filter(|is| TOLD.contains(&is.type_.as_str())).filter(is_new) {
        if news
            .iter()
            .all(|told| (&told.reason, &told.message) != (&condition.reason, &condition.message))
        {
            news.push(condition);
        }
    }
    news
}

/// Computes the status.
pub(super) fn status_of(
    cluster: &KafkaCluster,
    before: &KafkaClusterStatus,
    state: Option<&State>,
    findings: &Findings,
    now: &Time,
) -> KafkaClusterStatus {
    let names = Names::of(cluster);
    let wanted = cluster.spec.brokers.replicas;
    // Includes the brokers to be removed, which serve until their replicas are moved.
    let there = wanted.max(findings.replicas);
    let serving =
        state.map_or(0, |state| (0..there).filter(|id| state.is_usable(BrokerId(*id))).count());
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let partitions =
        state.map(|state| summary(state.topics.values().flat_map(|topic| &topic.partitions)));
    let mut brokers = BrokerSummary {
        replicas: count(findings.pods.len()),
        ready: count(serving),
        updated: count(findings.pods.iter().filter(|pod| pod.outdated == Some(false)).count()),
        summary: format!("{serving}/{wanted}"),
        selector: names.selector_text(),
    };
    // A failed pass did not read the pods.
    if let Some(known) = before.brokers.as_ref().filter(|_| findings.failed.is_some()) {
        (brokers.replicas, brokers.updated) = (known.replicas, known.updated);
    }
    let generation = cluster.metadata.generation;
    let said = |kind: &'static str, judgement: ConditionValue| {
        condition(kind, judgement, generation, &before.conditions, now)
    };
    let mut conditions: Vec<Condition> = judge(cluster, state, findings)
        .into_iter()
        .map(|(kind, judgement)| said(kind, judgement))
        .collect();
    // Nor volumes and listeners.
    let looked_at =
        |condition: &Condition| ["StorageOk", "ListenersReady"].contains(&condition.type_.as_str());
    if findings.failed.is_some() {
        conditions.retain(|condition| !looked_at(condition));
        conditions
            .extend(before.conditions.iter().filter(|condition| looked_at(condition)).cloned());
    }
    match state {
        Some(state) => conditions.push(said(DRAIN_BLOCKED, drain_blocked(state, there, findings))),
        None => conditions.extend(
            before.conditions.iter().find(|condition| condition.type_ == DRAIN_BLOCKED).cloned(),
        ),
    }
    match &findings.taken {
        Some(taken) => conditions.push(said(NAME_TAKEN, name_taken(taken))),
        None => conditions.extend(
            before.conditions.iter().find(|condition| condition.type_ == NAME_TAKEN).cloned(),
        ),
    }
    match recovering(state, findings) {
        _ if cluster.spec.recover_from.is_none() => {}
        Some(judgement) => conditions.push(said(RECOVERING, judgement)),
        None => conditions.extend(
            before.conditions.iter().find(|condition| condition.type_ == RECOVERING).cloned(),
        ),
    }
    let rolled_back = before.conditions.iter().find(|condition| condition.type_ == ROLLED_BACK);
    let is_told = rolled_back.is_some_and(|condition| {
        now.0.duration_since(condition.last_transition_time.0).as_secs() < ROLLED_BACK_SECONDS
    });
    if is_told || (rolled_back.is_none() && state.is_some_and(|state| state.rolled_back)) {
        let message = "brokers had seen later epochs than the partition tables and topics hold, so these come from a backup: what was made or changed since is missing. Epochs were raised, and \
                       nothing of it is used twice; see docs/backup.md";
        conditions.push(said(ROLLED_BACK, ConditionValue::holds("BrokersKnowMore", message)));
    }
    KafkaClusterStatus {
        observed_generation: generation,
        cluster_id: state
            .map(|state| state.cluster.id.clone())
            .or_else(|| before.cluster_id.clone()),
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
        bytes: shown(before.bytes, findings.bytes),
        strays: findings.strays.clone().or_else(|| before.strays.clone()),
        conditions,
    }
}

fn judge(
    cluster: &KafkaCluster,
    state: Option<&State>,
    findings: &Findings,
) -> Vec<(&'static str, ConditionValue)> {
    let brokers = Brokers::of(cluster, state, findings);
    let partitions = state
        .map(|state| summary(state.topics.values().flat_map(|topic| &topic.partitions)))
        .unwrap_or_default();
    // A refusal of the API server and taken names come before whatever waits for them. A volume
    // explains more than the pod that waits for it.
    let taken =
        findings.taken.iter().flatten().find(|by| KEEP_BROKERS_AWAY.contains(&by.kind.as_str()));
    let taken = taken.map(|by| name_taken(std::slice::from_ref(by)).message);
    let recovers = recovers(findings);
    let troubles = [
        findings.failed.as_ref(),
        taken.as_ref(),
        findings.unbound.as_ref(),
        findings.troubles.first(),
        recovers.as_ref(),
    ];
    let trouble = troubles.into_iter().flatten().next();
    let available = available(state, &brokers, findings, &partitions, trouble);
    let missing = missing_replicas(state, findings);
    let degraded = if brokers.lost > 0 {
        let message = trouble.map_or("the others go on", String::as_str);
        ConditionValue::holds(
            "BrokersNotReady",
            format!("{} of {} brokers serve: {message}", brokers.serving, brokers.wanted),
        )
    } else if let Some(restarts) = findings.pods.iter().find_map(|pod| pod.restarts.as_ref()) {
        ConditionValue::holds("BrokersRestart", restarts.clone())
    } else if missing > 0 {
        let message = format!("{missing} of {} partitions lack replicas in sync", partitions.total);
        ConditionValue::holds("UnderReplicated", message)
    } else {
        ConditionValue::fails(
            "AsWanted",
            "no broker and no replica is missing that should be there",
        )
    };
    let progress = progress(cluster, state, findings);
    let up_to_date = match progress.stuck.as_ref().or(progress.under_way.as_ref()) {
        Some((reason, message)) => ConditionValue::fails(reason, message.clone()),
        None => ConditionValue::holds("AsWanted", "brokers are as the spec wants them"),
    };
    let progressing = match (&progress.under_way, &progress.stuck) {
        (Some((reason, message)), _) => ConditionValue::holds(reason, message.clone()),
        (None, Some((reason, message))) => ConditionValue::fails(reason, message.clone()),
        (None, None) => ConditionValue::fails("AsWanted", "nothing is under way"),
    };
    // A paused cluster neither matches its spec nor waits for a person.
    let reconciling = match &progress.stuck {
        Some((reason, message)) if findings.paused => {
            ConditionValue::holds(reason, message.clone())
        }
        _ => progressing.clone(),
    };
    let stalled = match progress.stuck.as_ref().filter(|_| !findings.paused) {
        Some((reason, message)) => ConditionValue::holds(reason, message.clone()),
        None => ConditionValue::fails("AsWanted", "nothing waits for a person"),
    };
    let storage = match findings.storage_trouble() {
        Some(reason) => ConditionValue::fails("StorageTrouble", reason.clone()),
        None => ConditionValue::holds("AsWanted", "the volumes are as the spec wants them"),
    };
    let paused = if findings.paused {
        ConditionValue::holds(
            "Paused",
            "the objects stay as they are; leaders still move when brokers fail",
        )
    } else {
        ConditionValue::fails("NotPaused", "the operator acts on the spec")
    };
    // Clients reach brokers by services, which select pods that Kubernetes finds ready.
    let is_unreachable = !findings.pods.is_empty() && findings.pods.iter().all(|pod| !pod.ready);
    let ready = if !available.is_true() {
        available.clone()
    } else if brokers.lost > 0 {
        ConditionValue::fails(degraded.reason, degraded.message.clone())
    } else if brokers.new > 0 {
        let message = recovers.as_deref().unwrap_or("the others are starting");
        let message = format!("{} of {} brokers serve: {message}", brokers.serving, brokers.wanted);
        ConditionValue::fails("Starting", message)
    } else if findings.failed.is_some() || findings.refusal.is_some() {
        up_to_date.clone()
    } else if is_unreachable {
        let reason = match trouble {
            Some(_) => "BrokersNotReady",
            None if findings.away.is_empty() => "Starting",
            None => "Restarting",
        };
        let why = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
        ConditionValue::fails(
            reason,
            format!(
                "every partition has a leader, and Kubernetes has found no broker's pod ready yet: no service leads to one{why}"
            ),
        )
    } else {
        let message = if degraded.is_true() {
            format!("every broker serves; {}", degraded.message)
        } else {
            "every broker serves, and every partition has a leader".to_owned()
        };
        match progress.under_way.or(progress.stuck) {
            Some((reason, said)) => {
                ConditionValue::holds(reason, format!("every partition has a leader; {said}"))
            }
            None => ConditionValue::holds("Ready", message),
        }
    };
    vec![
        ("Ready", ready),
        ("Available", available),
        ("Degraded", degraded),
        ("UpToDate", up_to_date),
        ("Progressing", progressing),
        ("Reconciling", reconciling),
        ("Stalled", stalled),
        ("StorageOk", storage),
        ("ListenersReady", listeners_ready(cluster, findings)),
        ("Paused", paused),
    ]
}

/// The first broker that recovers its logs, and its progress.
fn recovers(findings: &Findings) -> Option<String> {
    let mut far = findings
        .pods
        .iter()
        .filter_map(|pod| Some(format!("broker {} {}", pod.id, pod.recovers.as_ref()?)));
    far.next()
}

/// Counts of the brokers that the spec wants.
struct Brokers {
    wanted: usize,
    serving: usize,
    /// Brokers without replicas that are starting.
    new: usize,
    /// Brokers that are down without a plan, or that cannot start.
    lost: usize,
}

impl Brokers {
    fn of(cluster: &KafkaCluster, state: Option<&State>, findings: &Findings) -> Self {
        let wanted = cluster.spec.brokers.replicas;
        let mut brokers = Self {
            wanted: usize::try_from(wanted).unwrap_or_default(),
            serving: 0,
            new: 0,
            lost: 0,
        };
        let all = |state: &State| -> std::collections::BTreeSet<i32> {
            let partitions = state.topics.values().flat_map(|topic| &topic.partitions);
            partitions.flat_map(|partition| &partition.replicas).map(|id| id.0).collect()
        };
        let holders = state.map(all).unwrap_or_default();
        // While the pass fails, a volume is missing or a name is taken, no broker starts.
        let is_kept_away = findings.failed.is_some()
            || findings.unbound.is_some()
            || findings.taken.as_ref().is_some_and(|taken| !taken.is_empty());
        let has_trouble = |id: i32| {
            let pod = findings.pods.iter().find(|pod| pod.id == id);
            is_kept_away || pod.map_or(!findings.troubles.is_empty(), |pod| pod.trouble.is_some())
        };
        for id in 0..wanted {
            if state.is_some_and(|state| state.is_usable(BrokerId(id))) {
                brokers.serving += 1;
            } else if findings.away.contains(&id) {
            } else if !holders.contains(&id) && !has_trouble(id) {
                brokers.new += 1;
            } else {
                brokers.lost += 1;
            }
        }
        brokers
    }
}

/// The number of partitions with a replica out of sync. It excludes replicas that a reassignment
/// adds, and those on brokers that are down as planned.
fn missing_replicas(state: Option<&State>, findings: &Findings) -> usize {
    let lacks = |partition: &&Partition| {
        partition.replicas.iter().any(|id| {
            !partition.isr.contains(id)
                && !partition.adding.contains(id)
                && !findings.away.contains(&id.0)
        })
    };
    let partitions = state
        .into_iter()
        .flat_map(|state| state.topics.values())
        .flat_map(|topic| &topic.partitions);
    partitions.filter(lacks).count()
}

fn available(
    state: Option<&State>,
    brokers: &Brokers,
    findings: &Findings,
    partitions: &PartitionSummary,
    trouble: Option<&String>,
) -> ConditionValue {
    let said = |else_: &str| trouble.cloned().unwrap_or_else(|| else_.to_owned());
    let Some(state) = state else {
        // A trouble that keeps a broker down explains why the recovery waits.
        if let Some(Stage::Waits(reason) | Stage::Refused(reason)) = &findings.recovering {
            let trouble = trouble.map(|trouble| format!("; {trouble}")).unwrap_or_default();
            return ConditionValue::fails(RECOVERING, format!("{reason}{trouble}"));
        }
        return ConditionValue::fails("NoController", said("the controller is starting"));
    };
    let is_away = |id: &BrokerId| findings.away.contains(&id.0);
    let mut offline = state
        .topics
        .values()
        .flat_map(|topic| &topic.partitions)
        .filter(|partition| partition.leader.is_none());
    if brokers.serving == 0 && brokers.lost == 0 {
        let (reason, message) = if brokers.new > 0 {
            ("Starting", "no broker serves yet")
        } else {
            ("Restarting", "the brokers are being restarted")
        };
        ConditionValue::fails(reason, message)
    } else if brokers.serving == 0 {
        ConditionValue::fails("NoBroker", said("no broker serves yet"))
    } else if partitions.offline > 0
        && offline.all(|partition| partition.replicas.iter().any(is_away))
    {
        let message = format!(
            "{} of {} partitions have no leader until a broker has been restarted",
            partitions.offline, partitions.total
        );
        ConditionValue::fails("Restarting", message)
    } else if partitions.offline > 0 {
        let message = format!(
            "{} of {} partitions have no leader: `kubectl get topics` shows of which topics",
            partitions.offline, partitions.total
        );
        ConditionValue::fails("PartitionsOffline", message)
    } else {
        ConditionValue::holds("Available", "every partition has a leader")
    }
}

/// The progress of a recovery of the tables from the brokers' volumes; `None` if unknown.
fn recovering(state: Option<&State>, findings: &Findings) -> Option<ConditionValue> {
    match (&findings.recovering, state) {
        (Some(Stage::Waits(reason)), _) => {
            Some(ConditionValue::holds("WaitsForBrokers", reason.clone()))
        }
        (Some(Stage::Refused(reason)), _) => {
            Some(ConditionValue::holds("CannotRecover", reason.clone()))
        }
        (_, Some(_)) => Some(ConditionValue::fails(
            "HasTables",
            "the partition tables are there: spec.recoverFrom does nothing",
        )),
        (_, None) => None,
    }
}

fn drain_blocked(state: &State, replicas: i32, findings: &Findings) -> ConditionValue {
    match drain(state, replicas, &findings.away) {
        Drain::Allowed(message) => ConditionValue::fails("AsWanted", message),
        Drain::Restarting(message) => ConditionValue::holds("Restarting", message),
        Drain::Blocked(reason, message) => ConditionValue::holds(reason, message),
    }
}

fn listeners_ready(cluster: &KafkaCluster, findings: &Findings) -> ConditionValue {
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
            "Addressed",
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

#[cfg(test)]
mod tests;
