//! The trouble of a pod in each case.

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
    let again = |last: Value| of(json!([container("broker", waits("CrashLoopBackOff"), last, 4)]));
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
        (waiting("ErrImagePull"), Some("pod orders-1: ImagePullBackOff: m; correct spec.image")),
        (
            waiting("CrashLoopBackOff"),
            Some("pod orders-1: CrashLoopBackOff: m; `kubectl logs orders-1 --previous` says more"),
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
        (json!({"phase": "Failed"}), Some("pod orders-1: Failed: no reason is given")),
        (
            json!({"phase": "Failed", "containerStatuses": [container("proxy", ended("Error", 3, Some("no key")), json!({}), 0)]}),
            Some("pod orders-1: Failed: container proxy: no key"),
        ),
        (
            json!({"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True", "message": "preempted"}]}),
            Some("pod orders-1: Failed: preempted"),
        ),
        // A sidecar and an init container.
        (
            of(beside("proxy", "ErrImagePull")),
            Some("pod orders-1, container proxy: ImagePullBackOff: m"),
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
    let in_order = |restarts| status(json!({"running": {}}), ended("Completed", 0, None), restarts);
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
    let said = |events: &[Event]| told_by_events("orders-1", events, &at(200)).unwrap_or_default();
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

#[test]
fn events_say_which_probe_fails_and_why_a_pod_failed() {
    let event = |kind: &str, reason: &str, message: &str, seconds: i64| -> Event {
        serde_json::from_value(json!({
            "metadata": {}, "involvedObject": {}, "type": kind, "reason": reason, "message": message, "lastTimestamp": at(seconds),
        }))
        .unwrap()
    };
    let said = |trouble: Option<&str>, events: &[Event]| {
        with_events("c-1", trouble.map(str::to_owned), events, &at(300)).unwrap_or_default()
    };
    let startup = || event("Warning", "Unhealthy", "Startup probe failed: connection refused", 200);
    let killed = || {
        event("Normal", "Killing", "Container broker failed liveness probe, will be restarted", 250)
    };
    assert_eq!(said(None, &[startup()]), "pod c-1: Startup probe failed: connection refused");
    assert_eq!(
        said(Some("pod c-1 ended: Error, exit code 137, signal 9"), &[startup(), killed()]),
        "pod c-1 ended: Error, exit code 137, signal 9; Container broker failed liveness probe, will be restarted"
    );
    let readiness = event("Warning", "Unhealthy", "Readiness probe failed: 503", 290);
    assert_eq!(said(None, &[readiness]), "", "one that starts is not ready");
    assert_eq!(said(None, &[event("Warning", "Unhealthy", "Startup probe failed", 10)]), "");
    let silent = "pod c-1: Failed: no reason is given";
    assert_eq!(said(Some(silent), &[]), silent);
    let preempted = event("Warning", "NodeNotReady", "its node is not ready", 10);
    assert_eq!(said(Some(silent), &[preempted]), "pod c-1: Failed: its node is not ready");

    let runs = |ready: bool, restarts: i32| {
        let mut container =
            container("broker", json!({"running": {"startedAt": at(100)}}), json!({}), restarts);
        container["ready"] = json!(ready);
        pod(json!({"containerStatuses": [container]}))
    };
    let asks = |pod: &Pod, now: i64| asks_for_events(pod, None, &at(now));
    assert!(
        asks(&runs(false, 0), 110) && !asks(&runs(false, 0), 109) && asks(&runs(false, 1), 101)
    );
    assert!(!asks(&runs(true, 1), 300));
    assert!(asks_for_events(&pod(json!({})), Some(&silent.to_owned()), &at(0)));
}
