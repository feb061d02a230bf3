//! What cannot be: refused at once with the field and the reason, or said in a condition, and
//! harmful to nobody.

use serde_json::{Value, json};
use weir_e2e::driver::{Client, Driver, From, Produce};
use weir_e2e::kubernetes::{Namespace, eventually, kafka_cluster, operator_restarts, topic};

use super::records;

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
