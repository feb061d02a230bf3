//! Resets: each kind sets its offsets exactly once per id, with members in the group and with
//! crashes in between.

use serde_json::json;
use weir_e2e::cluster::brokers;
use weir_e2e::driver::Client;
use weir_e2e::wire::committed;

use super::{Value, World, group, says};

#[test]
fn each_kind_of_reset_sets_its_offsets_and_can_be_undone() {
    let mut world = World::start(Client::Franz, json!({}));
    world.topic();
    world.consumed();
    assert_eq!(world.offsets(), [10, 10]);
    assert_eq!(world.reset("earliest", json!({"to": {"position": "Earliest"}})), [0, 0]);
    assert_eq!(
        world.reset("latest", json!({"to": {"position": "Latest"}, "topics": ["t"]})),
        [10, 10]
    );
    assert_eq!(world.reset("time", json!({"to": {"timestamp": "2020-09-13T12:26:44Z"}})), [4, 4]);
    assert_eq!(
        world.reset("future", json!({"to": {"timestamp": "2040-01-01T00:00:00Z"}})),
        [10, 10]
    );
    assert_eq!(
        world.reset(
            "offsets",
            json!({"to": {"offsets": [{"topic": "t", "partition": 1, "offset": 7}]}})
        ),
        [10, 7]
    );
    assert_eq!(world.reset("shift", json!({"to": {"shift": -2}})), [8, 5]);
    assert_eq!(world.reset("undo", json!({"to": {"undo": "shift"}})), [10, 7]);
    assert_eq!(world.reset("redo", json!({"to": {"undo": "undo"}})), [8, 5]);

    // Exactly once per id: neither the same resource applied again nor another operator repeats it.
    world.join("second");
    world.poll(&["second"], 7);
    world.commit("second");
    world.leave("second");
    assert_eq!(world.offsets(), [10, 10]);
    world.local.run(&["kill", "controller"]).unwrap();
    world.local.run(&["start", "controller"]).unwrap();
    world.apply(
        "g",
        &json!({"reset": {"id": "redo", "to": {"position": "Earliest"}}, "lagPolicy": {"maxMessages": 1}}),
    );
    let kept = world.until("g", "the new operator has looked", |found| {
        says(found, "LagWithinPolicy") == "True/WithinPolicy"
            && found["status"]["observedGeneration"] == found["metadata"]["generation"]
    });
    assert_eq!((says(&kept, "ResetDone"), world.offsets()), ("True/Done".into(), vec![10, 10]));

    // Nor is it repeated when the resource is deleted and created again, with a new status and uid.
    let file = world.local.data().join("group.yaml");
    std::fs::write(&file, group("g", &json!({}))).unwrap();
    world.local.run(&["delete", "-f", &file.to_string_lossy()]).unwrap();
    world.apply("g", &json!({"reset": {"id": "earliest", "to": {"position": "Earliest"}}}));
    world.until_says("g", "ResetDone", "True/Done");
    assert_eq!(world.offsets(), [10, 10]);
}

fn members_are_evicted(client: Client, joining: Value) {
    let mut world = World::start(client, joining);
    world.topic();
    world.join("runs");
    world.poll(&["runs"], 20);
    world.commit("runs");
    world.apply(
        "g",
        &json!({"reset": {"id": "again", "to": {"position": "Earliest"}, "members": "Evict"}}),
    );
    // The operator dies in the middle of the reset, at any point.
    world.local.run(&["kill", "controller"]).unwrap();
    world.local.run(&["start", "controller"]).unwrap();
    // The consumer rejoins by itself and gets all records again.
    assert_eq!(world.poll(&["runs"], 20), (0..20).collect::<Vec<_>>());
    world.commit("runs");
    let done = world.poll_until(&["runs"], "done, and its member is back", |found| {
        found["status"]["lastReset"]["phase"] == "Done"
            && found["status"]["members"] == 1
            && found["status"]["lag"]["messages"] == 0
    });
    assert_eq!((says(&done, "Ready"), world.offsets()), ("True/Ready".into(), vec![10, 10]));
}

#[test]
fn a_reset_evicts_classic_members() {
    members_are_evicted(Client::Franz, json!({}));
}

#[test]
fn a_reset_evicts_members_of_the_consumer_protocol() {
    members_are_evicted(Client::Java, json!({"protocol": "consumer"}));
}

#[test]
fn a_reset_evicts_static_members() {
    members_are_evicted(Client::Librdkafka, json!({"instance": "i-1", "session_ms": 60_000}));
}

/// The coordinator dies while a reset waits for members. The reset then happens at the next
/// coordinator, and the status names the members.
#[test]
fn a_coordinator_that_dies_is_followed() {
    if brokers() < 3 {
        return;
    }
    let mut world = World::start(Client::Franz, json!({}));
    world.topic();
    world.join("runs");
    world.poll(&["runs"], 20);
    world.commit("runs");
    world.apply("g", &json!({"reset": {"id": "moved", "to": {"position": "Earliest"}}}));
    world.poll_until(&["runs"], "it waits", |found| {
        says(found, "ResetDone") == "False/WaitingForMembers"
    });
    let coordinator = weir_e2e::wire::coordinator(&world.local.bootstrap(), "g").unwrap();
    world.local.run(&["kill", &coordinator.to_string()]).unwrap();
    world.poll_until(&["runs"], "another one coordinates", |found| {
        found["status"]["coordinator"] != coordinator
    });
    world.leave("runs");
    let done = world.until_says("g", "ResetDone", "True/Done");
    assert_ne!(done["status"]["coordinator"], coordinator);
    world.local.run(&["start", &coordinator.to_string()]).unwrap();
    world.until("g", "the mark is gone", |_| {
        committed(&world.local.bootstrap(), "g").is_some_and(|all| all.len() == 2)
    });
    assert_eq!(world.offsets(), [0, 0]);
}

#[test]
fn a_reset_waits_for_members_to_leave() {
    let mut world = World::start(Client::Librdkafka, json!({}));
    world.topic();
    world.join("runs");
    world.poll(&["runs"], 20);
    world.commit("runs");
    world.apply("g", &json!({"reset": {"id": "patient", "to": {"shift": -5}}}));
    let waiting = world.poll_until(&["runs"], "it waits", |found| {
        says(found, "ResetDone") == "False/WaitingForMembers"
    });
    assert_eq!(
        (says(&waiting, "Ready"), world.offsets()),
        ("False/WaitingForMembers".into(), vec![10, 10])
    );
    world.leave("runs");
    world.until_says("g", "ResetDone", "True/Done");
    world.until("g", "the mark is gone", |_| {
        committed(&world.local.bootstrap(), "g").unwrap().len() == 2
    });
    assert_eq!(world.offsets(), [5, 5]);
}
