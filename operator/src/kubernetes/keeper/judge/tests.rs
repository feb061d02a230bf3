//! A cluster's status in each case, and which changes become events.

use k8s_openapi::jiff::{Timestamp, ToSpan};
use kube::api::ObjectMeta;
use serde_json::{Value, json};
use uuid::Uuid;
use weir_crds::ListenerStatus;
use weir_protocol::types::BrokerEpoch;

use super::super::pods::PodView;
use super::super::rollout::Step;
use super::*;
use crate::controller::state::{Broker, Change, Cluster};
use crate::store::kube::ours::Taken;

mod gitops;
mod name_taken;

fn cluster(spec: Value) -> KafkaCluster {
    serde_json::from_value(json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "c", "namespace": "n", "generation": 7}, "spec": spec,
    }))
    .unwrap()
}

/// A state in which this many brokers serve.
fn state(cluster: &KafkaCluster, serving: i32) -> State {
    let mut state = State::new(Cluster::new("id".into(), cluster.clone()));
    for id in 0..serving {
        state.apply(&Change::NextBrokerEpoch(BrokerEpoch(i64::from(id) + 1)));
        state.apply(&Change::Broker(Broker {
            id: BrokerId(id),
            epoch: BrokerEpoch(i64::from(id)),
            incarnation: Uuid::from_u128(1),
            log_dir: Uuid::from_u128(2),
            endpoints: Vec::new(),
            rack: None,
            fenced: false,
            shutting_down: false,
        }));
    }
    state
}

fn addressed(listener: &str) -> ListenerStatus {
    ListenerStatus {
        name: listener.to_owned(),
        bootstrap: "k:1".to_owned(),
        ..ListenerStatus::default()
    }
}

fn found() -> Observation {
    let pod = |id| PodView { id, ready: true, outdated: Some(false), ..PodView::default() };
    Observation {
        pods: (0..3).map(pod).collect(),
        replicas: 3,
        taken_up: true,
        listeners: vec![addressed("plain")],
        ..Observation::default()
    }
}

/// The last pod cannot run.
fn broken() -> Observation {
    let mut findings = found();
    findings.pods[2].trouble = Some("pod c-2: ErrImagePull".to_owned());
    findings.troubles = vec!["pod c-2: ErrImagePull".to_owned()];
    findings
}

/// The last broker recovers its logs.
fn recovering() -> Observation {
    let mut findings = found();
    findings.pods[2].ready = false;
    findings.pods[2].recovers = Some("recovers its logs: 340 of 1200, 1 of 2 MiB".to_owned());
    findings
}

/// The pods of these brokers are not as the spec wants them.
fn outdated(ids: &[usize], step: Step) -> Observation {
    let mut findings = found();
    ids.iter().for_each(|id| findings.pods[*id].outdated = Some(true));
    findings.rollout = Some(step);
    findings
}

fn somebody_elses(kind: &str) -> Taken {
    Taken::of(kind, "n", "c", &ObjectMeta::default())
}

fn at(seconds: i64) -> Time {
    Time(Timestamp::UNIX_EPOCH + seconds.seconds())
}

/// `Kind=Status Reason: message` of a condition.
fn said(status: &KafkaClusterStatus, kind: &str) -> String {
    let condition = status.conditions.iter().find(|condition| condition.type_ == kind);
    condition.map_or_else(String::new, |c| {
        format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message)
    })
}

#[test]
fn what_is_wrong_comes_first() {
    let three = cluster(json!({"brokers": {"replicas": 3}}));
    let one_host = cluster(json!({
        "brokers": {"replicas": 3},
        "listeners": [{"name": "plain", "port": 9092}, {"name": "ext", "port": 9094, "type": "LoadBalancer", "host": "k.example"}],
    }));
    let outside = cluster(json!({
        "brokers": {"replicas": 3},
        "listeners": [{"name": "plain", "port": 9092}, {"name": "ext", "port": 9094, "type": "LoadBalancer"}],
    }));
    let failed = || Observation {
        failed: Some("apply Service c-0: exceeded quota".to_owned()),
        ..Observation::default()
    };
    let cases = [
        (
            &three,
            Some(3),
            found(),
            "Ready",
            "Ready=True Ready: every broker serves, and every partition has a leader",
        ),
        (&three, None, found(), "Ready", "Ready=False NoController: the controller is starting"),
        (
            &three,
            Some(3),
            {
                let mut findings = found();
                findings.pods.iter_mut().for_each(|pod| pod.ready = false);
                findings
            },
            "Ready",
            "Ready=False Starting: every partition has a leader, and Kubernetes has found no broker's pod ready yet: no service leads to one",
        ),
        // The brokers serve; a container beside them cannot run.
        (
            &three,
            Some(3),
            {
                let mut findings = broken();
                findings.pods.iter_mut().for_each(|pod| pod.ready = false);
                findings
            },
            "Ready",
            "Ready=False BrokersNotReady: every partition has a leader, and Kubernetes has found no broker's pod ready yet: no service leads to one: pod c-2: ErrImagePull",
        ),
        (
            &three,
            None,
            failed(),
            "Available",
            "Available=False NoController: apply Service c-0: exceeded quota",
        ),
        (&three, Some(0), found(), "Ready", "Ready=False Starting: no broker serves yet"),
        (
            &three,
            Some(2),
            broken(),
            "Ready",
            "Ready=False BrokersNotReady: 2 of 3 brokers serve: pod c-2: ErrImagePull",
        ),
        (
            &three,
            Some(0),
            Observation {
                troubles: vec!["pod c-2 cannot be placed".to_owned()],
                unbound: Some("there is no StorageClass".to_owned()),
                ..found()
            },
            "Ready",
            "Ready=False NoBroker: there is no StorageClass",
        ),
        (
            &three,
            Some(2),
            recovering(),
            "Ready",
            "Ready=False Starting: 2 of 3 brokers serve: broker 2 recovers its logs: 340 of 1200, 1 of 2 MiB",
        ),
        (
            &three,
            Some(2),
            recovering(),
            "Progressing",
            "Progressing=True Starting: 2 of 3 brokers are as the spec wants them: broker 2 recovers its logs: 340 of 1200, 1 of 2 MiB",
        ),
        // A broker that serves, and is killed every few minutes.
        (
            &three,
            Some(3),
            {
                let mut findings = found();
                findings.pods[1].restarts = Some("pod c-1 was restarted 4 times: why".to_owned());
                findings
            },
            "Degraded",
            "Degraded=True BrokersRestart: pod c-1 was restarted 4 times: why",
        ),
        // A cluster that serves, and whose spec cannot be applied.
        (
            &three,
            Some(3),
            failed(),
            "Ready",
            "Ready=True Failed: every partition has a leader; what the spec says cannot be carried out, and is tried again: apply Service c-0: exceeded quota",
        ),
        (
            &three,
            Some(2),
            failed(),
            "Ready",
            "Ready=False BrokersNotReady: 2 of 3 brokers serve: apply Service c-0: exceeded quota",
        ),
        (
            &three,
            Some(3),
            Observation { refusal: Some("spec.config.x: no".to_owned()), ..found() },
            "Ready",
            "Ready=True Refused: every partition has a leader; spec.config.x: no",
        ),
        (
            &three,
            Some(3),
            Observation {
                scale_down: Some("broker 3 holds replicas: move them".to_owned()),
                ..found()
            },
            "UpToDate",
            "UpToDate=False ScaleDownBlocked: broker 3 holds replicas: move them",
        ),
        (
            &three,
            Some(3),
            Observation {
                scale_down: Some("broker 3 holds replicas: move them".to_owned()),
                ..found()
            },
            "Ready",
            "Ready=True ScaleDownBlocked: every partition has a leader; broker 3 holds replicas: move them",
        ),
        (
            &three,
            Some(0),
            Observation { storage: Some("volumes cannot shrink".to_owned()), ..found() },
            "Available",
            "Available=False Starting: no broker serves yet",
        ),
        (
            &three,
            Some(3),
            outdated(&[0, 1], Step::Wait("broker 2 is not ready".to_owned())),
            "UpToDate",
            "UpToDate=False RolloutWaits: 1 of 3 brokers are as the spec wants them: the next one to be restarted waits: broker 2 is not ready",
        ),
        (
            &three,
            Some(3),
            outdated(&[1], Step::Blocked("t-0 would lack replicas".to_owned())),
            "Stalled",
            "Stalled=True RolloutBlocked: brokers are to be restarted, and none may: t-0 would lack replicas",
        ),
        (
            &three,
            Some(3),
            Observation { paused: true, ..found() },
            "UpToDate",
            "UpToDate=False Paused: what is written in the spec waits until spec.paused is false",
        ),
        (
            &three,
            Some(3),
            Observation { taken: Some(vec![somebody_elses("PodDisruptionBudget")]), ..found() },
            "UpToDate",
            "UpToDate=False NameTaken: the PodDisruptionBudget n/c was made by somebody else: it stays as it is, and the cluster goes without. Give it another name, or make the KafkaCluster anew under another",
        ),
        (
            &three,
            Some(3),
            Observation { taken: Some(vec![somebody_elses("PodDisruptionBudget")]), ..found() },
            "DrainBlocked",
            "DrainBlocked=Unknown NameTaken: the PodDisruptionBudget n/c was made by somebody else, so the cluster has none of its own: Kubernetes evicts brokers without regard to their partitions, or as that one says. By the partitions: one broker can be evicted at a time",
        ),
        (
            &three,
            Some(3),
            Observation { taken: Some(vec![somebody_elses("Service")]), ..found() },
            "DrainBlocked",
            "DrainBlocked=False AsExpected: one broker can be evicted at a time",
        ),
        (
            &three,
            Some(2),
            Observation {
                overdue: Some(std::time::Duration::from_secs(600)),
                ..outdated(&[0, 1], Step::Wait("broker 2 is not ready: pod c-2: why".to_owned()))
            },
            "Stalled",
            "Stalled=True ProgressDeadlineExceeded: nothing has advanced for 600 s (spec.brokers.progressDeadlineSeconds): 0 of 3 brokers are as the spec wants them: the next one to be restarted waits: broker 2 is not ready: pod c-2: why",
        ),
        (
            &three,
            Some(3),
            Observation {
                overdue: Some(std::time::Duration::from_secs(600)),
                scale_down: Some("broker 3 holds replicas".to_owned()),
                moving: true,
                ..found()
            },
            "Progressing",
            "Progressing=True ScalingDown: broker 3 holds replicas",
        ),
        (
            &three,
            Some(3),
            Observation { taken: Some(vec![somebody_elses("PodDisruptionBudget")]), ..found() },
            "Ready",
            "Ready=True NameTaken: every partition has a leader; the PodDisruptionBudget n/c was made by somebody else: it stays as it is, and the cluster goes without. Give it another name, or make the KafkaCluster anew under another",
        ),
        (
            &three,
            Some(2),
            Observation { taken: Some(vec![somebody_elses("PodDisruptionBudget")]), ..broken() },
            "Ready",
            "Ready=False BrokersNotReady: 2 of 3 brokers serve: pod c-2: ErrImagePull",
        ),
        (
            &three,
            Some(0),
            Observation {
                taken: Some(vec![somebody_elses("Service"), somebody_elses("StatefulSet")]),
                ..found()
            },
            "Ready",
            "Ready=False NoBroker: the StatefulSet n/c was made by somebody else: it stays as it is, and the cluster goes without. Give it another name, or make the KafkaCluster anew under another",
        ),
        (
            &three,
            Some(3),
            Observation { taken: Some(Vec::new()), ..found() },
            "NameTaken",
            "NameTaken=False AsExpected: every object of the cluster has its name",
        ),
        (
            &outside,
            Some(3),
            found(),
            "ListenersReady",
            "ListenersReady=False NoAddress: the listener ext has no address: its load balancer has none yet: is there anything in this Kubernetes cluster that provides load balancers?",
        ),
        (
            &one_host,
            Some(3),
            Observation { listeners: vec![addressed("plain"), addressed("ext")], ..found() },
            "ListenersReady",
            "ListenersReady=False OneHostForAll: clients of the listener ext are told one host for all brokers, each of which has a load balancer of its own: give a host with {broker}, or none",
        ),
        (
            &outside,
            Some(3),
            Observation { listeners: vec![addressed("plain"), addressed("ext")], ..found() },
            "ListenersReady",
            "ListenersReady=True AddressesAssigned: clients find an address of every listener in status.listeners",
        ),
    ];
    for (cluster, serving, findings, kind, expected) in cases {
        let state = serving.map(|serving| state(cluster, serving));
        let status =
            status_of(cluster, &KafkaClusterStatus::default(), state.as_ref(), &findings, &at(0));
        assert_eq!(said(&status, kind), expected);
        assert_eq!(status.observed_generation, Some(7));
    }
}

#[test]
fn a_pass_that_failed_says_nothing_of_what_it_did_not_see() {
    let cluster = cluster(json!({"brokers": {"replicas": 3}, "paused": true}));
    let state = state(&cluster, 3);
    let before = status_of(
        &cluster,
        &KafkaClusterStatus::default(),
        Some(&state),
        &Observation {
            storage: Some("a volume cannot shrink".to_owned()),
            paused: true,
            ..found()
        },
        &at(0),
    );
    let failed =
        Observation { failed: Some("no".to_owned()), paused: true, ..Observation::default() };
    let after = status_of(&cluster, &before, Some(&state), &failed, &at(9));
    assert_eq!((&after.brokers, &after.listeners), (&before.brokers, &before.listeners));
    for kind in ["StorageOk", "ListenersReady", "Paused", "Degraded"] {
        assert_eq!(said(&after, kind), said(&before, kind));
    }
    assert!(said(&after, "UpToDate").starts_with("UpToDate=False Failed"));
}

#[test]
fn that_the_state_came_from_a_backup_is_said_for_a_day() {
    let cluster = cluster(json!({"brokers": {"replicas": 3}}));
    let mut state = state(&cluster, 3);
    let mut status = KafkaClusterStatus::default();
    let mut is_said = |state: &State, now: i64| {
        status = status_of(&cluster, &status, Some(state), &found(), &at(now));
        !said(&status, ROLLED_BACK).is_empty()
    };
    assert!(!is_said(&state, 0));
    state.apply(&Change::RolledBack);
    assert!(is_said(&state, 10));
    state.rolled_back = false;
    assert!(is_said(&state, 9 + ROLLED_BACK_SECONDS), "another controller, which has not seen it");
    assert!(!is_said(&state, 10 + ROLLED_BACK_SECONDS));
}

#[test]
fn an_event_is_what_is_new() {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: None,
        last_transition_time: at(0),
    };
    let bad = |message: &str| condition("Ready", "False", "NoBroker", message);
    let good = condition("Ready", "True", "Ready", "1 of 2");
    let ok = |kind: &str, status: &str| condition(kind, status, "R", "m");
    let cases = [
        (None, bad("a"), true),
        (None, good.clone(), true),
        (Some(bad("pod 1")), bad("pod 2"), false),
        (Some(bad("no broker")), bad("no such class"), true),
        (Some(bad("a")), good.clone(), true),
        (Some(good.clone()), condition("Ready", "False", "Restarting", "broker 1"), true),
        (Some(ok("Stalled", "False")), ok("Stalled", "True"), true),
        (Some(good.clone()), condition("Ready", "True", "Ready", "2 of 2"), false),
        (None, ok("StorageOk", "True"), false),
        (None, ok("StorageOk", "False"), true),
        (None, ok("UpToDate", "False"), false),
        (None, ok(NAME_TAKEN, "False"), false),
        (None, ok(NAME_TAKEN, "True"), true),
        (Some(ok(NAME_TAKEN, "True")), ok(NAME_TAKEN, "False"), true),
        (None, ok(ROLLED_BACK, "True"), true),
        (Some(ok(ROLLED_BACK, "True")), ok(ROLLED_BACK, "True"), false),
    ];
    for (before, after, expected) in cases {
        let before: Vec<Condition> = before.into_iter().collect();
        assert_eq!(
            !news(&before, std::slice::from_ref(&after)).is_empty(),
            expected,
            "{before:?} {after:?}"
        );
    }
}

#[test]
fn faults_that_take_turns_are_told_once_until_all_is_well() {
    let ready = |status: &str, message: &str| Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: "R".to_owned(),
        message: message.to_owned(),
        observed_generation: None,
        last_transition_time: at(0),
    };
    let (mut told, mut before, mut events) = (Told::default(), Vec::new(), Vec::new());
    let (a, b, well) = (ready("False", "a 1"), ready("False", "b"), ready("True", "c"));
    for now in [&a, &b, &a, &ready("False", "a 2"), &b, &well, &a, &b] {
        let after = vec![now.clone()];
        let new = told.only_new(news(&before, &after));
        events.extend(new.into_iter().map(|condition| condition.message.clone()));
        told.forget(&after);
        before = after;
    }
    assert_eq!(events, ["a 1", "b", "c", "a 1", "b"]);
}
