//! Faults of pods and nodes while clients write. Acknowledged records are there exactly once, in
//! order, at the acknowledged offset.
//!
//! Needs `e2e/up` and the `KUBECONFIG` that it prints; faults of nodes need a kind cluster on this
//! machine.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use serde_json::{Value, json};
use weir_e2e::batch::Batch;
use weir_e2e::bystander::now_ms;
use weir_e2e::driver::{Client, Driver, Produce};
use weir_e2e::kubernetes::{
    Cordoned, Namespace, OPERATOR_NAMESPACE, eventually, kafka_cluster, kubectl, run, topic,
};
use weir_e2e::load::Load;
use weir_e2e::node;
use weir_e2e::record::Record;
use weir_e2e::tools::kcat;
use weir_e2e::wire::{Connection, error, produce};
use weir_e2e::writer::{self, Writer};

/// A cluster of three brokers, and two clients that each write to one partition.
fn load(stem: &str) -> Load {
    Load::start(stem, &[Client::Librdkafka; 2])
}

fn node_of(load: &Load, pod: &str) -> String {
    load.namespace.node_of(pod).unwrap()
}

/// A pod, the leader's if possible, and its node. The node is not the control plane's, which has
/// the only API server.
fn on_a_worker(load: &Load) -> (String, String) {
    let leader = load.leader();
    let others = (0..3).map(|id| format!("k-{id}")).filter(|pod| *pod != leader);
    let found = std::iter::once(leader.clone())
        .chain(others)
        .map(|pod| (node_of(load, &pod), pod))
        .find(|(node, _)| !node.ends_with("control-plane"));
    let (node, pod) = found.unwrap();
    (pod, node)
}

fn uid(load: &Load, pod: &str) -> String {
    load.namespace.uid(&format!("pod/{pod}")).unwrap()
}

fn restarts(namespace: &Namespace, pod: &str) -> i64 {
    let object = namespace.object(&format!("pod/{pod}")).unwrap();
    object.map_or(0, |o| o["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(0))
}

#[test]
fn a_leader_whose_pod_is_deleted_by_force() {
    let load = load("force");
    for _ in 0..3 {
        let leader = load.leader();
        let before = uid(&load, &leader);
        load.namespace.kubectl(&["delete", "pod", &leader, "--grace-period=0", "--force"]).unwrap();
        load.moves();
        let _ = load.successor(&leader, &before);
        load.whole();
    }
    load.finish();
}

#[test]
fn a_leader_whose_container_is_killed() {
    let load = load("crash");
    let leader = load.leader();
    let before = restarts(&load.namespace, &leader);
    node::kill_container(&node_of(&load, &leader), &load.namespace.name, &leader, "broker")
        .unwrap();
    load.moves();
    eventually("the container is started again", || {
        Ok((restarts(&load.namespace, &leader) > before).then_some(()))
    });
    load.finish();
}

#[test]
fn a_node_that_loses_its_power() {
    let load = load("power");
    let (_, node) = on_a_worker(&load);
    let fault = node::kill(&node).unwrap();
    load.moves();
    load.moves();
    fault.heal();
    load.finish();
}

#[test]
fn a_node_that_freezes_and_comes_back() {
    let load = load("freeze");
    let (pod, node) = on_a_worker(&load);
    let fault = node::pause(&node).unwrap();
    load.moves();
    // Wait until another broker leads, so that this one returns as a deposed leader.
    let id: i32 = pod.trim_start_matches("k-").parse().unwrap();
    eventually("somebody else leads", || {
        Ok((load.namespace.leader(&load.bootstrap, "load", 0) != id).then_some(()))
    });
    fault.heal();
    load.finish();
}

#[test]
fn a_node_that_is_cut_off() {
    let load = load("cut");
    let (pod, node) = on_a_worker(&load);
    let before = uid(&load, &pod);
    let cordoned = Cordoned::node(&node).unwrap();
    let fault = node::cut(&node).unwrap();
    load.moves();
    // Its pod keeps running and does not know. After a forced deletion of the pod and its claim, a
    // twin with an empty volume starts on another node and copies the records.
    load.namespace.kubectl(&["delete", "pvc", &format!("data-{pod}"), "--wait=false"]).unwrap();
    load.namespace.kubectl(&["delete", "pod", &pod, "--grace-period=0", "--force"]).unwrap();
    load.moves();
    let twin = load.successor(&pod, &before);
    assert_ne!(node_of(&load, &pod), node);
    load.whole();
    // The older pod returns, and no longer belongs to the cluster.
    fault.heal();
    drop(cordoned);
    load.moves();
    load.whole();
    assert_eq!(uid(&load, &pod), twin);
    load.finish();
}

#[test]
fn the_operator_that_leads_is_killed() {
    let load = load("operator");
    let lease = [
        "-n",
        OPERATOR_NAMESPACE,
        "get",
        "lease",
        "weir-operator",
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ];
    let holder = kubectl(&lease).unwrap();
    let pod = holder.split(['_', '/']).next().unwrap().to_owned();
    kubectl(&["-n", OPERATOR_NAMESPACE, "delete", "pod", &pod, "--grace-period=0", "--force"])
        .unwrap();
    // The data path does not notice, and the other operator elects the next leader.
    load.moves();
    let leader = load.leader();
    load.namespace.kubectl(&["delete", "pod", &leader, "--grace-period=0", "--force"]).unwrap();
    load.moves();
    eventually("another operator leads", || {
        Ok(Some(kubectl(&lease)?).filter(|h| *h != holder && !h.is_empty()))
    });
    load.finish();
}

#[test]
fn a_broker_that_loses_its_volume() {
    let load = load("volume");
    load.whole();
    let leader = load.leader();
    let claim = format!("data-{leader}");
    let (pod, volume) = (uid(&load, &leader), load.namespace.uid(&format!("pvc/{claim}")).unwrap());
    load.namespace.kubectl(&["delete", "pvc", &claim, "--wait=false"]).unwrap();
    load.namespace.kubectl(&["delete", "pod", &leader, "--grace-period=0", "--force"]).unwrap();
    load.moves();
    // The broker is back on a new volume and has copied everything, so the others can be deleted in
    // turn.
    let _ = load.successor(&leader, &pod);
    assert_ne!(load.namespace.uid(&format!("pvc/{claim}")).unwrap(), volume);
    load.whole();
    for other in (0..3).map(|id| format!("k-{id}")).filter(|pod| *pod != leader) {
        let before = uid(&load, &other);
        load.namespace.kubectl(&["delete", "pod", &other, "--grace-period=0", "--force"]).unwrap();
        load.moves();
        let _ = load.successor(&other, &before);
        load.whole();
    }
    load.finish();
}

/// Clients write while brokers and operator take another CA among themselves: no broker is
/// restarted, and no replica falls behind for want of a peer that believes it.
#[test]
fn the_ca_of_the_nodes_is_exchanged() {
    let load = load("ca");
    load.whole();
    let namespace = &load.namespace;
    let trusted = || {
        let secret = namespace.object("secret/k-nodes").unwrap().unwrap();
        secret["data"]["ca.crt"].as_str().unwrap().to_owned()
    };
    let pods = ["k-0", "k-1", "k-2"];
    let processes = || pods.map(|pod| (uid(&load, pod), restarts(namespace, pod)));
    let (before, running) = (trusted(), processes());
    namespace.kubectl(&["annotate", "kafkacluster", "k", "weir.dev/rotate-nodes-ca=1"]).unwrap();
    let mut states = vec![before.clone()];
    eventually("the former CA is dropped", || {
        // Kubernetes brings a changed Secret to a pod within some two minutes, or when the pod
        // changes.
        for pod in pods {
            let turn = format!("test/turn={}", now_ms());
            namespace.kubectl(&["annotate", "pod", pod, &turn, "--overwrite"])?;
        }
        std::thread::sleep(Duration::from_secs(2));
        let now = trusted();
        if states.last() != Some(&now) {
            states.push(now);
        }
        let judged = namespace.condition("kafkacluster/k", "CertificatesValid")?;
        let is_over = judged.is_some_and(|judged| judged.reason == "AsExpected");
        Ok((states.len() == 3 && is_over).then_some(()))
    });
    let [first, both, last] = states.try_into().unwrap();
    assert!(both.len() > first.len() && last.len() < both.len() && last != first);
    assert_eq!(processes(), running, "no broker is restarted");
    load.moves();
    load.whole();
    load.finish();
}

/// Many clients repeatedly send one megabyte each to a broker with a limit of 128 MiB.
#[test]
fn a_broker_keeps_within_its_memory_limit() {
    const CLIENTS: usize = 64;
    const RECORDS: usize = 4;
    let namespace = Namespace::create("memory").unwrap();
    let cluster = kafka_cluster("k", 1, "");
    let limited =
        cluster.replace("replicas: 1\n", "replicas: 1\n    resources: {limits: {memory: 128Mi}}\n");
    namespace.apply(&limited).unwrap();
    namespace.ready("kafkacluster/k");
    namespace.apply(&topic("large", "k", 4, 1, "")).unwrap();
    namespace.ready("topic/large");
    let bootstrap = namespace.bootstrap("k");
    let batch = Batch::of(&[&vec![b'v'; 1_000_000]], now_ms()).encode();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (bootstrap, batch) = (&bootstrap, &batch);
            scope.spawn(move || {
                let mut c = Connection::open(bootstrap).unwrap();
                for _ in 0..RECORDS {
                    let partition = i32::try_from(client % 4).unwrap();
                    assert_eq!(produce(&mut c, "large", partition, batch).unwrap().0, error::NONE);
                }
            });
        }
    });
    let read = kcat(&bootstrap, &["-C", "-t", "large", "-e", "-q", "-f", "%S\n"], b"")
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(read.lines().filter(|size| *size == "1000000").count(), CLIENTS * RECORDS);
    let pod = namespace.object("pod/k-0").unwrap().unwrap();
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!(
        (container["restartCount"].as_i64(), &container["lastState"]),
        (Some(0), &json!({})),
        "{container}"
    );
}

#[test]
fn why_a_pod_does_not_start_is_reported_until_it_does() {
    let namespace = Namespace::create("begin").unwrap();
    let patch = json!({
        "volumes": [{"name": "theirs", "configMap": {"name": "theirs"}}],
        "containers": [{"name": "broker", "volumeMounts": [{"name": "theirs", "mountPath": "/theirs"}]}],
    });
    let cluster = kafka_cluster("k", 1, "");
    let template = format!("replicas: 1\n    podTemplate: {}\n", json!({"spec": patch}));
    namespace.apply(&cluster.replace("replicas: 1\n", &template)).unwrap();
    eventually("the condition says what the pod lacks", || {
        let said = namespace.condition("kafkacluster/k", "Ready")?;
        let lacks = |message: &str| {
            message.contains("pod k-0: FailedMount: ") && message.contains("\"theirs\" not found")
        };
        Ok(said.filter(|said| said.reason == "NoBroker" && lacks(&said.message)))
    });
    namespace.kubectl(&["create", "configmap", "theirs"]).unwrap();
    namespace.ready("kafkacluster/k");
}

#[test]
fn a_container_that_is_killed_again_and_again_is_reported_with_the_reason() {
    let namespace = Namespace::create("killed").unwrap();
    namespace.kafka("k", 1, "").unwrap();
    let node = namespace.node_of("k-0").unwrap();
    for _ in 0..3 {
        let before = restarts(&namespace, "k-0");
        node::kill_container(&node, &namespace.name, "k-0", "broker").unwrap();
        eventually("the container is started again", || {
            Ok((restarts(&namespace, "k-0") > before).then_some(()))
        });
        namespace.ready("kafkacluster/k");
    }
    eventually("the condition says that it restarts again and again", || {
        let said = namespace.condition("kafkacluster/k", "Degraded")?;
        Ok(said.filter(|said| {
            said.reason == "BrokersRestart"
                && said.message.contains("pod k-0 was restarted 3 times: Error, exit code 137")
        }))
    });
}

/// Scales the operator to this many replicas; with 0 it waits until none runs.
fn operators(replicas: u32) {
    let scaled = format!("--replicas={replicas}");
    kubectl(&["-n", OPERATOR_NAMESPACE, "scale", "deployment/weir-operator", &scaled]).unwrap();
    if replicas == 0 {
        let labels = "app.kubernetes.io/name=weir-operator";
        eventually("no operator runs", || {
            let pods =
                kubectl(&["-n", OPERATOR_NAMESPACE, "get", "pods", "-l", labels, "-o", "name"])?;
            Ok(pods.trim().is_empty().then_some(()))
        });
    }
}

#[test]
fn no_operator_at_all() {
    // Without an operator the brokers serve with the metadata that they have, and start again.
    let load = load("alone");
    load.namespace
        .apply(&topic(
            "kept",
            "k",
            1,
            3,
            "  deletionPolicy: Retain\n  config: {retention.ms: 86400000}\n",
        ))
        .unwrap();
    load.namespace.ready("topic/kept");
    let _ = load.namespace.leader(&load.bootstrap, "kept", 0);
    kcat(&load.bootstrap, &["-P", "-t", "kept", "-X", "acks=all"], b"record\n")
        .unwrap()
        .success()
        .unwrap();
    operators(0);
    load.moves();
    // A topic with `deletionPolicy: Retain` stays even if no operator saw the deletion of its
    // resource. The garbage collector deletes it here, because the chart's policy refuses that to
    // users.
    let refused = load.namespace.kubectl(&["delete", "topic", "kept"]).unwrap_err().to_string();
    assert!(refused.contains("its spec.deletionPolicy is Retain"), "{refused}");
    let collector = "--as=system:serviceaccount:kube-system:generic-garbage-collector";
    load.namespace.kubectl(&["delete", "topic", "kept", collector]).unwrap();
    let mut driver = Driver::start(Client::Java, &load.bootstrap).unwrap();
    let refused = driver.create_replicated_topic("later", 1, 3, &json!({}));
    assert!(refused.is_err(), "nobody could have created it");
    operators(2);
    eventually("topics can be created again", || {
        Ok(driver.create_replicated_topic("later", 1, 3, &json!({})).ok())
    });
    load.namespace.ready("topic/kept");
    let spec = &load.namespace.object("topic/kept").unwrap().unwrap()["spec"];
    assert_eq!(
        (&spec["deletionPolicy"], &spec["config"]["retention.ms"]),
        (&json!("Retain"), &json!(86_400_000))
    );
    let kept =
        kcat(&load.bootstrap, &["-C", "-t", "kept", "-e", "-q"], b"").unwrap().success().unwrap();
    assert_eq!(kept, "record\n");
    load.finish();
}

#[test]
fn every_broker_is_restarted_in_turn_while_no_operator_runs() {
    let load = load("restarts");
    load.whole();
    operators(0);
    for pod in ["k-0", "k-1", "k-2"] {
        let before = uid(&load, pod);
        load.namespace.kubectl(&["delete", "pod", pod]).unwrap();
        // The pod is Ready and serves without a controller: `acks=all` continues.
        let _ = load.successor(pod, &before);
        load.moves();
    }
    operators(2);
    load.finish();
}

/// As in docs/backup.md: the fields that belong to the API server are not restored.
fn as_restored(mut backup: Value) -> Value {
    for item in backup["items"].as_array_mut().unwrap() {
        item.as_object_mut().unwrap().remove("status");
        let metadata = item["metadata"].as_object_mut().unwrap();
        for its_own in [
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "managedFields",
            "ownerReferences",
        ] {
            metadata.remove(its_own);
        }
    }
    backup
}

#[test]
fn a_cluster_that_was_deleted_comes_back_from_a_backup_and_its_volumes() {
    let namespace = Namespace::create("backup").unwrap();
    namespace
        .apply(&kafka_cluster("k", 3, "").replace("onDelete: Delete", "onDelete: Retain"))
        .unwrap();
    namespace.ready("kafkacluster/k");
    let bootstrap = namespace.bootstrap("k");
    let mut driver = Driver::start(Client::Java, &bootstrap).unwrap();
    driver.create_replicated_topic("made", 1, 3, &json!({"min.insync.replicas": "2"})).unwrap();
    let _ = namespace.leader(&bootstrap, "made", 0);
    let writer = Writer::start(Client::Librdkafka, &bootstrap, "made", 0);
    writer.moves();
    let offsets = writer.finish();
    namespace.whole("k");
    drop(driver);
    let kinds = "kafkaclusters,topics,partitiontables";
    let backup = namespace.kubectl(&["get", kinds, "-o", "json"]).unwrap();
    let restored = as_restored(serde_json::from_str(&backup).unwrap()).to_string();
    // This topic is newer than the backup.
    namespace.apply(&topic("young", "k", 1, 3, "")).unwrap();
    namespace.ready("topic/young");
    let mut driver = Driver::start(Client::Java, &bootstrap).unwrap();
    driver
        .produce(Produce::records("young", &[Record::new("k", "young").to(0)]).set("acks", "all"))
        .unwrap();
    drop(driver);
    // Leaders move, so the backup is older than the brokers' logs.
    let leader = format!("pod/k-{}", namespace.leader(&bootstrap, "made", 0));
    let before = namespace.uid(&leader).unwrap();
    namespace.kubectl(&["delete", &leader]).unwrap();
    eventually("the pod is another one", || {
        Ok(namespace.uid(&leader).ok().filter(|now| *now != before))
    });
    namespace.whole("k");

    namespace.kubectl(&["delete", "kafkacluster", "k", "--timeout=120s"]).unwrap();
    // The resources next to the volumes are lost.
    for topic in namespace.kubectl(&["get", "topics", "-o", "name"]).unwrap().lines() {
        namespace.unprotect(topic).unwrap();
    }
    namespace.unprotect_tables().unwrap();
    namespace.kubectl(&["delete", "topics,partitiontables", "--all"]).unwrap();
    eventually("everything of it is gone", || {
        let left = namespace.kubectl(&["get", &format!("{kinds},pods"), "-o", "name"])?;
        Ok(left.trim().is_empty().then_some(()))
    });
    operators(0);
    let put =
        run("kubectl", &["-n", &namespace.name, "apply", "--server-side", "-f", "-"], &restored);
    operators(2);
    put.unwrap();
    namespace.whole("k");
    let said = namespace.awaits("kafkacluster/k", "StateRolledBack", "True");
    assert!(said.message.contains("come from a backup"), "{said:?}");
    namespace.warned("kafkacluster/k", "come from a backup");
    let mut driver = Driver::start(Client::Java, &namespace.bootstrap("k")).unwrap();
    writer::check(&mut driver, "made", 0, &offsets);
    let strays = || {
        Ok::<_, anyhow::Error>(
            namespace.object("kafkacluster/k")?.unwrap()["status"]["strays"].clone(),
        )
    };
    let found = eventually("it is said what each broker has set aside", || {
        Ok(strays()?.as_array().filter(|all| all.len() == 3).cloned())
    });
    for broker in found {
        assert!(broker["logs"][0].as_str().unwrap().starts_with("young-0."), "{broker}");
        run("sh", &["-c", broker["remove"].as_str().unwrap()], "").unwrap();
    }
    assert_eq!(namespace.kubectl(&["exec", "k-0", "--", "/weir-broker", "strays"]).unwrap(), "");
    // The cluster keeps its volumes, so the test deletes them.
    namespace.kubectl(&["delete", "kafkacluster", "k", "--timeout=120s"]).unwrap();
    namespace.kubectl(&["delete", "pvc", "--all", "--wait=false"]).unwrap();
}
