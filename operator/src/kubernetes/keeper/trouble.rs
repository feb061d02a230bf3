//! PURE: why a pod does not serve, according to its status and its events, in words for people.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Event, Pod, PodCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::super::objects::CONTAINER;

/// The most characters of a broker's log line or of an event in a condition.
const LAST_WORDS_MAX: usize = 300;

/// A container with this many restarts, the last of them recent, counts as ending repeatedly.
const AGAIN_AND_AGAIN: i32 = 3;

/// After a container has run this long, in seconds, the kubelet resets its back-off.
const BACK_OFF_SECONDS: i64 = 600;

/// How long a pod may take to get its volumes and its network before its events are read, in
/// seconds. Things missing at first often come by themselves.
const BEGINS_SECONDS: i64 = 10;

/// How long a pod may wait for a node before that counts, in seconds. The scheduler refuses a new pod
/// whose claim is not there yet, or is being written, and takes it a moment later.
const PLACED_SECONDS: i64 = 10;

/// The kubelet retries, and reports in events, at least every two minutes. An older event no longer
/// counts; in seconds.
const EVENT_SECONDS_MAX: i64 = 180;

/// Reasons of waiting containers that resolve without a person.
const BEGINNING: [&str; 3] = ["", "ContainerCreating", "PodInitializing"];

/// Why a pod does not run.
pub(super) fn trouble(name: &str, pod: &Pod, now: &Time) -> Option<String> {
    let status = pod.status.as_ref()?;
    if let Some(condition) = unscheduled(pod) {
        if is_being_placed(condition, now) {
            return None;
        }
        let why = condition.message.as_deref().unwrap_or("no reason is given");
        return Some(format!("pod {name} cannot be placed on a node: {why}"));
    }
    // For example, it was evicted.
    if status.phase.as_deref() == Some("Failed") {
        let reason = status.reason.as_deref().unwrap_or("Failed");
        let message = status.message.as_deref().unwrap_or("no reason is given");
        return Some(format!("pod {name}: {reason}: {message}"));
    }
    containers(pod).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().unwrap_or_default();
        if BEGINNING.contains(&reason) {
            return None;
        }
        let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let message = ended.map(|ended| why_ended(pod, container, ended));
        let message = message.or_else(|| waiting.message.clone()).unwrap_or_default();
        let hint = match reason {
            "CrashLoopBackOff" => says_more(name, container),
            "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" if is_broker(container) => {
                "; correct spec.image".to_owned()
            }
            _ => String::new(),
        };
        Some(format!("{}: {reason}: {message}{hint}", of(name, container)))
    })
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
        let message: String =
            last.message.iter().flat_map(|text| text.trim().chars()).take(LAST_WORDS_MAX).collect();
        format!("pod {name}: {reason}: {message}")
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
        _ => line.trim().to_owned(),
    };
    Some(said.chars().take(LAST_WORDS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::{Timestamp, ToSpan};
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> Time {
        Time(Timestamp::UNIX_EPOCH + seconds.seconds())
    }

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "orders-1"},
            "spec": {
                "initContainers": [{"name": "copy"}],
                "containers": [{"name": "broker", "resources": {"limits": {"memory": "128Mi"}}}, {"name": "proxy"}],
            },
            "status": status,
        }))
        .unwrap()
    }

    fn container(name: &str, state: Value, last: Value, restarts: i32) -> Value {
        json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state, "lastState": last})
    }

    fn ended(reason: &str, code: i32, said: Option<&str>) -> Value {
        json!({"terminated": {"reason": reason, "exitCode": code, "message": said, "finishedAt": "1970-01-01T00:16:40Z"}})
    }

    fn waits(reason: &str) -> Value {
        json!({"waiting": {"reason": reason, "message": "m"}})
    }

    #[test]
    fn trouble_is_said_with_what_helps() {
        let of = |containers: Value| json!({"containerStatuses": containers});
        let waiting = |reason: &str| of(json!([container("broker", waits(reason), json!({}), 0)]));
        let again =
            |last: Value| of(json!([container("broker", waits("CrashLoopBackOff"), last, 4)]));
        let beside = |name: &str, reason: &str| {
            json!([
                container("broker", waits("PodInitializing"), json!({}), 0),
                container(name, waits(reason), json!({}), 0)
            ])
        };
        let logged = format!(
            "{}\n{}\n",
            json!({"level": "INFO"}),
            json!({"level": "ERROR", "message": "the broker stops", "error": "open the log directory: it belongs to another"})
        );
        let cases = [
            (json!({}), None),
            (waiting("ContainerCreating"), None),
            (
                waiting("ImagePullBackOff"),
                Some("pod orders-1: ImagePullBackOff: m; correct spec.image"),
            ),
            (
                waiting("CrashLoopBackOff"),
                Some(
                    "pod orders-1: CrashLoopBackOff: m; `kubectl logs orders-1 --previous` says more",
                ),
            ),
            (
                again(ended("Error", 1, Some(&logged))),
                Some(
                    "pod orders-1: CrashLoopBackOff: open the log directory: it belongs to another; `kubectl logs orders-1 --previous` says more",
                ),
            ),
            (
                again(ended("Error", 139, Some("Segmentation fault\n\n"))),
                Some(
                    "pod orders-1: CrashLoopBackOff: Segmentation fault; `kubectl logs orders-1 --previous` says more",
                ),
            ),
            // The last log line before an OOM kill is unrelated.
            (
                again(ended("OOMKilled", 137, Some("{\"message\": \"all is well\"}"))),
                Some(
                    "pod orders-1: CrashLoopBackOff: OOMKilled: it took more than its memory limit, 128Mi: raise spec.brokers.resources.limits.memory; `kubectl logs orders-1 --previous` says more",
                ),
            ),
            (
                again(ended("Error", 137, Some("{\"message\": \"all is well\"}"))),
                Some(
                    "pod orders-1: CrashLoopBackOff: Error, exit code 137, signal 9; `kubectl logs orders-1 --previous` says more",
                ),
            ),
            (
                again(ended("StartError", 128, Some("no such user"))),
                Some(
                    "pod orders-1: CrashLoopBackOff: StartError: no such user; `kubectl logs orders-1 --previous` says more",
                ),
            ),
            (
                again(ended("Completed", 0, None)),
                Some(
                    "pod orders-1: CrashLoopBackOff: Completed, exit code 0; `kubectl logs orders-1 --previous` says more",
                ),
            ),
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]}),
                Some("pod orders-1 cannot be placed on a node: 0/3 nodes"),
            ),
            (
                json!({"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"}),
                Some("pod orders-1: Evicted: the node was low on memory"),
            ),
            // A sidecar and an init container.
            (
                of(beside("proxy", "ErrImagePull")),
                Some("pod orders-1, container proxy: ErrImagePull: m"),
            ),
            (
                json!({"initContainerStatuses": [container("copy", waits("CrashLoopBackOff"), ended("Error", 2, None), 3)], "containerStatuses": beside("proxy", "PodInitializing")}),
                Some(
                    "pod orders-1, container copy: CrashLoopBackOff: Error, exit code 2; `kubectl logs orders-1 -c copy --previous` says more",
                ),
            ),
        ];
        for (status, said) in cases {
            assert_eq!(
                trouble("orders-1", &pod(status.clone()), &at(200)).as_deref(),
                said,
                "{status}"
            );
        }
    }

    #[test]
    fn one_that_was_refused_a_node_a_moment_ago_is_being_placed() {
        let pod = pod(json!({"conditions": [{
            "type": "PodScheduled", "status": "False", "message": "claim \"data-orders-1\" not found",
            "lastTransitionTime": at(100),
        }]}));
        assert_eq!(trouble("orders-1", &pod, &at(109)), None);
        assert_eq!(begins(&pod, &at(109)), Some(at(100)), "it is looked at again");
        let said = trouble("orders-1", &pod, &at(110)).unwrap();
        assert!(said.ends_with("cannot be placed on a node: claim \"data-orders-1\" not found"));
        assert_eq!(begins(&pod, &at(110)), None);
    }

    #[test]
    fn one_that_ended_is_told_of_while_it_is_started_anew() {
        let status = |state: Value, last: Value, restarts: i32| {
            pod(json!({"containerStatuses": [container("broker", state, last, restarts)]}))
        };
        let killed = || ended("OOMKilled", 137, None);
        let said = |pod: &Pod| crashed("orders-1", pod).unwrap_or_default();
        let why = "OOMKilled: it took more than its memory limit, 128Mi: raise spec.brokers.resources.limits.memory; `kubectl logs orders-1 --previous` says more";
        assert_eq!(
            said(&status(killed(), json!({}), 0)),
            format!("pod orders-1 ended, and was restarted 0 times: {why}")
        );
        let mut runs = status(json!({"running": {}}), killed(), 4);
        assert_eq!(said(&runs), format!("pod orders-1 ended, and was restarted 4 times: {why}"));
        runs.metadata.deletion_timestamp = Some(at(0));
        assert_eq!(said(&runs), "", "it is to end");
        let in_order =
            |restarts| status(json!({"running": {}}), ended("Completed", 0, None), restarts);
        assert_eq!(said(&in_order(1)), "");
        assert!(said(&in_order(3)).contains("Completed, exit code 0"));
        assert_eq!(said(&status(json!({"running": {}}), json!({}), 0)), "");
        // It is ready.
        let mut serves = status(json!({"running": {}}), killed(), 4);
        let ready = |pod: &mut Pod| {
            pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].ready = true;
        };
        ready(&mut serves);
        assert_eq!(said(&serves), "");
        let again = |pod: &Pod, now: i64| restarts("orders-1", pod, &at(now)).unwrap_or_default();
        assert_eq!(again(&serves, 1_300), format!("pod orders-1 was restarted 4 times: {why}"));
        assert_eq!(again(&serves, 1_000 + BACK_OFF_SECONDS), "", "that is long ago");
        let mut once = status(json!({"running": {}}), killed(), 1);
        ready(&mut once);
        assert_eq!(again(&once, 1_300), "");
    }

    #[test]
    fn one_that_does_not_begin_is_told_of_by_its_last_event() {
        let event = |kind: &str, reason: &str, seconds: i64| -> Event {
            serde_json::from_value(json!({
                "metadata": {}, "involvedObject": {}, "type": kind, "reason": reason, "message": "no room\n", "lastTimestamp": at(seconds),
            }))
            .unwrap()
        };
        let said =
            |events: &[Event]| told_by_events("orders-1", events, &at(200)).unwrap_or_default();
        let failed = || event("Warning", "FailedCreatePodSandBox", 150);
        assert_eq!(said(&[]), "");
        assert_eq!(said(&[failed()]), "pod orders-1: FailedCreatePodSandBox: no room");
        assert_eq!(
            said(&[failed(), event("Normal", "SandboxChanged", 160)]),
            "pod orders-1: FailedCreatePodSandBox: no room"
        );
        assert_eq!(said(&[failed(), event("Normal", "Pulling", 160)]), "", "it goes on");
        assert_eq!(said(&[event("Warning", "FailedMount", 10)]), "", "that is over");
        let newer: Event = serde_json::from_value(json!({
            "metadata": {}, "involvedObject": {}, "type": "Normal", "reason": "Scheduled", "eventTime": "1970-01-01T00:02:50.000000Z",
        }))
        .unwrap();
        assert_eq!(said(&[failed(), newer]), "");

        let begin = |state: Value, restarts: i32| {
            pod(
                json!({"startTime": at(100), "containerStatuses": [container("broker", state, json!({}), restarts)]}),
            )
        };
        assert_eq!(begins(&begin(waits("ContainerCreating"), 0), &at(200)), Some(at(100)));
        assert!(is_late(&at(100), &at(110)) && !is_late(&at(100), &at(109)));
        let silent = pod(json!({"startTime": at(100)}));
        assert_eq!(begins(&silent, &at(200)), Some(at(100)), "its node has said nothing");
        assert_eq!(begins(&pod(json!({})), &at(200)), None, "it is on no node");
        assert_eq!(begins(&begin(json!({"running": {}}), 0), &at(200)), None);
        assert_eq!(begins(&begin(waits("CrashLoopBackOff"), 1), &at(200)), None);
    }
}
