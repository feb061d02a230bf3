//! Weir on Kubernetes from the users' view: resources, topics and records, and clear messages for
//! errors.
//!
//! Needs `e2e/up` and the `KUBECONFIG` that it prints.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::{Value, json};
use weir_e2e::driver::{Client, Driver, From, Produce};
use weir_e2e::kubernetes::{
    Namespace, eventually, kafka_cluster, kubectl, operator_restarts, topic,
};
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
    kcat(&bootstrap, &["-P", "-t", "orders", "-X", "acks=all"], b"after\n")
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
fn what_is_wrong_is_refused_with_the_reason() {
    let namespace = Namespace::create("refused").unwrap();
    let cluster = |spec: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {{name: wrong}}\nspec: {spec}"
        )
    };
    let of_topic = |spec: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: Topic\nmetadata: {{name: wrong}}\nspec: {spec}"
        )
    };
    for (yaml, reason) in [
        (cluster("{brokers: {replicas: 0}}"), "spec.brokers.replicas"),
        (cluster("{brokers: {replicas: many}}"), "spec.brokers.replicas"),
        (cluster("{brokers: {replicas: 3}, brokrs: {}}"), ".spec.brokrs: field not declared"),
        (cluster("{config: {no.such.setting: 1}}"), "no.such.setting"),
        (
            cluster("{brokers: {replicas: 1}, config: {default.replication.factor: 3}}"),
            "must not be greater than brokers.replicas",
        ),
        (cluster("{brokers: {replicas: 1, storage: {size: lots}}}"), "spec.brokers.storage.size"),
        (
            cluster(
                "{listeners: [{name: a, port: 9092, type: Internal}, {name: a, port: 9093, type: Internal}]}",
            ),
            "spec.listeners",
        ),
        (
            cluster("{listeners: [{name: a, port: 99999, type: Internal}]}"),
            "spec.listeners[0].port",
        ),
        (cluster("{listeners: [{name: a, port: 9092, type: Carrier}]}"), "spec.listeners[0].type"),
        (
            cluster("{listeners: [{name: a, port: 9092, type: NodePort}]}"),
            "the first listener must be of type Internal",
        ),
        (cluster("{listeners: [{name: a, port: 9092, host: 7}]}"), "].host: expected string"),
        (cluster("{image: \"\"}"), "spec.image"),
        (cluster("{paused: perhaps}"), "spec.paused"),
        (cluster("{consumerGroups: {reflect: Some}}"), "spec.consumerGroups.reflect"),
        (cluster("{consumerGroups: {max: 0}}"), "spec.consumerGroups.max"),
        (cluster("{brokers: {config: {\"0\": {no.such.setting: 1}}}}"), "no.such.setting"),
        (cluster("{brokers: {storage: {onDelete: Burn}}}"), "spec.brokers.storage.onDelete"),
        (
            cluster("{brokers: {resources: {limits: {memory: much}}}}"),
            "spec.brokers.resources.limits.memory",
        ),
        (cluster("{brokers: {pod: {labels: {a: 1}}}}"), "spec.brokers.pod.labels.a"),
        (
            cluster("{brokers: {pod: {imagePullSecrets: [{name: \"\"}]}}}"),
            "spec.brokers.pod.imagePullSecrets[0].name",
        ),
        (cluster("{}").replace("wrong", "a.b"), "a cluster's name has lower-case letters"),
        (cluster("{}").replace("wrong", &"a".repeat(38)), "at most 37 characters"),
        (of_topic("{clusterRef: {name: a}, deletionPolicy: Burn}"), "spec.deletionPolicy"),
        (
            of_topic("{clusterRef: {name: a}, replicas: 1, config: {min.insync.replicas: 2}}"),
            "min.insync.replicas",
        ),
        (of_topic("{}"), "spec.clusterRef"),
        (of_topic("{clusterRef: {name: a}, partitions: 0}"), "spec.partitions"),
        (of_topic("{clusterRef: {name: a}, partitions: 1, replicas: 0}"), "spec.replicas"),
        (of_topic("{clusterRef: {name: a}, topicName: \"no spaces\"}"), "spec.topicName"),
        (of_topic("{clusterRef: {name: a}, config: {cleanup.policy: shred}}"), "cleanup.policy"),
        (of_topic("{clusterRef: {name: a}, config: {retention.ms: soon}}"), "retention.ms"),
        (of_topic("{clusterRef: {name: a}, partitons: 3}"), ".spec.partitons: field not declared"),
    ] {
        let refusal = namespace.refused(&yaml);
        assert!(refusal.contains(reason), "{yaml}\nshould say {reason}, but says\n{refusal}");
    }
    // Immutable fields.
    namespace.apply(&topic("fixed", "nowhere", 3, 1, "")).unwrap();
    let group = |cluster: &str, id: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: ConsumerGroup\nmetadata: {{name: fixed}}\nspec: {{clusterRef: {{name: {cluster}}}, groupId: {id}}}"
        )
    };
    namespace.apply(&group("nowhere", "g")).unwrap();
    let spec = "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {name: fixed}\nspec:\n  paused: true\n  brokers: {replicas: 1, storage: {storageClassName: fast}}\n";
    namespace.apply(spec).unwrap();
    for (yaml, reason) in [
        (group("elsewhere", "g"), "clusterRef cannot change"),
        (group("nowhere", "h"), "groupId"),
        (spec.replace("fast", "slow"), "storageClassName cannot change"),
        (
            format!("{spec}  listeners: [{{name: other, port: 9092}}]\n"),
            "the first listener keeps its name",
        ),
        (topic("fixed", "nowhere", 2, 1, ""), "partitions"),
        (topic("fixed", "elsewhere", 3, 1, ""), "clusterRef"),
        (topic("fixed", "nowhere", 3, 1, "  topicName: other\n"), "topicName"),
    ] {
        let refusal = namespace.refused(&yaml);
        assert!(refusal.contains(reason), "{yaml}\nshould say {reason}, but says\n{refusal}");
    }
}

/// The API server's verdict on each field equals our own check (`crds/fields.jsonl`); two calls
/// that write nothing show it. kubectl must not validate first and stop at the first fault. But
/// other clients of the API server drop unknown fields.
#[test]
fn each_field_is_taken_and_refused_as_our_own_check_says() {
    let namespace = Namespace::create("fields").unwrap();
    let lines = std::fs::read_to_string(weir_e2e::workspace().join("crds/fields.jsonl")).unwrap();
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let dry_run = |takes: bool| {
        let of_these = rows.iter().enumerate().filter(|(_, row)| row["takes"] == takes);
        let (mut items, mut names) = (Vec::new(), Vec::new());
        for (line, row) in of_these {
            let name = format!("row-{line}-of-fields");
            items.push(json!({"apiVersion": "weir.dev/v1alpha1", "kind": row["kind"], "metadata": {"name": name}, "spec": row["spec"]}));
            names.push((name, row));
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        std::fs::write(file.path(), list.to_string()).unwrap();
        let path = file.path().to_str().unwrap();
        let printed = namespace.kubectl(&[
            "create",
            "--dry-run=server",
            "--validate=false",
            "--filename",
            path,
        ]);
        (printed, names)
    };
    let (printed, names) = dry_run(true);
    assert!(!names.is_empty());
    printed.unwrap();
    let (printed, names) = dry_run(false);
    let printed = printed.unwrap_err().to_string();
    for (name, row) in names.into_iter().filter(|(_, row)| !row.to_string().contains("nosuchfield"))
    {
        let is_refused =
            printed.lines().any(|line| line.contains(&name) && !line.contains(" created"));
        assert!(is_refused, "the API server takes {row}");
    }
}

#[test]
fn what_cannot_be_done_is_said_and_harms_nobody() {
    let namespace = Namespace::create("said").unwrap();
    let bootstrap = namespace.kafka("sound", 1, "").unwrap();
    namespace.apply(&topic("fine", "sound", 1, 1, "")).unwrap();
    namespace.ready("topic/fine");

    // A Topic of a missing cluster.
    namespace.apply(&topic("lost", "missing", 1, 1, "")).unwrap();
    let said = namespace.awaits("topic/lost", "Ready", "False");
    assert!(said.message.contains("missing"), "{said:?}");
    namespace.warned("topic/lost", "there is no KafkaCluster");
    // Two Topics for one Kafka topic: the older one owns it.
    namespace.apply(&topic("second", "sound", 1, 1, "  topicName: fine\n")).unwrap();
    let said = namespace.awaits("topic/second", "Ready", "False");
    assert!(said.message.contains("fine"), "{said:?}");
    namespace.ready("topic/fine");
    // More replicas than brokers.
    namespace.apply(&topic("greedy", "sound", 1, 3, "")).unwrap();
    let said = namespace.awaits("topic/greedy", "Ready", "False");
    assert!(said.message.contains("the cluster has 1"), "{said:?}");
    namespace.warned("topic/greedy", "the cluster has 1");
    // A missing storage class.
    let mut wrong = kafka_cluster("nowhere", 1, "");
    wrong = wrong.replace("size: 1Gi", "size: 1Gi, storageClassName: no-such-class");
    namespace.apply(&wrong).unwrap();
    let said = namespace.awaits("kafkacluster/nowhere", "StorageOk", "False");
    assert!(said.message.contains("no-such-class"), "{said:?}");
    namespace.warned("kafkacluster/nowhere", "no-such-class");
    // A field that only the API server can refuse, in a running cluster.
    let patched = |dns_policy: &str| {
        format!(
            r#"{{"spec": {{"brokers": {{"podTemplate": {{"spec": {{"dnsPolicy": {dns_policy}}}}}}}}}}}"#
        )
    };
    namespace.patch("kafkacluster/sound", &patched(r#""Never""#)).unwrap();
    let said = namespace.awaits("kafkacluster/sound", "UpToDate", "False");
    assert!(said.reason == "Failed" && said.message.contains("dnsPolicy"), "{said:?}");
    namespace.warned("kafkacluster/sound", "dnsPolicy");
    assert_eq!(namespace.awaits("kafkacluster/sound", "Available", "True").reason, "Available");
    // A misspelt field, which the API server would drop silently, in a new cluster.
    let misspelt = kafka_cluster("misspelt", 1, "")
        .replace("replicas: 1\n", "replicas: 1\n    podTemplate: {spec: {dnsPolicee: Default}}\n");
    namespace.apply(&misspelt).unwrap();
    let said = namespace.awaits("kafkacluster/misspelt", "Stalled", "True");
    assert!(said.reason == "Failed" && said.message.contains("dnsPolicee"), "{said:?}");

    // None of it harmed the sound cluster.
    let mut driver = Driver::start(Client::Librdkafka, &bootstrap).unwrap();
    driver.produce(Produce::records("fine", &records(10)).set("acks", "all")).unwrap();
    assert_eq!(driver.consume("fine", &[0], From::Beginning, 10).unwrap().len(), 10);
    // Once the cause is fixed, the rest follows: the Topic that waited for its cluster is created.
    namespace.patch("kafkacluster/sound", &patched("null")).unwrap();
    let _ = namespace.awaits("kafkacluster/sound", "UpToDate", "True");
    namespace.ready("kafkacluster/sound");
    namespace.kafka("missing", 1, "").unwrap();
    namespace.ready("topic/lost");
    assert_eq!(operator_restarts().unwrap(), 0);
}

#[test]
fn a_quota_that_blocks_pods_is_said_and_once_it_is_lifted_the_cluster_comes_up() {
    let namespace = Namespace::create("quota").unwrap();
    let quota =
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: tight}\nspec: {hard: {pods: '1'}}\n";
    namespace.apply(quota).unwrap();
    eventually("the quota counts", || {
        Ok(namespace.object("resourcequota/tight")?.filter(|q| q["status"]["hard"]["pods"] == "1"))
    });
    namespace.apply(&kafka_cluster("blocked", 2, "")).unwrap();
    eventually("the quota is said", || {
        let said = namespace.condition("kafkacluster/blocked", "Ready")?;
        Ok(said.filter(|said| said.status == "False" && said.message.contains("exceeded quota")))
    });
    namespace.warned("kafkacluster/blocked", "exceeded quota");
    namespace.kubectl(&["delete", "resourcequota", "tight"]).unwrap();
    namespace.ready("kafkacluster/blocked");
    assert_eq!(operator_restarts().unwrap(), 0);
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
