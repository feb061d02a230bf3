//! PURE: the status of a cluster: brokers, partitions, listeners, the progress towards the spec,
//! and each fault with what helps.

mod brokers;
mod certificates;
mod drains;
mod kinds;
mod listeners;
mod name_taken;
mod news;
mod progress;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use weir_crds::{BrokerSummary, KafkaCluster, KafkaClusterStatus, PartitionSummary};
use weir_protocol::types::BrokerId;

use self::brokers::{Brokers, missing_replicas};
use self::certificates::certificates_valid;
use self::drains::drain_blocked;
use self::kinds::{CERTIFICATES_VALID, DRAIN_BLOCKED, RECOVERING, ROLLED_BACK};
use self::listeners::listeners_ready;
use self::name_taken::{NAME_TAKEN, name_taken};
pub(super) use self::news::{Told, is_good, is_wrong, news};
use self::progress::progress;
pub(super) use self::progress::{DEADLINE_EXCEEDED, is_as_wanted, is_under_way};
use super::super::objects::Names;
use super::super::sizes::shown;
use super::observation::Observation;
use super::table_recovery::Stage;
use crate::conditions::{ConditionValue, condition};
use crate::controller::state::State;
use crate::controller::summary;

/// How long the status says that the state came from a backup, in seconds.
const ROLLED_BACK_SECONDS: i64 = 24 * 3600;

/// Kinds of objects without which brokers do not run.
const KEEP_BROKERS_AWAY: [&str; 6] = [
    "PartitionTable",
    "ServiceAccount",
    "ConfigMap",
    "PersistentVolumeClaim",
    "StatefulSet",
    "Pod",
];

/// Computes the status.
pub(super) fn status_of(
    cluster: &KafkaCluster,
    before: &KafkaClusterStatus,
    state: Option<&State>,
    findings: &Observation,
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
    // A spec that is refused, or not carried out, is not the one that is served: who waits for
    // `Ready` of this generation goes on waiting.
    let ready_before = before.conditions.iter().find(|condition| condition.type_ == "Ready");
    let ready_of = ready_before.and_then(|condition| condition.observed_generation);
    let is_in_force = findings.failed.is_none() && findings.refusal.is_none();
    let said = |kind: &'static str, judgement: ConditionValue| {
        let is_of_before = kind == "Ready" && judgement.is_true() && !is_in_force;
        let of = if is_of_before { ready_of } else { generation };
        condition(kind, judgement, of, &before.conditions, now)
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
    let judged = [
        (DRAIN_BLOCKED, drain_blocked(state, there, findings, &before.conditions)),
        (NAME_TAKEN, findings.taken.as_ref().map(|taken| name_taken(taken))),
        (CERTIFICATES_VALID, certificates_valid(findings, now)),
    ];
    for (kind, judgement) in judged {
        match judgement {
            Some(judgement) => conditions.push(said(kind, judgement)),
            None => conditions.extend(
                before.conditions.iter().find(|condition| condition.type_ == kind).cloned(),
            ),
        }
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
        conditions.push(said(ROLLED_BACK, ConditionValue::holds("StateOlderThanBrokers", message)));
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
    findings: &Observation,
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
            "AsExpected",
            "no broker and no replica is missing that should be there",
        )
    };
    let progress = progress(cluster, state, findings);
    let up_to_date = match progress.stuck.as_ref().or(progress.under_way.as_ref()) {
        Some((reason, message)) => ConditionValue::fails(reason, message.clone()),
        None => ConditionValue::holds("AsExpected", "brokers are as the spec wants them"),
    };
    let progressing = match (&progress.under_way, &progress.stuck) {
        (Some((reason, message)), _) => ConditionValue::holds(reason, message.clone()),
        (None, Some((reason, message))) => ConditionValue::fails(reason, message.clone()),
        (None, None) => ConditionValue::fails("AsExpected", "nothing is under way"),
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
        None => ConditionValue::fails("AsExpected", "nothing waits for a person"),
    };
    let storage = match findings.storage_trouble() {
        Some(reason) => ConditionValue::fails("StorageMismatch", reason.clone()),
        None => ConditionValue::holds("AsExpected", "the volumes are as the spec wants them"),
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
fn recovers(findings: &Observation) -> Option<String> {
    let mut far = findings
        .pods
        .iter()
        .filter_map(|pod| Some(format!("broker {} {}", pod.id, pod.recovers.as_ref()?)));
    far.next()
}

fn available(
    state: Option<&State>,
    brokers: &Brokers,
    findings: &Observation,
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
fn recovering(state: Option<&State>, findings: &Observation) -> Option<ConditionValue> {
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

#[cfg(test)]
mod tests;
