//! Conditions, scaling, reflection, and when a status is written.

use std::sync::Arc;

use serde_json::json;
use weir_crds::{GroupReflection, Lag, Reflect};

use super::super::mirror::{REFLECTED_LABEL, reflect};
use super::super::reconcile::Action;
use super::super::scale::{ScaleMemory, desired};
use super::super::schedule::Pace;
use super::*;

#[test]
fn ready_says_the_first_thing_that_is_wrong() {
    let rows = [
        (json!({}), observed("Stable", 1, &[(Some(1), 0, 9)]), "True/Ready"),
        (json!({}), observed("Empty", 0, &[(Some(1), 0, 9)]), "True/Ready"),
        (json!({}), observed("Dead", 0, &[]), "False/GroupNotFound"),
        (json!({"topics": ["t"]}), observed("Dead", 0, &[(None, 0, 9)]), "True/NoGroup"),
        (json!({}), observed("Empty", 0, &[(Some(1), 2, 9)]), "False/RecordsLost"),
        (
            json!({"lagPolicy": {"maxMessages": 1}}),
            observed("Stable", 1, &[(Some(1), 0, 9)]),
            "False/LagExceeded",
        ),
        (
            json!({"reset": {"id": "x", "to": {"undo": "y"}}, "lagPolicy": {"maxMessages": 1}}),
            observed("Stable", 1, &[(Some(1), 0, 9)]),
            "False/NothingToUndo",
        ),
    ];
    for (fields, observed, expected) in rows {
        let status = decide(
            &resource(fields.clone()),
            &ConsumerGroupStatus::default(),
            &observed,
            &mut Memory::default(),
            0,
        )
        .status;
        assert_eq!(says(&status, "Ready"), expected, "{fields}");
        assert_eq!(status.conditions.len(), 7);
    }
    let mut unknown = observed("Empty", 0, &[]);
    unknown.unknown_topics.insert("u".to_owned());
    let status = decide(
        &resource(json!({"topics": ["u"]})),
        &ConsumerGroupStatus::default(),
        &unknown,
        &mut Memory::default(),
        0,
    )
    .status;
    assert_eq!(says(&status, "Ready"), "False/UnknownTopic");
}

#[test]
fn what_cannot_be_seen_is_unknown_and_what_was_known_stays() {
    let group = resource(json!({}));
    let status = decide(
        &group,
        &ConsumerGroupStatus::default(),
        &observed("Stable", 2, &[(Some(1), 0, 9)]),
        &mut Memory::default(),
        0,
    )
    .status;
    let seen = Seen::Nothing("CoordinatorNotAvailable", "it is away".to_owned());
    let away = reconcile(&group, &status, &seen, &Workload::None, &mut Memory::default(), 0);
    assert_eq!((away.status.members, away.actions), (Some(2), vec![]));
    assert_eq!(says(&away.status, "Ready"), "False/CoordinatorNotAvailable");
    assert_eq!(says(&away.status, "LagWithinPolicy"), "Unknown/CoordinatorNotAvailable");
}

#[test]
fn commits_and_rebalances_are_seen_as_changes() {
    let group = resource(json!({}));
    let mut memory = Memory::default();
    let mut look = |observed: Observed, now_ms: i64| {
        // A status with only new numbers is not written at once: the next look starts with the one
        // before.
        let status =
            decide(&group, &ConsumerGroupStatus::default(), &observed, &mut memory, now_ms).status;
        (
            status.last_commit.as_ref().map(|at| at.0.as_second()),
            status.rebalances.as_ref().unwrap().last_hour,
        )
    };
    assert_eq!(look(observed("Stable", 1, &[(Some(1), 0, 9)]), 1_000), (None, 0));
    assert_eq!(look(observed("Stable", 1, &[(Some(2), 0, 9)]), 2_000), (Some(2), 0));
    assert_eq!(
        look(observed("Stable", 1, &[(Some(2), 0, 9)]), 2_500),
        (Some(2), 0),
        "though nobody wrote the status"
    );
    assert_eq!(look(observed("PreparingRebalance", 2, &[(Some(2), 0, 9)]), 3_000), (Some(2), 0));
    assert_eq!(look(observed("Stable", 2, &[(Some(2), 0, 9)]), 4_000), (Some(2), 1));
    assert_eq!(look(observed("Stable", 2, &[(Some(2), 0, 9)]), 4_000 + 3_600_001), (Some(2), 0));
}

#[test]
fn replicas_follow_the_lag_up_at_once_and_down_slowly() {
    let scaling = |fields: Value| {
        let mut all = json!({"targetRef": {"name": "w"}, "targetLagSeconds": 10, "scaleDownAfterSeconds": 60});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value::<weir_crds::Scaling>(all).unwrap()
    };
    let lag = |messages: i64, seconds: i64, partitions: i32| Lag {
        messages,
        seconds: Some(seconds),
        partitions,
        ..Lag::default()
    };
    // Spec, replicas, lag, and the replicas wanted immediately.
    let rows = [
        (json!({}), 2, lag(9, 15, 12), 3),
        (json!({}), 2, lag(9, 10, 12), 2),
        (json!({}), 2, lag(9, 1_000, 12), 4),
        (json!({}), 2, lag(9, 1_000, 3), 3),
        (json!({"max": 3}), 2, lag(9, 1_000, 12), 3),
        (json!({"min": 5}), 2, lag(0, 0, 12), 5),
        (json!({"min": 0}), 0, lag(1, 1, 12), 1),
        (json!({"min": 0}), 0, lag(0, 0, 12), 0),
        (json!({}), 20, lag(0, 0, 12), 12),
    ];
    for (fields, current, lag, wanted) in rows {
        assert_eq!(
            desired(&scaling(fields.clone()), current, &lag, 0, &mut ScaleMemory::default()),
            wanted,
            "{fields} {current} {lag:?}"
        );
    }
    let (scaling, mut memory) = (scaling(json!({"min": 0})), ScaleMemory::default());
    let mut at =
        |now_ms: i64, current: i32, lag: &Lag| desired(&scaling, current, lag, now_ms, &mut memory);
    assert_eq!(at(0, 2, &lag(9, 30, 12)), 4);
    assert_eq!(at(29_999, 4, &lag(9, 60, 12)), 4, "the new ones get time to begin");
    assert_eq!(at(30_000, 4, &lag(9, 60, 12)), 8);
    assert_eq!(at(40_000, 8, &lag(0, 0, 12)), 8);
    assert_eq!(at(99_999, 8, &lag(0, 0, 12)), 8);
    assert_eq!(at(100_000, 8, &lag(0, 0, 12)), 7);
    assert_eq!(at(100_001, 7, &lag(0, 0, 12)), 7, "one at a time");
    assert_eq!(at(150_000, 7, &lag(9, 6, 12)), 7, "over half of the target: the time begins anew");
    assert_eq!(at(165_000, 7, &lag(0, 0, 12)), 7);
    assert_eq!(at(300_000, 1, &lag(1, 0, 12)), 1, "the last one goes when nothing is left");
    assert_eq!(at(300_000, 1, &lag(0, 0, 12)), 0);
}

#[test]
fn a_workload_that_cannot_be_scaled_is_told() {
    let group = resource(json!({"scaling": {"targetRef": {"name": "w"}, "targetLagSeconds": 10}}));
    let behind = observed("Stable", 1, &[(Some(0), 0, 9), (Some(0), 0, 9), (Some(0), 0, 9)]);
    let run = |workload: Workload, observed: &Observed| {
        let decision = reconcile(
            &group,
            &ConsumerGroupStatus::default(),
            &Seen::Group(observed),
            &workload,
            &mut Memory::default(),
            0,
        );
        (says(&decision.status, "ScalingActive"), says(&decision.status, "Ready"), decision.actions)
    };
    let trouble = Workload::Trouble("TargetNotFound", "there is no Deployment w".to_owned());
    assert_eq!(
        run(trouble, &behind),
        ("False/TargetNotFound".into(), "False/TargetNotFound".into(), vec![])
    );
    // From 0, with records to consume, to 1.
    assert_eq!(
        run(Workload::Replicas(0), &behind),
        ("True/Scaling".into(), "True/Ready".into(), vec![Action::Scale(1)])
    );
    assert_eq!(
        run(Workload::Replicas(9), &behind),
        ("True/AtPartitions".into(), "True/Ready".into(), vec![Action::Scale(3)])
    );
    let (active, _, actions) = run(Workload::Replicas(4), &observed("Dead", 0, &[]));
    assert_eq!((active.as_str(), actions), ("False/NoPartitions", vec![]));
}

#[test]
fn groups_without_a_resource_are_reflected_up_to_a_bound() {
    let named = |name: &str, reflected: bool| {
        let mut group = resource(json!({}));
        group.metadata.name = Some(name.to_owned());
        group.metadata.labels =
            reflected.then(|| [(REFLECTED_LABEL.to_owned(), "true".to_owned())].into());
        Arc::new(group)
    };
    let groups: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).into();
    let run = |wanted: Reflect, max: i32, resources: &[Arc<ConsumerGroup>]| {
        let done = reflect(
            &GroupReflection { reflect: wanted, max, ..GroupReflection::default() },
            resources,
            &groups,
        );
        let removed: Vec<String> =
            done.remove.iter().map(|gone| gone.group_id().to_owned()).collect();
        (done.make.join(","), removed.join(","))
    };
    let resources = [named("a", false), named("b", true), named("gone", true)];
    assert_eq!(run(Reflect::All, 100, &resources), ("c,d".into(), "gone".into()));
    assert_eq!(run(Reflect::All, 2, &resources), ("c".into(), "gone".into()));
    assert_eq!(run(Reflect::Declared, 100, &resources), (String::new(), "b,gone".into()));
    // A user declares a reflected group.
    assert_eq!(
        run(Reflect::All, 100, &[named("b", false), named("b", true)]),
        ("a,c,d".into(), "b".into())
    );
}

#[test]
fn a_status_is_written_when_something_happened_and_seldom_for_numbers() {
    let group = resource(json!({}));
    let mut memory = Memory::default();
    let mut look = |members: usize, committed: i64, before: &ConsumerGroupStatus| {
        decide(
            &group,
            before,
            &observed("Stable", members, &[(Some(committed), 0, 99)]),
            &mut memory,
            0,
        )
        .status
    };
    let first = look(1, 5, &ConsumerGroupStatus::default());
    let same = look(1, 5, &first);
    let numbers = look(1, 6, &same);
    let joined = look(2, 6, &numbers);
    let due = |before: &ConsumerGroupStatus, after: &ConsumerGroupStatus, now_ms: i64| {
        Pace::KUBERNETES.is_due(before, after, Some(0), now_ms)
    };
    assert!(!due(&first, &same, 1_000_000));
    assert!(!due(&same, &numbers, 14_999));
    assert!(due(&same, &numbers, 15_000));
    assert!(due(&numbers, &joined, 1));
}
