//! PURE: why a pod does not serve, according to its status and its events, in words for people.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Event, Pod, PodCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::super::objects::CONTAINER;
use super::words::shortened;

/// The most characters of a broker's log line or of an event in a condition.
const LAST_WORDS_MAX: usize = 300;

/// A container with this many restarts, the last of them recent, counts as ending repeatedly.
const AGAIN_AND_AGAIN: i32 = 3;

/// After a container has run this long, in seconds, the kubelet resets its back-off.
const BACK_OFF_SECONDS: i64 = 600;

/// How long a pod may take to get its volumes and its network before its events are read, in
/// seconds. Things missing at first often come by themselves.
const BEGINS_SECONDS: i64 = 10;

/// How long a pod may wait for a node before that counts, in seconds. The scheduler refuses a new
/// pod whose claim is not there yet, or is being written, and takes it a moment later.
const PLACED_SECONDS: i64 = 10;

/// The kubelet retries, and reports in events, at least every two minutes. An older event no longer
/// counts; in seconds.
const EVENT_SECONDS_MAX: i64 = 180;

/// The end of what is said of a pod whose status has no reason.
const NO_REASON: &str = ": no reason is given";

/// Reasons of waiting containers that resolve without a person.
const BEGINNING: [&str; 3] = ["", "ContainerCreating", "PodInitializing"];

/// Why a pod does not run.
pub(super) fn trouble(name: &str, pod: &Pod, now: &Time) -> Option<String> {
    let status = pod.status.as_ref()?;
    if let Some(condition) = unscheduled(pod) {
        if is_being_placed(condition, now) {
            return None;
        }
        let why = condition.message.as_deref().or(condition.reason.as_deref());
        let why = why.unwrap_or("no reason is given");
        return Some(format!("pod {name} cannot be placed on a node: {why}"));
    }
    // For example, it was evicted.
    if status.phase.as_deref() == Some("Failed") {
        let reason = status.reason.as_deref().unwrap_or("Failed");
        let message = status.message.clone().or_else(|| why_failed(pod));
        // Its events may say more.
        return Some(match message {
            Some(message) => format!("pod {name}: {reason}: {message}"),
            None => format!("pod {name}: {reason}{NO_REASON}"),
        });
    }
    containers(pod).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().unwrap_or_default();
        if BEGINNING.contains(&reason) {
            return None;
        }
        let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let message = ended.map(|ended| why_ended(pod, container, ended));
        let waits_for = || waiting.message.as_deref().map(shortened);
        let message = message.or_else(waits_for).unwrap_or_default();
        // The kubelet goes from one to the other and back with each attempt.
        let (reason, message) = match reason {
            "ErrImagePull" | "ImagePullBackOff" if message.is_empty() => {
                ("ImagePullBackOff", format!("the image {} cannot be pulled", container.image))
            }
            "ErrImagePull" => ("ImagePullBackOff", message),
            _ => (reason, message),
        };
        let hint = match reason {
            "CrashLoopBackOff" => says_more(name, container),
            "ImagePullBackOff" if is_broker(container) => "; correct spec.image".to_owned(),
            "InvalidImageName" if is_broker(container) => {
                "; it does not pass by itself: correct spec.image".to_owned()
            }
            _ => String::new(),
        };
        Some(format!("{}: {reason}: {message}{hint}", of(name, container)))
    })
}

/// Why a pod ended that says no reason: its containers, or what disrupted it.
fn why_failed(pod: &Pod) -> Option<String> {
    let ended = containers(pod).find_map(|container| {
        let ended = ended(container.state.as_ref()).filter(|ended| ended.exit_code != 0)?;
        let why = why_ended(pod, container, ended);
        Some(match is_broker(container) {
            true => why,
            false => format!("container {}: {why}", container.name),
        })
    });
    let conditions = || pod.status.as_ref()?.conditions.as_ref();
    let disrupted = || conditions()?.iter().find(|condition| condition.type_ == "DisruptionTarget");
    ended.or_else(|| disrupted()?.message.clone())
}

/// The condition that says why the scheduler has found no node.
fn unscheduled(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions
        .into_iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
}

fn is_being_placed(unscheduled: &PodCondition, now: &Time) -> bool {
    let since = unscheduled.last_transition_time.as_ref();
    since.is_some_and(|since| now.0.duration_since(since.0).as_secs() < PLACED_SECONDS)
}

/// Why the container of a pod that is being restarted ended.
pub(super) fn crashed(name: &str, pod: &Pod) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = pod.status.as_ref()?;
    let mut away = status.container_statuses.iter().flatten().filter(|container| !container.ready);
    away.find_map(|container| {
        let ended = ended(container.state.as_ref()).or(ended(container.last_state.as_ref()))?;
        // After a clean stop it restarts without a fault.
        let restarts = container.restart_count;
        (ended.exit_code != 0 || restarts >= AGAIN_AND_AGAIN).then(|| {
            let why = why_ended(pod, container, ended);
            let more = says_more(name, container);
            format!(
                "{} ended, and was restarted {restarts} times: {why}{more}",
                of(name, container)
            )
        })
    })
}

/// Why a pod's container ends repeatedly, although it serves now.
pub(super) fn restarts(name: &str, pod: &Pod, now: &Time) -> Option<String> {
    let status = pod.status.as_ref()?;
    status.container_statuses.iter().flatten().find_map(|container| {
        let ended = ended(container.last_state.as_ref())?;
        let at = ended.finished_at.as_ref()?;
        let is_recent = now.0.duration_since(at.0).as_secs() < BACK_OFF_SECONDS;
        let restarts = container.restart_count;
        (is_recent && restarts >= AGAIN_AND_AGAIN).then(|| {
            let why = why_ended(pod, container, ended);
            let more = says_more(name, container);
            format!("{} was restarted {restarts} times: {why}{more}", of(name, container))
        })
    })
}

/// When the kubelet took a pod on, while none of its containers has started; or since when it waits
/// for a node, while that does not count.
pub(super) fn begins(pod: &Pod, now: &Time) -> Option<Time> {
    if let Some(condition) = unscheduled(pod).filter(|condition| is_being_placed(condition, now)) {
        return condition.last_transition_time.clone();
    }
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let has_begun = |container: &ContainerStatus| {
        let state = container.state.as_ref();
        container.restart_count > 0
            || state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    let is_begun = pod.metadata.deletion_timestamp.is_some() || containers(pod).any(has_begun);
    started.filter(|_| !is_begun).cloned()
}

/// Whether a pod has been starting for too long: only its events say why.
pub(super) fn is_late(since: &Time, now: &Time) -> bool {
    now.0.duration_since(since.0).as_secs() >= BEGINS_SECONDS
}

/// Why a pod does not start, from its latest event if that is a warning.
pub(super) fn told_by_events(name: &str, events: &[Event], now: &Time) -> Option<String> {
    // The kubelet reports this between two attempts.
    let telling = events.iter().filter(|event| event.reason.as_deref() != Some("SandboxChanged"));
    let last = telling.max_by_key(|event| at(event))?;
    let is_recent = now.0.duration_since(at(last)?.0).as_secs() < EVENT_SECONDS_MAX;
    let is_warning = last.type_.as_deref() == Some("Warning");
    (is_recent && is_warning).then(|| {
        let reason = last.reason.as_deref().unwrap_or("Warning");
        format!("pod {name}: {reason}: {}", message_of(last))
    })
}

fn message_of(event: &Event) -> String {
    let message = shortened(event.message.as_deref().unwrap_or_default());
    message.chars().take(LAST_WORDS_MAX).collect()
}

/// The trouble of a pod with what its events add: the liveness or startup probe that fails or has
/// had its container ended, and the reason of one whose status has none.
pub(super) fn with_events(
    name: &str,
    trouble: Option<String>,
    events: &[Event],
    now: &Time,
) -> Option<String> {
    if let Some(said) = trouble.as_ref().and_then(|said| said.strip_suffix(NO_REASON)) {
        let warnings = events.iter().filter(|event| event.type_.as_deref() == Some("Warning"));
        return match warnings.max_by_key(|event| at(event)) {
            Some(last) => Some(format!("{said}: {}", message_of(last))),
            None => trouble,
        };
    }
    let is_recent = |event: &&Event| {
        at(event).is_some_and(|at| now.0.duration_since(at.0).as_secs() < EVENT_SECONDS_MAX)
    };
    let probes = events.iter().filter(is_recent).filter(|event| is_of_a_probe(event));
    let Some(last) = probes.max_by_key(|event| at(event)) else { return trouble };
    let said = message_of(last);
    Some(match trouble {
        Some(trouble) => format!("{trouble}; {said}"),
        None => format!("pod {name}: {said}"),
    })
}

/// Whether an event says that the kubelet ends, or will end, a container because of a probe.
fn is_of_a_probe(event: &Event) -> bool {
    let message = event.message.as_deref().unwrap_or_default();
    ["Liveness probe", "Startup probe", "liveness probe", "startup probe"]
        .iter()
        .any(|probe| message.contains(probe))
}

/// Whether the events of a pod may say more than its status: it does not become ready, or its
/// status has no reason.
pub(super) fn asks_for_events(pod: &Pod, trouble: Option<&String>, now: &Time) -> bool {
    if trouble.is_some_and(|said| said.ends_with(NO_REASON)) {
        return true;
    }
    let is_stopping = pod.metadata.deletion_timestamp.is_some();
    let status = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut unready = status.filter(|container| !container.ready && !is_stopping);
    unready.any(|container| {
        let running = container.state.as_ref().and_then(|state| state.running.as_ref());
        let since = running.and_then(|running| running.started_at.as_ref());
        container.restart_count > 0 || since.is_some_and(|since| is_late(since, now))
    })
}

/// The latest time of an event. The scheduler's events have the newer form.
fn at(event: &Event) -> Option<Time> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let newer = series.or(event.event_time.as_ref()).map(|at| Time(at.0));
    event.last_timestamp.clone().max(newer)
}

fn ended(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state?.terminated.as_ref()
}

/// All containers, including init containers and sidecars, which a patch of the template may add.
fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| {
        let first = status.init_container_statuses.iter().flatten();
        first.chain(status.container_statuses.iter().flatten())
    })
}

fn is_broker(container: &ContainerStatus) -> bool {
    container.name == CONTAINER
}

/// The name of a container in messages; the broker's container goes by the pod's name.
fn of(name: &str, container: &ContainerStatus) -> String {
    if is_broker(container) {
        format!("pod {name}")
    } else {
        format!("pod {name}, container {}", container.name)
    }
}

fn says_more(name: &str, container: &ContainerStatus) -> String {
    let container =
        if is_broker(container) { String::new() } else { format!(" -c {}", container.name) };
    format!("; `kubectl logs {name}{container} --previous` says more")
}

/// Why a container ended: its last log line, unless Kubernetes gives a better reason.
fn why_ended(pod: &Pod, container: &ContainerStatus, ended: &ContainerStateTerminated) -> String {
    let reason = ended.reason.as_deref().unwrap_or_default();
    if reason == "OOMKilled" {
        let limit = memory_limit(pod, &container.name);
        let limit = limit.map(|limit| format!(", {limit}")).unwrap_or_default();
        let raise = if is_broker(container) {
            "raise spec.brokers.resources.limits.memory"
        } else {
            "raise it in spec.brokers.podTemplate"
        };
        return format!("OOMKilled: it took more than its memory limit{limit}: {raise}");
    }
    match (reason, last_words(ended)) {
        ("" | "Error", Some(words)) => words,
        (reason, Some(words)) => format!("{reason}: {words}"),
        (reason, None) => {
            let reason = if reason.is_empty() { "Error" } else { reason };
            // A signal ends a process with 128 and its number.
            let signal = ended.exit_code.checked_sub(128).filter(|signal| *signal > 0);
            let signal = signal.map(|signal| format!(", signal {signal}")).unwrap_or_default();
            format!("{reason}, exit code {}{signal}", ended.exit_code)
        }
    }
}

fn memory_limit(pod: &Pod, container: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut known = all.filter(|one| one.name == container);
    let limit = known.next()?.resources.as_ref()?.limits.as_ref()?.get("memory")?;
    Some(limit.0.clone())
}

/// The last line of a broker's log before it ended, as the kubelet keeps it. A JSON line has the
/// reason in a field; without that field, something other than the broker ended it.
fn last_words(ended: &ContainerStateTerminated) -> Option<String> {
    let said = ended.message.as_ref()?;
    let line = said.lines().rfind(|line| !line.trim().is_empty())?;
    let said = match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(fields)) => fields.get("error")?.as_str()?.to_owned(),
        _ => shortened(line),
    };
    Some(said.chars().take(LAST_WORDS_MAX).collect())
}

#[cfg(test)]
mod tests;
