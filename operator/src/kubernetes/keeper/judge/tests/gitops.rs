//! What `kubectl wait`, Flux and Argo CD conclude from the statuses of a creation, a rollout, a
//! change of size and a failure. None of them finishes too early, and none reports a fault that
//! does not exist.

use std::collections::BTreeSet;

use weir_protocol::types::TopicId;

use super::*;
use crate::controller::state::Partition;

/// The result of kstatus, which Flux uses: `pkg/kstatus/README.md` of kubernetes-sigs/cli-utils.
/// The generation comes first, then `Reconciling` and `Stalled` in the order of the list, then
/// `Ready`. A resource without any of them counts as current.
fn kstatus(object: &Value) -> &'static str {
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
    let observed = object.pointer("/status/observedGeneration").and_then(Value::as_i64);
    if observed.is_some() && observed != generation {
        return "InProgress";
    }
    let conditions =
        object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    for condition in conditions.iter().filter(|condition| condition["status"] == "True") {
        match condition["type"].as_str() {
            Some("Reconciling") => return "InProgress",
            Some("Stalled") => return "Failed",
            _ => {}
        }
    }
    match conditions.iter().find(|condition| condition["type"] == "Ready") {
        Some(ready) if ready["status"] != "True" => "InProgress",
        _ => "Current",
    }
}

/// The result of the script in docs/gitops.md for Argo CD.
fn argo(object: &Value) -> &'static str {
    if object.pointer("/status/observedGeneration") != object.pointer("/metadata/generation") {
        return "Progressing";
    }
    let holds = |kind: &str| {
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        conditions.is_some_and(|all| {
            all.iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
        })
    };
    let rules = [
        ("Paused", "Suspended"),
        ("Stalled", "Degraded"),
        ("Degraded", "Degraded"),
        ("Reconciling", "Progressing"),
        ("Ready", "Healthy"),
    ];
    rules.iter().find(|(kind, _)| holds(kind)).map_or("Progressing", |(_, health)| health)
}

/// Whether `kubectl wait --for=condition=KIND` is satisfied: only by a condition of the resource's
/// generation (`pkg/cmd/wait/condition.go` of kubernetes/kubectl).
fn waited_for(object: &Value, kind: &str) -> bool {
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition["type"] == kind
            && condition["status"] == "True"
            && condition["observedGeneration"].as_i64() >= generation
    })
}

/// Three brokers with a topic of three replicas; the brokers in `serving` are up.
fn with_topic(cluster: &KafkaCluster, serving: &[i32]) -> State {
    let mut state = state(cluster, 3);
    let id = TopicId(Uuid::from_u128(1));
    let topic = json!({"apiVersion": weir_crds::API_VERSION, "kind": "Topic", "metadata": {"name": "t"}, "spec": {"clusterRef": {"name": "c"}, "partitions": 1}});
    state.apply(&Change::Topic(id, Box::new(serde_json::from_value(topic).unwrap())));
    let all = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
    state.apply(&Change::Partition(id, 0, Partition::new(all(&[0, 1, 2]), all(serving))));
    for away in (0..3).filter(|id| !serving.contains(id)) {
        let broker = state.brokers[&BrokerId(away)].clone();
        state.apply(&Change::Broker(Broker { fenced: true, ..broker }));
    }
    state
}

fn without(mut findings: Observation, id: i32) -> Observation {
    findings.pods.retain(|pod| pod.id != id);
    findings
}

fn away(mut findings: Observation, id: i32) -> Observation {
    findings.away = BTreeSet::from([id]);
    findings
}

#[test]
fn nobody_passes_too_early_and_nothing_is_wrong_that_is_being_done() {
    let cluster = cluster(json!({"brokers": {"replicas": 3}}));
    let all = || Some(with_topic(&cluster, &[0, 1, 2]));
    let two = || Some(with_topic(&cluster, &[0, 1]));
    let new = |serving: i32| Some(state(&cluster, serving));
    let restart =
        || Step::Restart { id: 2, name: "c-2".to_owned(), uid: "u".to_owned(), reason: "r" };
    let with = |change: &dyn Fn(&mut Observation)| {
        let mut findings = found();
        change(&mut findings);
        findings
    };
    // The situation; then Ready, Degraded, UpToDate, kstatus, Argo CD, and whether there is a
    // warning.
    let rows = [
        (
            "it was just made",
            new(0),
            without(without(without(found(), 0), 1), 2),
            "False False False InProgress Progressing calm",
        ),
        (
            "two of three have come up",
            new(2),
            found(),
            "False False False InProgress Progressing calm",
        ),
        ("all have", all(), found(), "True False True Current Healthy calm"),
        (
            "a new generation, which the controller has not answered on",
            all(),
            with(&|f| f.taken_up = false),
            "True False False InProgress Progressing calm",
        ),
        (
            "it was applied, and nobody knows yet which pods are outdated",
            all(),
            with(&|f| f.pods.iter_mut().for_each(|pod| pod.outdated = None)),
            "True False False InProgress Progressing calm",
        ),
        (
            "the roll begins",
            all(),
            outdated(&[0, 1, 2], restart()),
            "True False False InProgress Progressing calm",
        ),
        (
            "two of three are updated, and the last one stops",
            all(),
            away(with(&|f| f.pods[2].terminating = true), 2),
            "True False False InProgress Progressing calm",
        ),
        (
            "its pod is gone",
            two(),
            away(without(found(), 2), 2),
            "True False False InProgress Progressing calm",
        ),
        (
            "its successor starts",
            two(),
            away(found(), 2),
            "True False False InProgress Progressing calm",
        ),
        (
            "its successor serves, and no service leads to it yet",
            all(),
            with(&|f| f.pods[2].ready = false),
            "True False False InProgress Progressing calm",
        ),
        (
            "its successor cannot start",
            two(),
            broken(),
            "False True False InProgress Degraded warned",
        ),
        (
            "a roll for which a topic has too few replicas",
            all(),
            outdated(&[1], Step::Blocked("t-0".to_owned())),
            "True False False Failed Degraded warned",
        ),
        (
            "a broker is lost",
            two(),
            without(found(), 2),
            "False True False InProgress Degraded warned",
        ),
        (
            "a volume may not grow",
            all(),
            with(&|f| f.storage = Some("data-c-0 cannot grow".to_owned())),
            "True False False Failed Degraded warned",
        ),
        (
            "a volume may not grow, and brokers come up",
            new(2),
            with(&|f| f.storage = Some("data-c-0 cannot grow".to_owned())),
            "False False False InProgress Degraded warned",
        ),
        (
            "a volume may not grow, and other changes go on",
            all(),
            {
                let mut findings = outdated(&[2], restart());
                findings.storage = Some("data-c-0 cannot grow".to_owned());
                findings
            },
            "True False False InProgress Degraded warned",
        ),
        (
            "a volume may not grow, and another change was applied",
            all(),
            with(&|f| {
                f.storage = Some("data-c-0 cannot grow".to_owned());
                f.pods.iter_mut().for_each(|pod| pod.outdated = None);
            }),
            "True False False InProgress Degraded warned",
        ),
        (
            "the API server refuses it",
            all(),
            Observation {
                failed: Some("quota".to_owned()),
                refused: true,
                ..Observation::default()
            },
            "True False False Failed Degraded warned",
        ),
        (
            "the controller refuses it",
            all(),
            with(&|f| f.refusal = Some("spec.config.x: no".to_owned())),
            "True False False Failed Degraded warned",
        ),
        (
            "a roll has not advanced until its deadline",
            all(),
            {
                let mut findings = outdated(&[0, 1, 2], Step::Wait("broker 2".to_owned()));
                findings.overdue = Some(std::time::Duration::from_secs(600));
                findings
            },
            "True False False Failed Degraded warned",
        ),
        (
            "a pod has not started until the deadline",
            two(),
            Observation { overdue: Some(std::time::Duration::from_secs(600)), ..broken() },
            "False True False Failed Degraded warned",
        ),
        (
            "the API server does not answer",
            all(),
            Observation { failed: Some("no answer".to_owned()), ..Observation::default() },
            "True False False InProgress Progressing calm",
        ),
        (
            "brokers that are to go are being emptied",
            all(),
            with(&|f| (f.scale_down, f.moving) = (Some("broker 3".to_owned()), true)),
            "True False False InProgress Progressing calm",
        ),
        (
            "nobody empties them",
            all(),
            with(&|f| f.scale_down = Some("broker 3".to_owned())),
            "True False False Failed Degraded warned",
        ),
        (
            "nobody empties them, and another change was applied",
            all(),
            with(&|f| {
                f.scale_down = Some("broker 3".to_owned());
                f.pods.iter_mut().for_each(|pod| pod.outdated = None);
            }),
            "True False False InProgress Degraded warned",
        ),
        (
            "nobody empties them, and a broker comes up",
            all(),
            with(&|f| (f.scale_down, f.pods[2].ready) = (Some("broker 3".to_owned()), false)),
            "True False False InProgress Degraded warned",
        ),
        (
            "it is paused",
            all(),
            with(&|f| f.paused = true),
            "True False False InProgress Suspended calm",
        ),
    ];
    for (what, state, findings, expected) in rows {
        let status =
            status_of(&cluster, &KafkaClusterStatus::default(), state.as_ref(), &findings, &at(0));
        let mut object = json!(cluster);
        object["status"] = json!(status);
        let of = |kind: &str| {
            status
                .conditions
                .iter()
                .find(|condition| condition.type_ == kind)
                .unwrap()
                .status
                .clone()
        };
        // The status from before, when everything was well.
        let before =
            status_of(&cluster, &KafkaClusterStatus::default(), all().as_ref(), &found(), &at(0));
        let warned = news(&before.conditions, &status.conditions)
            .iter()
            .any(|condition| is_wrong(condition));
        let warned = if warned { "warned" } else { "calm" };
        let said = [
            &of("Ready"),
            &of("Degraded"),
            &of("UpToDate"),
            kstatus(&object),
            argo(&object),
            warned,
        ]
        .join(" ");
        assert_eq!(said, expected, "{what}: {:#?}", status.conditions);
        object["metadata"]["generation"] = json!(8);
        assert_eq!(
            (kstatus(&object), argo(&object)),
            ("InProgress", "Progressing"),
            "{what}, and another generation came"
        );
    }
    // A resource that no operator has seen.
    let object = json!({"metadata": {"generation": 1}, "status": {"observedGeneration": -1}});
    assert_eq!((kstatus(&object), argo(&object)), ("InProgress", "Progressing"));
}

#[test]
fn who_waits_for_a_spec_that_is_not_in_force_goes_on_waiting() {
    let with = |generation: i64| {
        let mut cluster = cluster(json!({"brokers": {"replicas": 3}}));
        cluster.metadata.generation = Some(generation);
        cluster
    };
    let refused = || Observation { refusal: Some("spec.config.x: no".to_owned()), ..found() };
    let failed = || Observation { failed: Some("quota".to_owned()), ..Observation::default() };
    let next = |generation: i64, before: &KafkaClusterStatus, findings: &Observation| {
        let cluster = with(generation);
        let state = with_topic(&cluster, &[0, 1, 2]);
        let status = status_of(&cluster, before, Some(&state), findings, &at(0));
        let mut object = json!(cluster);
        object["status"] = json!(status);
        let shown = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        assert_eq!(shown.status, "True", "everything serves");
        let passes = waited_for(&object, "Ready");
        (status, passes, waited_for(&object, "UpToDate"), kstatus(&object))
    };
    let (fine, ready, up_to_date, verdict) = next(7, &KafkaClusterStatus::default(), &found());
    assert_eq!((ready, up_to_date, verdict), (true, true, "Current"));
    // Two refused generations in a row, and one that the API server does not take.
    let (first, ready, up_to_date, verdict) = next(8, &fine, &refused());
    assert_eq!((ready, up_to_date, verdict), (false, false, "Failed"));
    let (second, ready, up_to_date, verdict) = next(9, &first, &refused());
    assert_eq!((ready, up_to_date, verdict), (false, false, "Failed"));
    let (third, ready, up_to_date, verdict) = next(10, &second, &failed());
    assert_eq!((ready, up_to_date, verdict), (false, false, "InProgress"));
    let (_, ready, up_to_date, verdict) = next(11, &third, &found());
    assert_eq!((ready, up_to_date, verdict), (true, true, "Current"));
    // A cluster that another operator left without a status.
    let (_, ready, ..) = next(7, &KafkaClusterStatus::default(), &refused());
    assert!(!ready);
}

#[test]
fn it_is_said_what_is_under_way_and_how_far() {
    let cluster = cluster(json!({"brokers": {"replicas": 3}}));
    let state = with_topic(&cluster, &[0, 1]);
    let status = status_of(
        &cluster,
        &KafkaClusterStatus::default(),
        Some(&state),
        &away(without(found(), 2), 2),
        &at(0),
    );
    assert_eq!(
        said(&status, "Progressing"),
        "Progressing=True RollingOut: 2 of 3 brokers are as the spec wants them: broker 2 is being restarted"
    );
    assert!(
        said(&status, "Ready")
            .starts_with("Ready=True RollingOut: every partition has a leader; 2 of 3")
    );
}
