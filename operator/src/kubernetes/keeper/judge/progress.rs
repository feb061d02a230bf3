//! PURE: the progress of a cluster towards its spec, and what needs a person.

use weir_crds::KafkaCluster;
use weir_protocol::types::BrokerId;

use super::super::observation::Observation;
use super::super::rollout::Step;
use super::super::table_recovery::Stage;
use super::name_taken::{NAME_TAKEN, name_taken};
use crate::controller::state::State;

const STORAGE_TROUBLE: &str = "StorageMismatch";

const SCALE_DOWN_BLOCKED: &str = "ScaleDownBlocked";

const SCALING_DOWN: &str = "ScalingDown";

/// The reason after the deadline, as that of a Deployment.
pub(in super::super) const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";

/// A reason in one word, and a sentence.
pub(super) type Said = (&'static str, String);

/// The progress of a cluster towards its spec. Both fields may be set: a stuck part does not stop
/// the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// What continues by itself.
    pub(super) under_way: Option<Said>,
    /// What needs a person.
    pub(super) stuck: Option<Said>,
}

pub(super) fn progress(
    cluster: &KafkaCluster,
    state: Option<&State>,
    findings: &Observation,
) -> Progress {
    until_the_deadline(going_on(cluster, state, findings), findings)
}

/// The progress, however long it has lasted.
fn going_on(cluster: &KafkaCluster, state: Option<&State>, findings: &Observation) -> Progress {
    if let Some(error) = &findings.failed {
        let said = (
            "Failed",
            format!("what the spec says cannot be carried out, and is tried again: {error}"),
        );
        let (under_way, stuck) =
            if findings.refused { (None, Some(said)) } else { (Some(said), None) };
        return Progress { under_way, stuck };
    }
    if findings.paused {
        let message = "what is written in the spec waits until spec.paused is false";
        return Progress { under_way: None, stuck: Some(("Paused", message.to_owned())) };
    }
    let (under_way, stuck) = (under_way(cluster, state, findings), stuck(findings));
    Progress {
        under_way: under_way
            .filter(|said| stuck.as_ref().is_none_or(|stuck| !waits_for(said, stuck, findings))),
        stuck,
    }
}

/// Whether something goes on that has a deadline. Replicas that an administrator moves have none:
/// their number of bytes and their throttle decide how long that takes.
pub(in super::super) fn is_under_way(
    cluster: &KafkaCluster,
    state: Option<&State>,
    findings: &Observation,
) -> bool {
    let under_way = going_on(cluster, state, findings).under_way;
    under_way.is_some_and(|(reason, _)| reason != SCALING_DOWN)
}

/// As [`Progress`], but what has not advanced until its deadline needs a person.
fn until_the_deadline(progress: Progress, findings: &Observation) -> Progress {
    match (progress.under_way, findings.overdue) {
        (Some((reason, message)), Some(deadline)) if reason != SCALING_DOWN => {
            let seconds = deadline.as_secs();
            let late = format!(
                "nothing has advanced for {seconds} s (spec.brokers.progressDeadlineSeconds): {message}"
            );
            let stuck = match progress.stuck {
                Some((reason, message)) => (reason, format!("{message}; and {late}")),
                None => (DEADLINE_EXCEEDED, late),
            };
            Progress { under_way: None, stuck: Some(stuck) }
        }
        (under_way, _) => Progress { under_way, stuck: progress.stuck },
    }
}

/// Whether the part in progress waits for the stuck one.
fn waits_for(under_way: &Said, stuck: &Said, findings: &Observation) -> bool {
    match under_way.0 {
        "Starting" => match stuck.0 {
            SCALE_DOWN_BLOCKED => false,
            STORAGE_TROUBLE => findings.unbound.is_some(),
            _ => true,
        },
        "Progressing" => ["CannotRecover", "Refused", NAME_TAKEN].contains(&stuck.0),
        _ => false,
    }
}

fn stuck(findings: &Observation) -> Option<Said> {
    if let Some(Stage::Refused(reason)) = &findings.recovering {
        return Some(("CannotRecover", reason.clone()));
    }
    if let Some(refusal) = &findings.refusal {
        return Some(("Refused", refusal.clone()));
    }
    if let Some(taken) = findings.taken.as_deref().filter(|taken| !taken.is_empty()) {
        return Some((NAME_TAKEN, name_taken(taken).message));
    }
    if let Some(reason) = findings.storage_trouble() {
        return Some((STORAGE_TROUBLE, reason.clone()));
    }
    if let Some(Step::Blocked(reason)) = &findings.rollout {
        return Some((
            "RolloutBlocked",
            format!("brokers are to be restarted, and none may: {reason}"),
        ));
    }
    let scale_down = findings.scale_down.as_ref().filter(|_| !findings.moving);
    scale_down.map(|reason| (SCALE_DOWN_BLOCKED, reason.clone()))
}

fn under_way(
    cluster: &KafkaCluster,
    state: Option<&State>,
    findings: &Observation,
) -> Option<Said> {
    if let Some(Stage::Waits(reason)) = &findings.recovering {
        return Some(("Recovering", reason.clone()));
    }
    if !findings.taken_up {
        return Some(("Progressing", "the controller has not taken up the spec yet".to_owned()));
    }
    pods(state, findings)
        .or_else(|| findings.growing.as_ref().map(|growing| ("GrowingVolumes", growing.clone())))
        .or_else(|| scaling_down(cluster, state, findings))
}

/// Whether a broker is as the spec wants it: its pod has the template, and is ready, and it serves.
pub(in super::super) fn is_as_wanted(
    id: i32,
    state: Option<&State>,
    findings: &Observation,
) -> bool {
    let pod = findings.pods.iter().find(|pod| pod.id == id);
    pod.is_some_and(|pod| pod.outdated == Some(false) && !pod.terminating && pod.ready)
        && state.is_some_and(|state| state.is_usable(BrokerId(id)))
}

/// The progress of the pods: each broker has one, it matches the spec, and the broker serves.
/// Services select it once Kubernetes finds it ready too.
fn pods(state: Option<&State>, findings: &Observation) -> Option<Said> {
    let pod = |id: i32| findings.pods.iter().find(|pod| pod.id == id);
    let serves = |id: i32| state.is_some_and(|state| state.is_usable(BrokerId(id)));
    let total = findings.replicas;
    let waiting: Vec<i32> = (0..total).filter(|id| !is_as_wanted(*id, state, findings)).collect();
    let first = *waiting.first()?;
    let done = usize::try_from(total).unwrap_or_default() - waiting.len();
    let so_far = format!("{done} of {total} brokers are as the spec wants them");
    let said = |reason: &'static str, what: String| Some((reason, format!("{so_far}: {what}")));
    match &findings.rollout {
        Some(Step::Restart { id, .. }) => {
            return said("RollingOut", format!("broker {id} is being restarted"));
        }
        Some(Step::Wait(reason)) => {
            return said("RolloutWaits", format!("the next one to be restarted waits: {reason}"));
        }
        Some(Step::Done | Step::Blocked(_)) | None => {}
    }
    if let Some(id) = waiting.iter().find(|id| findings.away.contains(id)) {
        return said("RollingOut", format!("broker {id} is being restarted"));
    }
    let is_ready = |id: i32| pod(id).is_some_and(|pod| pod.ready) && serves(id);
    if let Some(away) = waiting.iter().copied().find(|id| !is_ready(*id)) {
        let recovers = pod(away)
            .and_then(|pod| pod.recovers.as_ref())
            .map(|far| format!("broker {away} {far}"));
        let trouble = pod(away).and_then(|pod| pod.trouble.clone()).or(recovers);
        let trouble = trouble.or_else(|| findings.troubles.first().cloned());
        return said(
            "Starting",
            trouble.unwrap_or_else(|| format!("broker {away} does not serve yet")),
        );
    }
    // It serves. Whether it matches the spec is known once the StatefulSet controller has observed
    // the change.
    pod(first)
        .filter(|pod| pod.outdated.is_none())
        .and_then(|_| said("Progressing", "what was applied is being taken up".to_owned()))
}

/// Brokers to be removed that still exist.
fn scaling_down(
    cluster: &KafkaCluster,
    state: Option<&State>,
    findings: &Observation,
) -> Option<Said> {
    if let Some(reason) = findings.scale_down.as_ref() {
        return findings.moving.then(|| (SCALING_DOWN, reason.clone()));
    }
    let wanted = cluster.spec.brokers.replicas;
    let pods = findings.pods.iter().map(|pod| pod.id);
    let registered = state.into_iter().flat_map(|state| state.brokers.keys()).map(|id| id.0);
    let left: std::collections::BTreeSet<i32> =
        pods.chain(registered).filter(|id| *id >= wanted).collect();
    let ids: Vec<String> = left.iter().map(ToString::to_string).collect();
    (!ids.is_empty()).then(|| {
        (SCALING_DOWN, format!("brokers that hold nothing any more go: {}", ids.join(", ")))
    })
}
