//! ConsumerGroups on Kubernetes: the output of `kubectl get kcg`, resets, scaling of a workload by
//! lag, deletion, and errors.
//!
//! Needs `e2e/up` and the `KUBECONFIG` that it prints.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_e2e::driver::{Client, Driver, Produce};
use weir_e2e::kubernetes::{Namespace, eventually, topic};
use weir_e2e::record::Record;
use weir_e2e::wire::{await_topic, committed};

/// A group of the cluster `k` with `fields` in its spec.
fn group(name: &str, fields: &Value) -> String {
    let mut spec = json!({"clusterRef": {"name": "k"}});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"apiVersion": "weir.dev/v1alpha1", "kind": "ConsumerGroup", "metadata": {"name": name}, "spec": spec}).to_string()
}

/// A workload of which only the number of replicas matters.
fn deployment(name: &str, replicas: u32) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "nowhere.invalid/none"}]}},
        },
    })
    .to_string()
}

struct World {
    namespace: Namespace,
    driver: Driver,
    bootstrap: String,
}

impl World {
    /// A cluster of one broker with the topic `t` of two partitions and twenty records.
    fn start(stem: &str, more: &str) -> Self {
        let namespace = Namespace::create(stem).unwrap();
        let bootstrap = namespace.kafka("k", 1, more).unwrap();
        namespace.apply(&topic("t", "k", 2, 1, "")).unwrap();
        namespace.ready("topic/t");
        await_topic(&bootstrap, "t", 2).unwrap();
        let mut world = Self {
            namespace,
            driver: Driver::start(Client::Franz, &bootstrap).unwrap(),
            bootstrap,
        };
        world.produce(0..20);
        world
    }

    fn produce(&mut self, numbers: std::ops::Range<i32>) {
        let records: Vec<Record> =
            numbers.map(|n| Record::new("k", n.to_string()).to(n % 2)).collect();
        self.driver.produce(Produce::records("t", &records).set("acks", "all")).unwrap();
    }

    /// A member of group `g` polls until it has this many records, and commits.
    fn consume(&mut self, member: &str, count: usize) {
        let join = json!({"op": "join", "group": "g", "member": member, "topics": ["t"]});
        self.driver.call(&join).unwrap();
        self.read(member, count);
    }

    fn read(&mut self, member: &str, count: usize) {
        let mut seen = 0;
        eventually("records", || {
            let reply =
                self.driver.call(&json!({"op": "poll", "member": member, "timeout_ms": 300}));
            seen += reply.map_or(0, |reply| reply["records"].as_array().unwrap().len());
            Ok((seen >= count).then_some(()))
        });
        self.driver.call(&json!({"op": "commit", "member": member})).unwrap();
    }

    fn until(&self, name: &str, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            Ok(self.namespace.object(&format!("consumergroup/{name}"))?.filter(|found| done(found)))
        })
    }

    fn replicas(&self, name: &str) -> i64 {
        let found = self.namespace.object(&format!("deployment/{name}")).unwrap().unwrap();
        found["spec"]["replicas"].as_i64().unwrap()
    }
}

#[test]
fn kubectl_says_how_a_group_does_and_resets_it() {
    let mut world = World::start("groups", "");
    world.namespace.apply(&group("g", &json!({"lagPolicy": {"maxMessages": 5}}))).unwrap();
    let missing = world.namespace.awaits("consumergroup/g", "Ready", "False");
    assert_eq!(missing.reason, "GroupNotFound", "{missing:?}");
    world.consume("one", 20);
    world.namespace.ready("consumergroup/g");
    world.until("g", "one member that has caught up", |found| {
        found["status"]["members"] == 1
            && found["status"]["lag"]["messages"] == 0
            && found["status"]["state"] == "Stable"
    });
    let printed = world.namespace.kubectl(&["get", "kcg", "-o", "wide"]).unwrap();
    assert!(printed.contains("LAG-SECONDS") && printed.contains("Stable"), "{printed}");

    world.produce(20..40);
    let behind = world.namespace.awaits("consumergroup/g", "LagWithinPolicy", "False");
    assert_eq!(behind.reason, "LagExceeded", "{behind:?}");
    world.read("one", 20);
    let _ = world.namespace.awaits("consumergroup/g", "LagWithinPolicy", "True");

    // A reset, and another one that undoes it.
    let reset = |id: &str, to: Value| json!({"reset": {"id": id, "to": to, "members": "Evict"}});
    world.namespace.apply(&group("g", &reset("back", json!({"position": "Earliest"})))).unwrap();
    world.read("one", 40);
    world.until("g", "the reset is done", |found| {
        found["status"]["lastReset"]["id"] == "back"
            && found["status"]["lastReset"]["phase"] == "Done"
    });
    world.driver.call(&json!({"op": "leave", "member": "one"})).unwrap();
    world.namespace.apply(&group("g", &reset("undone", json!({"undo": "back"})))).unwrap();
    world.until("g", "it is undone", |found| {
        found["status"]["lastReset"]["id"] == "undone"
            && found["status"]["lastReset"]["phase"] == "Done"
            && found["status"]["lag"]["messages"] == 0
    });

    // The status of an idle group is not written.
    world.until("g", "nothing is under way", |found| found["status"]["members"] == 0);
    eventually("nothing is written at rest", || {
        let version = |found: &Value| found["metadata"]["resourceVersion"].clone();
        let before = world.namespace.object("consumergroup/g")?.map(|found| version(&found));
        std::thread::sleep(std::time::Duration::from_secs(20));
        let after = world.namespace.object("consumergroup/g")?.map(|found| version(&found));
        Ok((before.is_some() && before == after).then_some(()))
    });

    // The deletion of the resource deletes the group, as its policy says.
    world.namespace.apply(&group("g", &json!({"deletionPolicy": "Delete"}))).unwrap();
    world.namespace.ready("consumergroup/g");
    world.namespace.kubectl(&["delete", "consumergroup", "g"]).unwrap();
    eventually("the group is gone", || {
        Ok(committed(&world.bootstrap, "g").filter(BTreeMap::is_empty).map(drop))
    });
}

#[test]
fn a_workload_is_scaled_by_lag_up_to_the_partitions() {
    let mut world = World::start("scaled", "");
    world.namespace.apply(&deployment("worker", 0)).unwrap();
    let spec = json!({
        "topics": ["t"],
        "scaling": {"targetRef": {"name": "worker"}, "min": 0, "max": 10, "targetLagSeconds": 1, "scaleDownAfterSeconds": 1},
    });
    world.namespace.apply(&group("g", &spec)).unwrap();
    // Records wait: scale to one, and to two as they grow old. Two is the number of partitions.
    eventually("one replica", || Ok((world.replicas("worker") >= 1).then_some(())));
    eventually("as many as partitions", || Ok((world.replicas("worker") == 2).then_some(())));
    world.until("g", "the status says so", |found| found["status"]["scaling"]["desired"] == 2);
    let at = world.namespace.awaits("consumergroup/g", "ScalingActive", "True");
    assert_eq!(at.reason, "AtPartitions", "{at:?}");
    // Everything is consumed: scale down one by one to none.
    world.consume("one", 20);
    eventually("no replica", || Ok((world.replicas("worker") == 0).then_some(())));
}

#[test]
fn what_is_wrong_with_a_group_is_said() {
    let world = World::start("wrong", "");
    for (fields, reason) in [
        (json!({"lagPolicy": {}}), "give maxSeconds or maxMessages"),
        (json!({"reset": {"id": "r", "to": {}}}), "give exactly one of"),
        (json!({"reset": {"id": "r", "to": {"timestamp": "noon"}}}), "spec.reset.to.timestamp"),
        (
            json!({"scaling": {"targetRef": {"name": "w"}, "min": 2, "max": 1, "targetLagSeconds": 1}}),
            "min must not be greater than max",
        ),
        (json!({"topics": ["no spaces"]}), "spec.topics[0]"),
        (json!({"deletionPolicy": "Perhaps"}), "spec.deletionPolicy"),
    ] {
        let refusal = world.namespace.refused(&group("wrong", &fields));
        assert!(refusal.contains(reason), "{fields}\nshould say {reason}, but says\n{refusal}");
    }
    let homeless = group("homeless", &json!({"clusterRef": {"name": "nowhere"}}));
    world.namespace.apply(&homeless).unwrap();
    let told = world.namespace.awaits("consumergroup/homeless", "Ready", "False");
    assert_eq!(told.reason, "ClusterNotFound", "{told:?}");

    let scaled = |target: Value| {
        group(
            "s",
            &json!({"topics": ["t"], "scaling": {"targetRef": target, "targetLagSeconds": 60}}),
        )
    };
    for (target, reason) in [
        (json!({"name": "nobody"}), "TargetNotFound"),
        (json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody"}), "NotScalable"),
        (
            json!({"apiVersion": "example.org/v1", "kind": "Widget", "name": "nobody"}),
            "UnknownKind",
        ),
        (
            json!({"apiVersion": "weir.dev/v1alpha1", "kind": "KafkaCluster", "name": "k"}),
            "Forbidden",
        ),
    ] {
        world.namespace.apply(&scaled(target.clone())).unwrap();
        eventually(&format!("{target} is {reason}"), || {
            let condition = world.namespace.condition("consumergroup/s", "ScalingActive")?;
            Ok(condition.filter(|condition| condition.reason == reason))
        });
    }
    world.namespace.apply(&group("t1", &json!({"groupId": "twice"}))).unwrap();
    let _ = world.namespace.awaits("consumergroup/t1", "Ready", "False");
    world.namespace.apply(&group("t2", &json!({"groupId": "twice"}))).unwrap();
    eventually("the second one is in conflict", || {
        let condition = world.namespace.condition("consumergroup/t2", "Ready")?;
        Ok(condition.filter(|condition| condition.reason == "Conflict"))
    });
}

#[test]
fn groups_without_a_resource_are_reflected() {
    let mut world = World::start("reflected", "  consumerGroups: {reflect: All}\n");
    world.consume("one", 20);
    let found =
        world.until("g", "the group has a resource", |found| found["status"]["members"] == 1);
    assert_eq!(found["metadata"]["labels"]["weir.dev/reflected"], "true", "{found}");
    world
        .namespace
        .patch("kafkacluster/k", r#"{"spec": {"consumerGroups": {"reflect": "Declared"}}}"#)
        .unwrap();
    eventually("the resource goes", || {
        Ok(world.namespace.object("consumergroup/g")?.is_none().then_some(()))
    });
}

#[test]
fn the_examples_of_queues_and_subscribers_come_up() {
    let namespace = Namespace::create("examples").unwrap();
    for (file, cluster, groups) in [("queue", "shop", 1), ("publish-subscribe", "news", 3)] {
        let path = weir_e2e::workspace().join(format!("examples/{file}.yaml"));
        namespace.apply(&std::fs::read_to_string(path).unwrap()).unwrap();
        namespace.ready(&format!("kafkacluster/{cluster}"));
        let own = |group: &Value| group["spec"]["clusterRef"]["name"] == cluster;
        eventually("the groups have conditions", || {
            let all = namespace.list("consumergroups.weir.dev", "")?;
            let told =
                all.iter().filter(|group| own(group) && group["status"]["conditions"].is_array());
            Ok((told.count() == groups).then_some(()))
        });
    }
}
