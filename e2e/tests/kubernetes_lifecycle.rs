//! What people do to a cluster that is in use: more brokers, fewer, larger volumes, a node to empty, a cluster to take down; what restarts brokers is in `kubernetes_rollout`.
//! Clients write through all of it.
//!
//! Wants `e2e/up` and the `KUBECONFIG` that it prints.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write as _;

use serde_json::json;
use weir_e2e::driver::{Client, Driver, From, Produce};
use weir_e2e::kubernetes::{Cordoned, Namespace, eventually, kafka_cluster, kubectl, topic};
use weir_e2e::load::Load;
use weir_e2e::record::Record;
use weir_e2e::tools::{class, kafka};

/// A cluster of three, and a client that writes to it.
fn load(stem: &str) -> Load {
    Load::start(stem, &[Client::Librdkafka])
}

#[test]
fn a_cluster_grows_and_shrinks_without_losing_anything() {
    let load = load("scale");
    load.namespace
        .patch("kafkacluster/k", r#"{"spec": {"brokers": {"replicas": 4}}}"#)
        .unwrap();
    eventually("the fourth broker serves", || {
        let object = load.namespace.object("statefulset/k")?.unwrap();
        Ok((object["status"]["readyReplicas"] == 4).then_some(()))
    });
    load.namespace.ready("kafkacluster/k");
    // A topic on all four, so that the fourth one holds something that must not be thrown away. It shares one of three zones with another broker, and
    // each zone has a partition in turn: the second one of its zone goes to it, wherever the first of all went.
    load.namespace.apply(&topic("wide", "k", 6, 1, "")).unwrap();
    load.namespace.ready("topic/wide");
    let _ = load.namespace.leader(&load.bootstrap, "wide", 5);
    let mut driver = Driver::start(Client::Java, &load.bootstrap).unwrap();
    let records: Vec<_> = (0..6).map(|p| Record::new("k", p.to_string()).to(p)).collect();
    driver.produce(Produce::records("wide", &records).set("acks", "all")).unwrap();
    load.namespace
        .patch("kafkacluster/k", r#"{"spec": {"brokers": {"replicas": 3}}}"#)
        .unwrap();
    // Refused while the fourth one holds something: every record is there, and the condition says what to do.
    let said = load.namespace.awaits("kafkacluster/k", "Ready", "False");
    assert!(said.message.contains("broker 3 holds replicas"), "{said:?}");
    let read = driver.consume("wide", &[0, 1, 2, 3, 4, 5], From::Beginning, 6).unwrap();
    assert_eq!(read.len(), 6);
    // A setting that is changed meanwhile waits with it; once it holds nothing any more it goes, and the others do not notice.
    reassign(&load.bootstrap, "wide", &[0, 1, 2, 0, 1, 2]);
    eventually("the fourth broker is gone", || Ok((load.namespace.pods("k")?.len() == 3).then_some(())));
    load.namespace.ready("kafkacluster/k");
    let read = driver.consume("wide", &[0, 1, 2, 3, 4, 5], From::Beginning, 6).unwrap();
    assert_eq!(read.len(), 6);
    load.finish();
}

/// Moves each partition of a topic to one broker, as docs/scaling.md says, and waits until all of them are there.
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
    // They never shrink: nothing happens, and the status says why.
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
    let drain = |node: &str, timeout: &str| kubectl(&["drain", node, "--pod-selector=weir.dev/cluster=k", "--delete-emptydir-data", timeout]);
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
    // Its volume is on the node, so it waits for that. No other may go meanwhile.
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
    let generation = || load.namespace.object("statefulset/k").unwrap().unwrap()["metadata"]["generation"].clone();
    let unchanged = generation();
    load.namespace
        .patch(
            "kafkacluster/k",
            r#"{"spec": {"brokers": {"resources": {"requests": {"memory": "100Mi"}}}}}"#,
        )
        .unwrap();
    // It was looked at and left.
    let said = load.namespace.awaits("kafkacluster/k", "UpToDate", "False");
    assert_eq!(said.reason, "Paused");
    assert_eq!(generation(), unchanged);
    assert_eq!(load.namespace.pods("k").unwrap(), before);
    // What brokers need, they have: others lead when one is gone.
    let (leader, uid) = (load.leader(), load.namespace.uid(&format!("pod/{}", load.leader())).unwrap());
    load.namespace
        .kubectl(&["delete", "pod", &leader, "--grace-period=0", "--force"])
        .unwrap();
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
fn a_deleted_cluster_keeps_its_volumes_when_it_is_told_to() {
    let namespace = Namespace::create("retain").unwrap();
    let yaml = kafka_cluster("kept", 1, "").replace("onDelete: Delete", "onDelete: Retain");
    namespace.apply(&yaml).unwrap();
    namespace.ready("kafkacluster/kept");
    namespace.kubectl(&["delete", "kafkacluster", "kept", "--timeout=120s"]).unwrap();
    eventually("the pods are gone", || Ok(namespace.pods("kept")?.is_empty().then_some(())));
    assert!(namespace.object("pvc/data-kept-0").unwrap().is_some(), "the volume is kept");

    // Made anew it is another cluster, which does not take what belongs to the one before.
    namespace.apply(&yaml).unwrap();
    eventually("it is said whose volume it is", || {
        let said = namespace.condition("kafkacluster/kept", "Ready")?;
        Ok(said.filter(|said| said.status == "False" && said.message.contains("belongs to")))
    });
    namespace.warned("kafkacluster/kept", "belongs to");
    namespace.kubectl(&["delete", "kafkacluster", "kept", "--timeout=120s"]).unwrap();

    namespace.kafka("dropped", 1, "").unwrap();
    namespace.kubectl(&["delete", "kafkacluster", "dropped", "--timeout=120s"]).unwrap();
    eventually("the volume is gone", || {
        Ok(namespace.object("pvc/data-dropped-0")?.is_none().then_some(()))
    });
}
