//! Administration of a cluster in use: adding and removing brokers, larger volumes, draining a
//! node, deleting the cluster. `kubernetes_rollout` has the changes that restart brokers. Clients
//! write all the time.
//!
//! Needs `e2e/up` and the `KUBECONFIG` that it prints.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write as _;

use serde_json::{Value, json};
use weir_e2e::driver::{Client, Driver, From, Produce};
use weir_e2e::kubernetes::{
    Cordoned, Namespace, OPERATOR_NAMESPACE, condition, eventually, kafka_cluster, kubectl, run,
    topic,
};
use weir_e2e::load::Load;
use weir_e2e::record::Record;
use weir_e2e::tools::{class, kafka};

/// A cluster of three brokers, and a client that writes to it.
fn load(stem: &str) -> Load {
    Load::start(stem, &[Client::Librdkafka])
}

#[test]
fn a_cluster_grows_and_shrinks_without_losing_anything() {
    let load = load("scale");
    load.namespace.patch("kafkacluster/k", r#"{"spec": {"brokers": {"replicas": 4}}}"#).unwrap();
    eventually("the fourth broker serves", || {
        let object = load.namespace.object("statefulset/k")?.unwrap();
        Ok((object["status"]["readyReplicas"] == 4).then_some(()))
    });
    load.namespace.ready("kafkacluster/k");
    // A topic on all four brokers, so that the fourth has records that must not be lost. The fourth
    // shares one of three zones with another broker, and the zones get partitions in turn. So it
    // gets the second partition of its zone, whichever zone comes first.
    load.namespace.apply(&topic("wide", "k", 6, 1, "")).unwrap();
    load.namespace.ready("topic/wide");
    let _ = load.namespace.leader(&load.bootstrap, "wide", 5);
    let mut driver = Driver::start(Client::Java, &load.bootstrap).unwrap();
    let records: Vec<_> = (0..6).map(|p| Record::new("k", p.to_string()).to(p)).collect();
    driver.produce(Produce::records("wide", &records).set("acks", "all")).unwrap();
    load.namespace.patch("kafkacluster/k", r#"{"spec": {"brokers": {"replicas": 3}}}"#).unwrap();
    // The fourth broker stays while it has replicas: every record is there, and the condition says
    // what to do.
    eventually("it is said what to do", || {
        let said = load.namespace.condition("kafkacluster/k", "UpToDate")?;
        Ok(said.filter(|said| {
            said.reason == "ScaleDownBlocked" && said.message.contains("broker 3 holds replicas")
        }))
    });
    let read = driver.consume("wide", &[0, 1, 2, 3, 4, 5], From::Beginning, 6).unwrap();
    assert_eq!(read.len(), 6);
    // New partitions do not go there. Once the fourth broker has no replica, it goes, and the
    // others do not notice.
    load.namespace.apply(&topic("later", "k", 6, 1, "")).unwrap();
    load.namespace.ready("topic/later");
    reassign(&load.bootstrap, "wide", &[0, 1, 2, 0, 1, 2]);
    eventually("the fourth broker is gone", || {
        Ok((load.namespace.pods("k")?.len() == 3).then_some(()))
    });
    load.namespace.ready("kafkacluster/k");
    let read = driver.consume("wide", &[0, 1, 2, 3, 4, 5], From::Beginning, 6).unwrap();
    assert_eq!(read.len(), 6);
    load.finish();
}

/// Moves each partition of a topic to one broker, as in docs/scaling.md, and waits until all are
/// there.
fn reassign(bootstrap: &str, topic: &str, brokers: &[i32]) {
    let partitions: Vec<_> = brokers
        .iter()
        .enumerate()
        .map(|(p, broker)| json!({"topic": topic, "partition": p, "replicas": [broker]}))
        .collect();
    let mut plan = tempfile::NamedTempFile::new().unwrap();
    write!(plan, "{}", json!({"version": 1, "partitions": partitions})).unwrap();
    let file = plan.path().to_string_lossy().into_owned();
    let run = |what: &str| {
        kafka(
            class::REASSIGN,
            &["--bootstrap-server", bootstrap, "--reassignment-json-file", &file, what],
            "",
        )
    };
    run("--execute").unwrap().success().unwrap();
    eventually("the partitions have moved", || {
        let said = run("--verify")?.success()?;
        Ok((said.matches("is completed").count() == brokers.len()).then_some(()))
    });
}

#[test]
fn volumes_grow_while_clients_write() {
    let load = load("grow");
    load.namespace
        .patch("kafkacluster/k", r#"{"spec": {"brokers": {"storage": {"size": "2Gi"}}}}"#)
        .unwrap();
    eventually("every volume has the new size", || {
        let claims = load.namespace.list("pvc", "weir.dev/cluster=k")?;
        let grown = claims.iter().filter(|c| c["status"]["capacity"]["storage"] == "2Gi").count();
        Ok((grown == 3).then_some(()))
    });
    // Volumes never shrink: nothing happens, and the status has the reason.
    load.namespace
        .patch("kafkacluster/k", r#"{"spec": {"brokers": {"storage": {"size": "1Gi"}}}}"#)
        .unwrap();
    let said = load.namespace.awaits("kafkacluster/k", "StorageOk", "False");
    assert!(said.message.contains("cannot shrink"), "{said:?}");
    let back = r#"{"spec": {"brokers": {"storage": {"size": "2Gi"}}}}"#;
    load.namespace.patch("kafkacluster/k", back).unwrap();
    let _ = load.namespace.awaits("kafkacluster/k", "StorageOk", "True");
    load.finish();
}

#[test]
fn a_node_is_drained_and_no_second_one_with_it() {
    let load = load("drain");
    let drain = |node: &str, timeout: &str| {
        kubectl(&[
            "drain",
            node,
            "--pod-selector=weir.dev/cluster=k",
            "--delete-emptydir-data",
            timeout,
        ])
    };
    let nodes: Vec<_> = (0..3)
        .map(|id| (format!("k-{id}"), load.namespace.node_of(&format!("k-{id}")).unwrap()))
        .collect();
    let (pod, node) = nodes.iter().find(|(_, node)| !node.ends_with("control-plane")).unwrap();
    let (other, second) = nodes.iter().find(|(_, other)| other != node).unwrap();
    let uid = |pod: &str| load.namespace.uid(&format!("pod/{pod}")).unwrap();
    let (before, untouched) = (uid(pod), uid(other));
    let (first, also) = (Cordoned::node(node).unwrap(), Cordoned::node(second).unwrap());
    drain(node, "--timeout=150s").unwrap();
    load.moves();
    // The pod's volume is on the node, so the pod waits for the node. No other pod may go
    // meanwhile.
    let refused = format!("{:#}", drain(second, "--timeout=5s").unwrap_err());
    assert!(refused.contains("disruption budget"), "{refused}");
    assert_eq!(uid(other), untouched);
    drop((first, also));
    let _ = load.successor(pod, &before);
    load.finish();
}

#[test]
fn a_paused_cluster_serves_and_changes_nothing() {
    let load = load("pause");
    load.namespace.patch("kafkacluster/k", r#"{"spec": {"paused": true}}"#).unwrap();
    let _ = load.namespace.awaits("kafkacluster/k", "Paused", "True");
    let before = load.namespace.pods("k").unwrap();
    let generation = || {
        load.namespace.object("statefulset/k").unwrap().unwrap()["metadata"]["generation"].clone()
    };
    let unchanged = generation();
    load.namespace
        .patch(
            "kafkacluster/k",
            r#"{"spec": {"brokers": {"resources": {"requests": {"memory": "100Mi"}}}}}"#,
        )
        .unwrap();
    // The operator saw the change and left it alone.
    let said = load.namespace.awaits("kafkacluster/k", "UpToDate", "False");
    assert_eq!(said.reason, "Paused");
    assert_eq!(generation(), unchanged);
    assert_eq!(load.namespace.pods("k").unwrap(), before);
    // The running brokers keep working: another one leads when one is gone.
    let (leader, uid) =
        (load.leader(), load.namespace.uid(&format!("pod/{}", load.leader())).unwrap());
    load.namespace.kubectl(&["delete", "pod", &leader, "--grace-period=0", "--force"]).unwrap();
    load.moves();
    let _ = load.successor(&leader, &uid);
    load.whole();
    assert_eq!(generation(), unchanged);
    let paused = load.namespace.pods("k").unwrap();
    load.namespace.patch("kafkacluster/k", r#"{"spec": {"paused": false}}"#).unwrap();
    eventually("what was put off happens", || {
        let now = load.namespace.pods("k")?;
        Ok((now.len() == 3 && now.is_disjoint(&paused)).then_some(()))
    });
    load.finish();
}

#[test]
fn a_deleted_cluster_goes_on_when_it_is_made_again_where_its_volumes_are_kept() {
    let namespace = Namespace::create("retain").unwrap();
    let yaml = kafka_cluster("kept", 1, "").replace("onDelete: Delete", "onDelete: Retain");
    let protected = yaml.replace("deletionProtection: false", "deletionProtection: true");
    let delete = || {
        namespace.kubectl(&["delete", "kafkacluster", "kept", "--timeout=120s"]).unwrap();
        eventually("the pods are gone", || Ok(namespace.pods("kept")?.is_empty().then_some(())));
    };
    namespace.apply(&protected).unwrap();
    namespace.ready("kafkacluster/kept");
    let id = namespace.object("kafkacluster/kept").unwrap().unwrap()["status"]["clusterId"].clone();
    // A client creates the topic with three records, of which a group has read two.
    let bootstrap = namespace.bootstrap("kept");
    let mut driver = Driver::start(Client::Java, &bootstrap).unwrap();
    driver.create_topic("made", 1, &json!({})).unwrap();
    let records: Vec<_> = (0..3).map(|n| Record::new("k", n.to_string()).to(0)).collect();
    driver.produce(Produce::records("made", &records).set("acks", "all")).unwrap();
    drop(driver);
    let group = |bootstrap: &str, what: &[&str]| {
        let all = [&["--bootstrap-server", bootstrap, "--group", "g"], what].concat();
        kafka(class::CONSUMER_GROUPS, &all, "").unwrap().success().unwrap()
    };
    let _ =
        group(&bootstrap, &["--reset-offsets", "--to-offset", "2", "--topic", "made", "--execute"]);
    // Deletion protection keeps objects that hold records.
    for object in ["topic/made", "kafkacluster/kept"] {
        eventually("it is known that there are records", || {
            Ok(namespace
                .object(object)?
                .filter(|object| object["status"]["bytes"].as_i64() > Some(0)))
        });
        let refused =
            format!("{:#}", namespace.kubectl(&["delete", object, "--timeout=60s"]).unwrap_err());
        assert!(refused.contains("set spec.deletionProtection to false"), "{refused}");
    }
    namespace.unprotect("kafkacluster/kept").unwrap();
    delete();
    for kept in ["pvc/data-kept-0", "topic/made", "partitiontable/kept-registry"] {
        assert!(namespace.object(kept).unwrap().is_some(), "{kept} is kept");
    }

    namespace.apply(&yaml).unwrap();
    namespace.ready("kafkacluster/kept");
    namespace.ready("topic/made");
    assert_eq!(namespace.object("kafkacluster/kept").unwrap().unwrap()["status"]["clusterId"], id);
    let bootstrap = namespace.bootstrap("kept");
    let mut driver = Driver::start(Client::Java, &bootstrap).unwrap();
    let more = Produce::records("made", &[Record::new("k", "3").to(0)]).set("acks", "all");
    assert_eq!(driver.produce(more).unwrap(), [(0, 3)]);
    let read = driver.consume("made", &[0], From::Beginning, 4).unwrap();
    let values: Vec<_> = read.iter().map(Record::text).collect();
    assert_eq!(values, ["0", "1", "2", "3"]);
    drop(driver);
    let described = group(&bootstrap, &["--describe"]);
    let offset = described.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "made");
        words.nth(2).map(str::to_owned)
    });
    assert_eq!(offset.as_deref(), Some("2"), "{described}");
    delete();

    // Without the PartitionTables the volumes belong to another cluster, and the new one does not
    // use them. The topic of committed offsets holds records too.
    for topic in namespace.kubectl(&["get", "topics", "--output=name"]).unwrap().lines() {
        namespace.unprotect(topic).unwrap();
    }
    namespace.kubectl(&["delete", "partitiontables,topics", "--all"]).unwrap();
    namespace.apply(&yaml).unwrap();
    eventually("it is said whose volume it is", || {
        let said = namespace.condition("kafkacluster/kept", "Ready")?;
        Ok(said.filter(|said| said.status == "False" && said.message.contains("belongs to")))
    });
    namespace.warned("kafkacluster/kept", "belongs to");
    delete();

    namespace.kafka("dropped", 1, "").unwrap();
    namespace.kubectl(&["delete", "kafkacluster", "dropped", "--timeout=120s"]).unwrap();
    eventually("the volume is gone", || {
        Ok(namespace.object("pvc/data-dropped-0")?.is_none().then_some(()))
    });
}

/// Objects with names that the clusters `shop` and `cart` need. Anyone may set these labels.
const SOMEBODY_ELSES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: shop-bootstrap, labels: {app.kubernetes.io/managed-by: weir-operator, weir.dev/cluster: shop}}
spec: {selector: {app: theirs}, ports: [{name: theirs, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop-7, labels: {app.kubernetes.io/managed-by: weir-operator, weir.dev/cluster: shop}}
spec: {selector: {app: theirs}, ports: [{name: theirs, port: 80}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: shop}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: theirs}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: shop}
spec: {podSelector: {matchLabels: {app: theirs}}, policyTypes: [Ingress]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cart-brokers}
data: {theirs: "yes"}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data-cart-0}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;

/// An object without the fields that Kubernetes itself writes.
fn written(mut object: Value) -> Value {
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.retain(|name, _| {
        ["name", "uid", "labels", "annotations", "ownerReferences"].contains(&name.as_str())
    });
    object.as_object_mut().unwrap().remove("status");
    // A claim is bound meanwhile, which changes its annotations and its spec.
    if object["kind"] == "PersistentVolumeClaim" {
        object["metadata"].as_object_mut().unwrap().remove("annotations");
        object["spec"].as_object_mut().unwrap().remove("volumeName");
    }
    object
}

#[test]
fn what_somebody_else_made_is_never_touched() {
    let namespace = Namespace::create("taken").unwrap();
    namespace.apply(SOMEBODY_ELSES).unwrap();
    let theirs = [
        "service/shop-bootstrap",
        "service/shop-7",
        "poddisruptionbudget/shop",
        "networkpolicy/shop",
        "configmap/cart-brokers",
        "persistentvolumeclaim/data-cart-0",
    ];
    let seen = |name: &str| written(namespace.object(name).unwrap().unwrap());
    let before: Vec<Value> = theirs.iter().map(|name| seen(name)).collect();
    namespace.apply(&kafka_cluster("shop", 1, "")).unwrap();
    namespace.apply(&kafka_cluster("cart", 1, "")).unwrap();

    let said = namespace.awaits("kafkacluster/shop", "NameTaken", "True");
    for (kind, name) in
        [("Service", "shop-bootstrap"), ("PodDisruptionBudget", "shop"), ("NetworkPolicy", "shop")]
    {
        let named = format!("the {kind} {}/{name} was made by somebody else", namespace.name);
        assert!(said.message.contains(&named), "{said:?}");
    }
    namespace.warned("kafkacluster/shop", "was made by somebody else");
    // The rest of the cluster works.
    eventually("the broker of shop serves", || {
        let set = namespace.object("statefulset/shop")?;
        Ok(set.is_some_and(|set| set["status"]["readyReplicas"] == 1).then_some(()))
    });
    // But no broker uses an object of another owner.
    let said = namespace.awaits("kafkacluster/cart", "NameTaken", "True");
    for named in ["ConfigMap", "PersistentVolumeClaim"] {
        assert!(said.message.contains(named), "{said:?}");
    }
    assert!(namespace.object("statefulset/cart").unwrap().is_none());
    let after: Vec<Value> = theirs.iter().map(|name| seen(name)).collect();
    assert_eq!(after, before);

    // The operator takes the names once they are free.
    for name in
        ["service/shop-bootstrap", "configmap/cart-brokers", "persistentvolumeclaim/data-cart-0"]
    {
        namespace.kubectl(&["delete", name, "--timeout=60s"]).unwrap();
    }
    namespace.ready("kafkacluster/cart");
    eventually("the cluster has its Service", || {
        let service = namespace.object("service/shop-bootstrap")?;
        let owner = |service: &Value| service["metadata"]["ownerReferences"][0]["name"].clone();
        Ok(service.is_some_and(|service| owner(&service) == "shop").then_some(()))
    });
    // Objects that do not belong to the cluster are not deleted with it.
    let uids = |name: &str| namespace.uid(name).unwrap();
    let kept = ["service/shop-7", "poddisruptionbudget/shop", "networkpolicy/shop"];
    let before: Vec<String> = kept.iter().map(|name| uids(name)).collect();
    namespace.kubectl(&["delete", "kafkacluster", "shop", "--timeout=120s"]).unwrap();
    eventually("the cluster is gone", || {
        Ok(namespace.object("service/shop-bootstrap")?.is_none().then_some(()))
    });
    eventually("the pods are gone", || Ok(namespace.pods("shop")?.is_empty().then_some(())));
    assert_eq!(kept.iter().map(|name| uids(name)).collect::<Vec<_>>(), before);
}

/// Kubernetes creates the claim before it finds that the pod's name is taken.
#[test]
fn the_volume_of_a_broker_whose_name_was_taken_goes_with_its_cluster() {
    let namespace = Namespace::create("lent").unwrap();
    let restricted = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    let container = json!({"name": "theirs", "image": "theirs", "securityContext": restricted});
    let theirs = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lent-0"}, "spec": {"nodeSelector": {"no": "such"}, "containers": [container]}});
    namespace.apply(&theirs.to_string()).unwrap();
    let before = namespace.uid("pod/lent-0").unwrap();
    namespace.apply(&kafka_cluster("lent", 1, "")).unwrap();
    let said = namespace.awaits("kafkacluster/lent", "NameTaken", "True");
    assert!(said.message.contains("/lent-0 was made by somebody else"), "{said:?}");
    eventually("the claim names its cluster", || {
        let claim = namespace.object("pvc/data-lent-0")?.unwrap_or_default();
        Ok((claim["metadata"]["ownerReferences"][0]["kind"] == "KafkaCluster").then_some(()))
    });
    namespace.kubectl(&["delete", "kafkacluster", "lent", "--timeout=120s"]).unwrap();
    eventually("the claim is gone", || {
        Ok(namespace.object("pvc/data-lent-0")?.is_none().then_some(()))
    });
    assert_eq!(namespace.uid("pod/lent-0").unwrap(), before);
}

#[test]
fn a_cluster_named_like_the_operator_takes_nothing_from_it() {
    let kubectl = |arguments: &[&str]| kubectl(&[&["-n", OPERATOR_NAMESPACE], arguments].concat());
    let object = |name: &str| -> Option<Value> {
        let text = kubectl(&["get", name, "--ignore-not-found", "-o", "json"]).unwrap();
        (!text.trim().is_empty()).then(|| serde_json::from_str(&text).unwrap())
    };
    let theirs = [
        "poddisruptionbudget/weir-operator",
        "serviceaccount/weir-operator",
        "service/weir-operator",
    ];
    let seen = || theirs.map(|name| written(object(name).unwrap()));
    let before = seen();
    let yaml = kafka_cluster("weir-operator", 1, "");
    run("kubectl", &["-n", OPERATOR_NAMESPACE, "apply", "-f", "-"], &yaml).unwrap();
    let taken = std::panic::catch_unwind(|| {
        let said = eventually("it is said what has the cluster's names", || {
            let cluster = object("kafkacluster/weir-operator");
            let said = cluster.and_then(|cluster| condition(&cluster, "NameTaken"));
            Ok(said.filter(|said| said.status == "True"))
        });
        assert!(
            said.message.contains("the PodDisruptionBudget weir-system/weir-operator"),
            "{said:?}"
        );
        assert!(said.message.contains("\"Helm\" manages it"), "{said:?}");
        eventually("its broker serves", || {
            let set = object("statefulset/weir-operator");
            Ok(set.is_some_and(|set| set["status"]["readyReplicas"] == 1).then_some(()))
        });
        seen()
    });
    kubectl(&["delete", "kafkacluster", "weir-operator", "--timeout=120s"]).unwrap();
    assert_eq!(taken.unwrap(), before);
    eventually("the cluster is gone", || {
        Ok(object("statefulset/weir-operator").is_none().then_some(()))
    });
    assert_eq!(seen(), before);
}

/// A quota of one Topic, which exists already.
const QUOTA: &str = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: topics}\nspec: {hard: {count/topics.weir.dev: \"1\"}}\n";

#[test]
fn a_clients_change_is_written_and_nothing_else_and_costs_itself_where_it_is_refused() {
    let namespace = Namespace::create("clients").unwrap();
    let bootstrap = namespace.kafka("k", 1, "").unwrap();
    namespace.apply(&topic("t", "k", 1, 1, "")).unwrap();
    namespace.ready("topic/t");
    let tool = |class: &str, arguments: &[&str]| {
        kafka(class, &[&["--bootstrap-server", &bootstrap], arguments].concat(), "").unwrap()
    };
    let alter = [
        "--alter",
        "--entity-type",
        "topics",
        "--entity-name",
        "t",
        "--add-config",
        "retention.ms=86400000",
    ];
    let epoch = || {
        namespace.object("partitiontable/k-registry").unwrap().unwrap()["spec"]["controllerEpoch"]
            .clone()
    };
    let before = epoch();

    // A refused spec, because there is only one broker. Then a client changes another part of it.
    let wish = r#"{"spec": {"replicas": 3, "config": {"retention.bytes": 1073741824}}}"#;
    namespace.patch("topic/t", wish).unwrap();
    let said = namespace.awaits("topic/t", "Ready", "False");
    assert!(said.message.contains("3 replicas need as many brokers"), "{said:?}");
    tool(class::CONFIGS, &alter).success().unwrap();
    let spec = namespace.object("topic/t").unwrap().unwrap()["spec"].clone();
    assert_eq!(spec["replicas"], 3);
    assert_eq!(
        spec["config"],
        json!({"retention.bytes": 1_073_741_824, "retention.ms": 86_400_000})
    );
    // The user takes back the refused part; the client's change is accepted with the rest.
    namespace.patch("topic/t", r#"{"spec": {"replicas": 1}}"#).unwrap();
    namespace.ready("topic/t");

    // The client gets the API server's refusal with its message.
    namespace.apply(QUOTA).unwrap();
    eventually("the quota counts", || {
        let quota = namespace.object("resourcequota/topics")?.unwrap_or_default();
        Ok((quota["status"]["used"]["count/topics.weir.dev"] == "1").then_some(()))
    });
    let create = ["--create", "--topic", "more", "--partitions", "1", "--replication-factor", "1"];
    let refused = tool(class::TOPICS, &create);
    let printed = format!("{}{}", refused.out, refused.err);
    assert!(!refused.ok && printed.contains("exceeded quota"), "{printed}");
    assert!(printed.contains("PolicyViolationException"), "{printed}");
    // The refusal affects nothing else.
    tool(class::CONFIGS, &alter).success().unwrap();
    assert_eq!(epoch(), before, "the controller has begun anew");
    namespace.kubectl(&["delete", "resourcequota", "topics"]).unwrap();
    eventually("the topic is made", || {
        let made = tool(class::TOPICS, &create);
        Ok((made.ok || made.err.contains("already exists")).then_some(()))
    });
    assert_eq!(epoch(), before, "the controller has begun anew");
}
