//! Weir on Kubernetes from the users' view: resources, topics and records; `refused` has the clear
//! messages for errors.
//!
//! Needs `e2e/up` and the `KUBECONFIG` that it prints.
#![allow(clippy::unwrap_used, missing_docs)]

mod refused;

use serde_json::{Value, json};
use weir_e2e::driver::{Client, Driver, From, Produce};
use weir_e2e::kubernetes::{Namespace, eventually, kubectl, topic};
use weir_e2e::record::Record;
use weir_e2e::tools::kcat;
use weir_e2e::wire::await_topic;

fn records(count: usize) -> Vec<Record> {
    (0..count).map(|n| Record::new("k", n.to_string()).to(0)).collect()
}

/// The topics that a Kafka client lists.
fn listed(driver: &mut Driver) -> Vec<String> {
    let names = driver.call(&json!({"op": "list_topics"})).unwrap();
    names.as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()).collect()
}

/// The Topic resource of a Kafka topic, under any resource name.
fn resource_of(namespace: &Namespace, topic: &str) -> Option<Value> {
    let named = |t: &Value| {
        t["spec"]["topicName"].as_str().or(t["metadata"]["name"].as_str()) == Some(topic)
    };
    namespace.list("topics.weir.dev", "").unwrap().into_iter().find(named)
}

#[test]
fn the_quickstart_is_a_cluster_that_clients_outside_reach() {
    let namespace = Namespace::create("quickstart").unwrap();
    let yaml =
        std::fs::read_to_string(weir_e2e::workspace().join("examples/quickstart.yaml")).unwrap();
    namespace.apply(&yaml).unwrap();
    namespace.ready("kafkacluster/quickstart");
    namespace.ready("topic/orders");
    let bootstrap = namespace.bootstrap("quickstart");
    let input: String = (0..100).map(|n| format!("{n}\n")).collect();
    kcat(&bootstrap, &["-P", "-t", "orders", "-X", "acks=all"], input.as_bytes())
        .unwrap()
        .success()
        .unwrap();
    let read =
        kcat(&bootstrap, &["-C", "-t", "orders", "-e", "-q"], b"").unwrap().success().unwrap();
    let mut numbers: Vec<u32> = read.lines().map(|l| l.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    // `kubectl get` prints enough to see the state.
    let printed = namespace.kubectl(&["get", "kafkaclusters,topics"]).unwrap();
    let is_ready =
        |name: &str| printed.lines().any(|line| line.contains(name) && line.contains(" True "));
    assert!(is_ready("quickstart") && is_ready("orders"), "{printed}");
}

/// The commands of the README.
#[test]
fn the_quickstart_grows_and_goes_on_without_its_first_broker() {
    let namespace = Namespace::create("readme").unwrap();
    let yaml =
        std::fs::read_to_string(weir_e2e::workspace().join("examples/quickstart.yaml")).unwrap();
    namespace.apply(&yaml).unwrap();
    namespace.ready("topic/orders");
    let bootstrap = namespace.bootstrap("quickstart");
    let consume = ["-G", "g", "-e", "-q", "-X", "auto.offset.reset=earliest", "orders"];
    kcat(&bootstrap, &["-P", "-t", "orders", "-X", "acks=all"], b"before\n")
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(kcat(&bootstrap, &consume, b"").unwrap().success().unwrap(), "before\n");
    namespace.kubectl(&["scale", "kafkacluster", "quickstart", "--replicas=3"]).unwrap();
    namespace
        .kubectl(&["wait", "--for=condition=Ready", "kafkacluster/quickstart", "--timeout=3m"])
        .unwrap();
    let topics = namespace.kubectl(&["get", "topics.weir.dev", "-o", "name"]).unwrap();
    assert!(topics.contains("/consumer-offsets-"), "{topics}");
    for topic in topics.lines() {
        namespace.patch(topic, r#"{"spec": {"replicas": 3}}"#).unwrap();
    }
    namespace
        .kubectl(&["wait", "--for=condition=Healthy", "topics.weir.dev", "--all", "--timeout=3m"])
        .unwrap();
    namespace.kubectl(&["delete", "pod", "quickstart-0", "--grace-period=0", "--force"]).unwrap();
    // A producer without idempotence writes it again if the broker dies before its answer.
    kcat(&bootstrap, &["-P", "-t", "orders", "-X", "enable.idempotence=true"], b"after\n")
        .unwrap()
        .success()
        .unwrap();
    // The group continues at its committed offsets. A client commits what it reads, even if it
    // fails in the end because a broker is down.
    let mut read = String::new();
    eventually("the record of after is consumed, and no other", || {
        let printed = kcat(&bootstrap, &consume, b"")?;
        read.push_str(&printed.out);
        assert!(!read.contains("before"), "{read}");
        if read == "after\n" {
            return Ok(Some(()));
        }
        printed.success().map(|_| None)
    });
}

#[test]
fn a_topic_is_one_thing_whoever_made_it() {
    let namespace = Namespace::create("topics").unwrap();
    let bootstrap = namespace.kafka("one", 1, "").unwrap();
    let mut driver = Driver::start(Client::Java, &bootstrap).unwrap();

    // Created by kubectl; clients see it.
    namespace
        .apply(&topic("by-kubectl", "one", 2, 1, "  config: {retention.ms: 3600000}\n"))
        .unwrap();
    namespace.ready("topic/by-kubectl");
    await_topic(&bootstrap, "by-kubectl", 2).unwrap();
    driver.produce(Produce::records("by-kubectl", &records(10)).set("acks", "all")).unwrap();
    assert_eq!(driver.consume("by-kubectl", &[0], From::Beginning, 10).unwrap().len(), 10);

    // Created by a client; kubectl sees it, under a name that Kubernetes allows.
    for name in ["by-client", "By_Client.v2"] {
        driver.create_replicated_topic(name, 3, 1, &json!({"cleanup.policy": "compact"})).unwrap();
        let found =
            eventually("the resource of a client's topic", || Ok(resource_of(&namespace, name)));
        assert_eq!(found["spec"]["partitions"], 3, "{found}");
        assert_eq!(found["spec"]["config"]["cleanup.policy"], "compact", "{found}");
        let object = format!("topic/{}", found["metadata"]["name"].as_str().unwrap());
        namespace.ready(&object);
    }

    // Changed on one side, visible on the other.
    namespace.patch("topic/by-client", r#"{"spec": {"partitions": 5}}"#).unwrap();
    await_topic(&bootstrap, "by-client", 5).unwrap();
    driver
        .call(&json!({"op": "create_partitions", "topic": "by-kubectl", "partitions": 4}))
        .unwrap();
    eventually("partitions that a client added", || {
        Ok(resource_of(&namespace, "by-kubectl").filter(|t| t["spec"]["partitions"] == 4))
    });
    let alter = json!({"op": "alter_configs", "type": "topic", "name": "by-kubectl", "ops": [["set", "retention.ms", "7200000"]]});
    driver.call(&alter).unwrap();
    eventually("a setting that a client changed", || {
        let value = |t: &Value| t["spec"]["config"]["retention.ms"].to_string();
        Ok(resource_of(&namespace, "by-kubectl").filter(|t| value(t).contains("7200000")))
    });

    // Deleted on one side, gone on the other.
    namespace.kubectl(&["delete", "topic", "by-client"]).unwrap();
    eventually("a topic that kubectl deleted is gone", || {
        Ok((!listed(&mut driver).contains(&"by-client".to_owned())).then_some(()))
    });
    driver.call(&json!({"op": "delete_topic", "topic": "By_Client.v2"})).unwrap();
    eventually("the resource of a topic that a client deleted is gone", || {
        Ok(resource_of(&namespace, "By_Client.v2").is_none().then_some(()))
    });
}

#[test]
fn clients_of_two_clusters_of_a_namespace_may_create_topics_of_one_name() {
    let namespace = Namespace::create("twins").unwrap();
    for cluster in ["one", "two"] {
        let mut driver =
            Driver::start(Client::Java, &namespace.kafka(cluster, 1, "").unwrap()).unwrap();
        driver.create_replicated_topic("orders", 2, 1, &json!({})).unwrap();
        driver.produce(Produce::records("orders", &records(10)).set("acks", "all")).unwrap();
    }
    let topics = namespace.list("topics.weir.dev", "").unwrap();
    let of = |cluster: &str| {
        topics.iter().filter(|t| t["spec"]["clusterRef"]["name"] == cluster).count()
    };
    assert_eq!((of("one"), of("two")), (1, 1), "{topics:?}");
    for topic in &topics {
        namespace.ready(&format!("topic/{}", topic["metadata"]["name"].as_str().unwrap()));
    }
}

#[test]
fn teams_declare_topics_and_groups_in_namespaces_of_their_own() {
    let [home, red, blue] = ["home", "red", "blue"].map(|stem| Namespace::create(stem).unwrap());
    let of_cluster = |kind: &str, name: &str, more: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  clusterRef: {{name: k, namespace: {}}}\n{more}",
            home.name
        )
    };
    let orders = |team: &str| {
        of_cluster(
            "Topic",
            "orders",
            &format!("  topicName: {team}\n  partitions: 1\n  replicas: 1\n"),
        )
    };
    let allowed = "  allowedNamespaces: {from: Selector, selector: {matchLabels: {kafka: mine}}}\n";
    let bootstrap = home.kafka("k", 1, allowed).unwrap();
    let mut driver = Driver::start(Client::Java, &bootstrap).unwrap();
    let label = |team: &Namespace, label: &str| {
        kubectl(&["label", "namespace", &team.name, label]).unwrap()
    };

    // The operator does nothing for namespaces that the cluster does not allow.
    for (team, name) in [(&red, "red"), (&blue, "blue")] {
        team.apply(&orders(name)).unwrap();
        team.apply(&of_cluster("ConsumerGroup", "readers", &format!("  groupId: {name}\n")))
            .unwrap();
        assert_eq!(team.awaits("topic/orders", "Accepted", "False").reason, "NotAllowedByCluster");
        assert_eq!(
            team.awaits("consumergroup/readers", "Ready", "False").reason,
            "NotAllowedByCluster"
        );
    }
    assert!(listed(&mut driver).iter().all(|topic| topic != "red" && topic != "blue"));
    for (team, name) in [(&red, "red"), (&blue, "blue")] {
        let _ = label(team, "kafka=mine");
        team.ready("topic/orders");
        driver.produce(Produce::records(name, &records(10)).set("acks", "all")).unwrap();
        let consume = ["-G", name, "-e", "-q", "-X", "auto.offset.reset=earliest", name];
        kcat(&bootstrap, &consume, b"").unwrap().success().unwrap();
        team.ready("consumergroup/readers");
        eventually("the status says how much it holds", || {
            let topic = team.object("topic/orders")?.unwrap();
            Ok(topic["status"]["bytes"].as_i64().filter(|bytes| *bytes > 0))
        });
    }

    // A namespace that is no longer allowed keeps its topic, but can neither change nor delete it.
    let _ = label(&red, "kafka-");
    assert_eq!(red.awaits("topic/orders", "Accepted", "False").reason, "NotAllowedByCluster");
    red.patch("topic/orders", r#"{"spec": {"partitions": 2}}"#).unwrap();
    red.unprotect("topic/orders").unwrap();
    let before = red.uid("topic/orders").unwrap();
    red.kubectl(&["delete", "topic", "orders"]).unwrap();
    eventually("the Topic comes back", || {
        let topic = red.object("topic/orders")?;
        Ok(topic
            .filter(|topic| topic["metadata"]["uid"] != before && topic["spec"]["partitions"] == 1))
    });
    assert_eq!(driver.consume("red", &[0], From::Beginning, 10).unwrap().len(), 10);

    // Deleting a namespace deletes no protected records. A new namespace of the same name finds
    // them again.
    kubectl(&["delete", "namespace", &blue.name, "--timeout=120s"]).unwrap();
    assert_eq!(driver.consume("blue", &[0], From::Beginning, 10).unwrap().len(), 10);
    kubectl(&["create", "namespace", &blue.name]).unwrap();
    let _ = label(&blue, "kafka=mine");
    blue.ready("topic/orders");
    assert_eq!(driver.consume("blue", &[0], From::Beginning, 10).unwrap().len(), 10);

    // When the namespace is allowed again, the Topic takes effect as written, and the topic of the
    // same name elsewhere stays.
    let _ = label(&red, "kafka=mine");
    let _ = red.awaits("topic/orders", "Accepted", "True");
    red.apply(&orders("red")).unwrap();
    red.patch(
        "topic/orders",
        r#"{"spec": {"deletionPolicy": "Delete", "deletionProtection": false}}"#,
    )
    .unwrap();
    red.ready("topic/orders");
    red.kubectl(&["delete", "topic", "orders"]).unwrap();
    eventually("the topic is gone", || {
        Ok((!listed(&mut driver).contains(&"red".to_owned())).then_some(()))
    });
    assert_eq!(driver.consume("blue", &[0], From::Beginning, 10).unwrap().len(), 10);

    // A Topic in another namespace has no owner reference: it outlives its cluster and says so.
    let topic = blue.object("topic/orders").unwrap().unwrap();
    assert!(topic["metadata"].get("ownerReferences").is_none(), "{topic}");
    home.kubectl(&["delete", "kafkacluster", "k"]).unwrap();
    eventually("the Topic has lost its cluster", || {
        let said = blue.condition("topic/orders", "Ready")?;
        Ok(said.filter(|said| said.reason == "ClusterNotFound"))
    });
}

#[test]
fn a_namespace_is_deleted_in_one_go() {
    let namespace = Namespace::create("gone").unwrap();
    let bootstrap = namespace.kafka("doomed", 2, "").unwrap();
    namespace.apply(&topic("orders", "doomed", 3, 2, "")).unwrap();
    namespace.ready("topic/orders");
    let mut driver = Driver::start(Client::Java, &bootstrap).unwrap();
    driver.create_replicated_topic("of-a-client", 1, 1, &json!({})).unwrap();
    // No finalizer needs the operator, so no order of deletion can hang.
    namespace
        .kubectl(&["delete", "namespace", &namespace.name, "--wait", "--timeout=120s"])
        .unwrap();
}
