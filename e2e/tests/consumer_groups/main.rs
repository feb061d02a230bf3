//! The ConsumerGroup resource in local mode, with real consumers: status, resets, lag policy,
//! deletion, and errors.
#![allow(clippy::unwrap_used, missing_docs)]

mod resets;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_e2e::cluster::{Local, brokers};
use weir_e2e::driver::{Client, Driver, Produce};
use weir_e2e::record::Record;
use weir_e2e::wire::{await_topic, committed, is_marked_for_deletion};

/// The limit of every wait.
const PATIENCE: Duration = Duration::from_secs(100);

/// 2020-09-13, in milliseconds.
const LONG_AGO_MS: i64 = 1_600_000_000_000;

/// A cluster of one broker or `WEIR_E2E_BROKERS`.
fn cluster() -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {{name: c}}\nspec:\n  brokers: {{replicas: {}}}\n  config: {{group.initial.rebalance.delay.ms: 0, \
         group.consumer.session.timeout.ms: 6000, group.consumer.heartbeat.interval.ms: 500, offsets.topic.num.partitions: 3}}\n",
        brokers()
    )
}

struct World {
    local: Local,
    driver: Driver,
    joining: Value,
}

/// The YAML of a ConsumerGroup with these fields and the cluster in its spec.
fn group(name: &str, fields: &Value) -> String {
    let mut spec = json!({"clusterRef": {"name": "c"}});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"apiVersion": "weir.dev/v1alpha1", "kind": "ConsumerGroup", "metadata": {"name": name}, "spec": spec}).to_string()
}

/// A condition as `Status/Reason`.
fn says(resource: &Value, kind: &str) -> String {
    let conditions = resource["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    found.map_or_else(String::new, |found| {
        format!("{}/{}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
    })
}

impl World {
    fn start(client: Client, joining: Value) -> Self {
        Self::with(client, joining, &cluster())
    }

    fn with(client: Client, joining: Value, cluster: &str) -> Self {
        let local = Local::start_of(Some(brokers()), Some(cluster)).unwrap();
        let driver = Driver::start(client, &local.bootstrap()).unwrap();
        Self { local, driver, joining }
    }

    /// Creates the topic `t` of two partitions, with ten records in each, one second apart.
    fn topic(&mut self) {
        self.driver.create_topic("t", 2, &json!({"retention.ms": "-1"})).unwrap();
        await_topic(&self.local.bootstrap(), "t", 2).unwrap();
        self.produce(0..20);
    }

    fn produce(&mut self, numbers: std::ops::Range<i32>) {
        let records: Vec<Record> = numbers
            .map(|n| {
                Record::new("k", n.to_string()).to(n % 2).at(LONG_AGO_MS + i64::from(n / 2) * 1000)
            })
            .collect();
        self.driver.produce(Produce::records("t", &records).set("acks", "all")).unwrap();
    }

    fn apply(&self, name: &str, fields: &Value) {
        self.local.apply(&group(name, fields)).unwrap();
    }

    fn get(&self, name: &str) -> Option<Value> {
        let output = self.local.output(&["get", "kcg", name, "-o", "json"]).unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Waits until the resource satisfies `done`.
    fn until(&self, name: &str, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.get(name).unwrap_or_default();
            if done(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "{what}: {found:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn until_says(&self, name: &str, kind: &str, expected: &str) -> Value {
        self.until(name, &format!("{kind} is {expected}"), |found| {
            says(found, kind) == expected
                && found["status"]["observedGeneration"] == found["metadata"]["generation"]
        })
    }

    fn join(&mut self, member: &str) {
        let mut request = json!({"op": "join", "group": "g", "member": member, "topics": ["t"]});
        request.as_object_mut().unwrap().extend(self.joining.as_object().unwrap().clone());
        self.driver.call(&request).unwrap();
    }

    /// Polls members in turn until this many records have arrived; returns their numbers.
    fn poll(&mut self, members: &[&str], count: usize) -> Vec<i32> {
        let mut numbers = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while numbers.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} records", numbers.len());
            for member in members {
                let reply =
                    self.driver.call(&json!({"op": "poll", "member": member, "timeout_ms": 200}));
                let Ok(reply) = reply else { continue };
                let records: Vec<Record> =
                    serde_json::from_value(reply["records"].clone()).unwrap();
                numbers.extend(records.iter().map(|record| record.text().parse::<i32>().unwrap()));
            }
        }
        numbers.sort_unstable();
        numbers
    }

    /// Polls members until the resource satisfies `done`, which also keeps the members alive.
    fn poll_until(&mut self, members: &[&str], what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for member in members {
                let _ =
                    self.driver.call(&json!({"op": "poll", "member": member, "timeout_ms": 200}));
            }
            let found = self.get("g").unwrap_or_default();
            if done(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "{what}: {found:#}");
        }
    }

    fn commit(&mut self, member: &str) {
        self.driver.call(&json!({"op": "commit", "member": member})).unwrap();
    }

    fn leave(&mut self, member: &str) {
        self.driver.call(&json!({"op": "leave", "member": member})).unwrap();
    }

    /// The committed offsets of both partitions of `t`; the group must have no others.
    fn offsets(&self) -> Vec<i64> {
        let mut all = committed(&self.local.bootstrap(), "g").unwrap();
        let offsets = (0..2)
            .map(|partition| all.remove(&("t".to_owned(), partition)).unwrap_or(-1))
            .collect();
        assert!(all.is_empty(), "{all:?}");
        offsets
    }

    /// Joins, reads all of `t`, commits and leaves.
    fn consumed(&mut self) {
        self.join("first");
        self.poll(&["first"], 20);
        self.commit("first");
        self.leave("first");
    }

    /// Resets the group, and returns the committed offsets afterwards.
    fn reset(&self, id: &str, fields: Value) -> Vec<i64> {
        let mut reset = json!({"id": id});
        reset.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.apply("g", &json!({"reset": reset}));
        self.until("g", "the reset is done", |found| {
            found["status"]["lastReset"]["id"] == id
                && found["status"]["lastReset"]["phase"] == "Done"
        });
        self.offsets()
    }
}

fn the_status_follows_the_group(client: Client, joining: Value) {
    let mut world = World::start(client, joining);
    world.topic();
    world.apply("g", &json!({}));
    let missing = world.until_says("g", "Ready", "False/GroupNotFound");
    assert!(missing.to_string().contains("group.id=g"), "{missing}");

    world.join("one");
    world.poll(&["one"], 20);
    world.commit("one");
    let one = world.poll_until(&["one"], "one member that has caught up", |found| {
        let status = &found["status"];
        status["members"] == 1
            && status["lag"]["messages"] == 0
            && status["lag"]["partitions"] == 2
            && status["lastCommit"].is_string()
    });
    let coordinator = weir_e2e::wire::coordinator(&world.local.bootstrap(), "g").unwrap();
    assert_eq!(
        (says(&one, "Ready"), says(&one, "Active")),
        ("True/Ready".into(), "True/HasMembers".into())
    );
    assert_eq!(
        (&one["status"]["coordinator"], &one["status"]["state"]),
        (&json!(coordinator), &json!("Stable"))
    );
    let consumer = world.joining["protocol"] == "consumer";
    assert_eq!(one["status"]["protocol"], if consumer { "Consumer" } else { "Classic" });

    // Uncommitted records: the lag is their number, and its seconds are their age.
    let now_ms = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let records: Vec<Record> = (20..26)
        .map(|n: i32| Record::new("k", n.to_string()).to(n % 3 / 2).at(now_ms - 3_600_000))
        .collect();
    world.driver.produce(Produce::records("t", &records).set("acks", "all")).unwrap();
    let behind = world.poll_until(&["one"], "behind", |found| {
        found["status"]["lag"]["messages"] == 6 && found["status"]["lag"]["seconds"].is_i64()
    });
    let lag = &behind["status"]["lag"];
    assert_eq!(
        (&lag["partitionsBehind"], &lag["worst"]["partition"], &lag["worst"]["messages"]),
        (&json!(2), &json!(0), &json!(4))
    );
    assert!((3_500..=3_800).contains(&lag["seconds"].as_i64().unwrap()), "an hour: {lag}");

    // More members than partitions: the others are idle.
    world.join("two");
    world.join("three");
    let all = ["one", "two", "three"];
    let three = world.poll_until(&all, "three members, one of them idle", |found| {
        found["status"]["members"] == 3
            && found["status"]["idleMembers"] == 1
            && found["status"]["state"] == "Stable"
    });
    assert!(three["status"]["rebalances"]["lastHour"].as_i64().unwrap() >= 1, "{three:#}");
    for member in all {
        world.leave(member);
    }
    let empty = world.until("g", "no member", |found| {
        found["status"]["state"] == "Empty" && found["status"]["members"] == 0
    });
    assert_eq!(says(&empty, "Active"), "False/NoMembers");
    let table = world.local.run(&["get", "kcg"]).unwrap();
    assert!(table.contains("LAG-SECONDS") && table.contains("Empty"), "{table}");
}

#[test]
fn the_status_follows_a_classic_group() {
    the_status_follows_the_group(Client::Librdkafka, json!({}));
}

#[test]
fn the_status_follows_a_group_of_the_consumer_protocol() {
    the_status_follows_the_group(Client::Java, json!({"protocol": "consumer"}));
}

#[test]
fn a_lag_policy_is_a_condition() {
    let mut world = World::start(Client::Franz, json!({}));
    world.topic();
    world.consumed();
    world.apply("g", &json!({"lagPolicy": {"maxMessages": 5, "forSeconds": 1}}));
    world.until_says("g", "LagWithinPolicy", "True/WithinPolicy");
    world.produce(20..30);
    world.until_says("g", "LagWithinPolicy", "False/LagExceeded");
    world.until_says("g", "Ready", "False/LagExceeded");
    world.join("second");
    world.poll(&["second"], 10);
    world.commit("second");
    world.until_says("g", "Ready", "True/Ready");
    // By age: the waiting record is from 2020.
    world.apply("g", &json!({"lagPolicy": {"maxSeconds": 60}}));
    world.produce(30..31);
    world.until_says("g", "LagWithinPolicy", "False/LagExceeded");
    // Records that are deleted before the group consumes them.
    world.leave("second");
    world
        .driver
        .call(&json!({"op": "delete_records", "topic": "t", "partition": 0, "offset": 16}))
        .unwrap();
    let lost = world.until_says("g", "OffsetsValid", "False/RecordsLost");
    assert!(lost.to_string().contains("1 records of t-0"), "{lost:#}");
}

#[test]
fn a_deleted_resource_leaves_its_group_unless_it_says_otherwise() {
    let mut world = World::start(Client::Franz, json!({}));
    world.topic();
    world.consumed();
    let file = world.local.data().join("group.yaml");
    let delete = |world: &World, fields: Value| {
        world.apply("g", &fields);
        std::fs::write(&file, group("g", &fields)).unwrap();
        world.local.run(&["delete", "-f", &file.to_string_lossy()]).unwrap();
        assert!(world.get("g").is_none());
    };
    delete(&world, json!({}));
    assert_eq!(world.offsets(), [10, 10]);
    // While the group has members, the deletion waits until they leave.
    world.join("second");
    world.poll_members(1);
    delete(&world, json!({"deletionPolicy": "Delete"}));
    assert_eq!(world.offsets(), [10, 10]);
    // The group itself keeps the mark, so another operator continues the deletion.
    let deadline = Instant::now() + PATIENCE;
    while !is_marked_for_deletion(&world.local.bootstrap(), "g") {
        assert!(Instant::now() < deadline, "the group is not marked");
        std::thread::sleep(Duration::from_millis(100));
    }
    world.local.run(&["kill", "controller"]).unwrap();
    world.local.run(&["start", "controller"]).unwrap();
    world.leave("second");
    let deadline = Instant::now() + PATIENCE;
    while world.offsets() != [-1, -1] {
        assert!(Instant::now() < deadline, "the group is still there");
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl World {
    /// Polls `second` until the group has this many members, by a resource of another name.
    fn poll_members(&mut self, count: i64) {
        self.apply("g", &json!({}));
        self.poll_until(&["second"], "members", |found| found["status"]["members"] == count);
    }
}

#[test]
fn groups_without_a_resource_are_reflected_when_the_cluster_says_so() {
    let reflecting = format!("{}  consumerGroups: {{reflect: All, max: 2}}\n", cluster());
    let mut world = World::with(Client::Franz, json!({}), &reflecting);
    world.topic();
    world.consumed();
    for id in ["Other_Group", "third"] {
        let request = json!({"op": "join", "group": id, "member": id, "topics": ["t"]});
        world.driver.call(&request).unwrap();
        world.poll(&[id], 20);
        world.commit(id);
    }
    let listed = |world: &World| -> Vec<Value> {
        let all: Value =
            serde_json::from_str(&world.local.run(&["get", "kcg", "-o", "json"]).unwrap()).unwrap();
        all["items"].as_array().unwrap().clone()
    };
    let deadline = Instant::now() + PATIENCE;
    while listed(&world).iter().filter(|group| says(group, "Ready") == "True/Ready").count() != 2 {
        assert!(Instant::now() < deadline, "{:#?}", listed(&world));
        std::thread::sleep(Duration::from_millis(100));
    }
    // A user's resource replaces a generated one.
    world.apply("g", &json!({"topics": ["t"]}));
    world.until_says("g", "Ready", "True/Ready");
    // With generation off, the generated resources go and the user's stays.
    world.local.apply(&cluster()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let names: BTreeSet<String> = listed(&world)
            .iter()
            .map(|group| group["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        if names == BTreeSet::from(["g".to_owned()]) {
            break;
        }
        assert!(Instant::now() < deadline, "{names:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_is_wrong_is_refused_or_told() {
    let mut world = World::start(Client::Franz, json!({}));
    world.topic();
    for (fields, reason) in [
        (json!({"groupId": ""}), "spec.groupId"),
        (json!({"topics": ["no spaces"]}), "spec.topics[0]"),
        (json!({"lagPolicy": {}}), "give maxSeconds or maxMessages"),
        (json!({"lagPolicy": {"maxMessages": -1}}), "spec.lagPolicy.maxMessages"),
        (json!({"scaling": {"targetLagSeconds": 10}}), "spec.scaling.targetRef"),
        (
            json!({"scaling": {"targetRef": {"name": "w"}, "min": -1, "targetLagSeconds": 10}}),
            "spec.scaling.min",
        ),
        (json!({"reset": {"id": "r"}}), "spec.reset.to"),
        (json!({"reset": {"id": "not an id", "to": {"shift": 1}}}), "spec.reset.id"),
        (json!({"reset": {"id": "r", "to": {"shift": 1, "undo": "q"}}}), "give exactly one of"),
        (json!({"reset": {"id": "r", "to": {"timestamp": "noon"}}}), "spec.reset.to.timestamp"),
        (json!({"deletionPolicy": "Perhaps"}), "spec.deletionPolicy"),
        (json!({"clusterRef": {"name": "nowhere"}}), "there is no KafkaCluster \"nowhere\""),
        (json!({"lagpolicy": {}}), "unknown field"),
    ] {
        let refused = world.local.apply(&group("wrong", &fields)).unwrap_err().to_string();
        assert!(refused.contains(reason), "{fields} should say {reason}, but says {refused}");
    }
    assert!(world.get("wrong").is_none());

    world.apply("g", &json!({"topics": ["nowhere"]}));
    let unknown = world.until_says("g", "Ready", "False/UnknownTopic");
    assert!(unknown.to_string().contains("\\\"nowhere\\\""), "{unknown}");
    // A reset that cannot be carried out waits and names the reason; it happens once it can.
    world.apply(
        "g",
        &json!({"reset": {"id": "r", "to": {"position": "Latest"}, "topics": ["later"]}}),
    );
    world.until_says("g", "ResetDone", "False/UnknownTopic");
    world.driver.create_topic("later", 1, &json!({})).unwrap();
    world.until_says("g", "ResetDone", "True/Done");
    world.apply("g", &json!({"reset": {"id": "s", "to": {"undo": "never"}}}));
    world.until_says("g", "ResetDone", "False/NothingToUndo");
    // Two resources for one group: the older one owns it.
    world.apply("h", &json!({"groupId": "g"}));
    let conflict = world.until_says("h", "Ready", "False/Conflict");
    assert!(conflict.to_string().contains("ConsumerGroup \\\"g\\\""), "{conflict}");
    // Local mode has nothing to scale.
    world.apply(
        "i",
        &json!({"topics": ["t"], "scaling": {"targetRef": {"name": "w"}, "targetLagSeconds": 10}}),
    );
    world.until_says("i", "ScalingActive", "False/NotOnKubernetes");
}
