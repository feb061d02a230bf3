//! Administration of a cluster in use: adding and removing brokers, larger volumes, draining a
//! node, deleting the cluster. `taken` has objects of others, and the suite `kubernetes_rollout`
//! the changes that restart brokers. Clients write all the time.
//!
//! Needs `e2e/up` and the `KUBECONFIG` that it prints.
#![allow(clippy::unwrap_used, missing_docs)]

mod taken;

use std::io::Write as _;

use serde_json::json;
use weir_e2e::driver::{Client, Driver, From, Produce};
use weir_e2e::kubernetes::{Cordoned, Namespace, eventually, kafka_cluster, kubectl, topic};
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
    let drain = |node: &str, options: &[&str]| {
        let all = ["drain", node, "--pod-selector=weir.dev/cluster=k", "--delete-emptydir-data"];
        kubectl(&[&all, options].concat())
    };
    let nodes: Vec<_> = (0..3)
        .map(|id| (format!("k-{id}"), load.namespace.node_of(&format!("k-{id}")).unwrap()))
        .collect();

    // A topic on two brokers that can spare neither holds these two, and not the third.
    let tight = |min_isr: u8| {
        let config = format!("  config: {{min.insync.replicas: {min_isr}}}\n");
        load.namespace.apply(&topic("tight", "k", 1, 2, &config)).unwrap();
    };
    tight(2);
    let said = load.namespace.awaits("kafkacluster/k", "DrainBlocked", "True");
    let (who, _) = said.message.split_once('(').unwrap();
    eventually("the third broker alone can be evicted", || {
        let evicts = |node: &str| drain(node, &["--dry-run=server", "--timeout=2s"]).is_ok();
        let can: Vec<_> = nodes.iter().filter(|(_, node)| evicts(node)).collect();
        let is_free = |pod: &str| !who.contains(pod.trim_start_matches("k-"));
        Ok((can.len() == 1 && is_free(&can[0].0)).then_some(()))
    });
    tight(1);
    let _ = load.namespace.awaits("kafkacluster/k", "DrainBlocked", "False");

    let (pod, node) = nodes.iter().find(|(_, node)| !node.ends_with("control-plane")).unwrap();
    let (other, second) = nodes.iter().find(|(_, other)| other != node).unwrap();
    let uid = |pod: &str| load.namespace.uid(&format!("pod/{pod}")).unwrap();
    let (before, untouched) = (uid(pod), uid(other));
    let (first, also) = (Cordoned::node(node).unwrap(), Cordoned::node(second).unwrap());
    drain(node, &["--timeout=150s"]).unwrap();
    load.moves();
    // The pod's volume is on the node, so the pod waits for the node. No other pod may go
    // meanwhile.
    let refused = format!("{:#}", drain(second, &["--timeout=5s"]).unwrap_err());
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
    namespace.unprotect_tables().unwrap();
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
