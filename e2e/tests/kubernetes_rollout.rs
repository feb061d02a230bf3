//! Changes that restart brokers in use: resources, version, ports, zone. One broker restarts at a
//! time, and clients write all the time.
//!
//! Needs `e2e/up` and the `KUBECONFIG` that it prints.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use weir_e2e::driver::Client;
use weir_e2e::kubernetes::{eventually, kubectl, topic};
use weir_e2e::load::Load;
use weir_e2e::tools::kcat;
use weir_e2e::wire::{Body, Connection, FetchOf};

/// The label with a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// A cluster of three brokers, and a client that writes to it.
fn load(stem: &str) -> Load {
    Load::start(stem, &[Client::Librdkafka])
}

/// Changes the cluster's spec and waits until every pod is replaced. Never are two pods missing at
/// once.
fn roll(load: &Load, spec: &Value) {
    let before = load.namespace.pods("k").unwrap();
    load.namespace.patch("kafkacluster/k", &json!({"spec": spec}).to_string()).unwrap();
    eventually("every pod is a new one", || {
        let object = load.namespace.object("statefulset/k")?.unwrap();
        let ready = object["status"]["readyReplicas"].as_i64().unwrap_or(0);
        assert!(ready >= 2, "{ready} of 3 brokers are ready");
        let now = load.namespace.pods("k")?;
        Ok((now.len() == 3 && now.is_disjoint(&before)).then_some(()))
    });
    load.whole();
    // Each broker stopped in order: it had moved its leaders, and needs no recovery.
    for id in 0..3 {
        let log = load.namespace.kubectl(&["logs", &format!("k-{id}")]).unwrap();
        let opened: Value = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .find(|line: &Value| line["orderly"].is_boolean())
            .unwrap();
        assert_eq!(opened["orderly"], true, "{opened}");
    }
}

#[test]
fn new_resources_restart_brokers_one_by_one() {
    let load = load("rolling");
    roll(&load, &json!({"brokers": {"resources": {"requests": {"memory": "100Mi"}}}}));
    load.finish();
}

/// The images of the cluster's pods.
fn images(load: &Load) -> BTreeSet<String> {
    let pods = load.namespace.list("pods", "weir.dev/cluster=k").unwrap();
    let image = |pod: &Value| pod["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
    pods.iter().map(image).collect()
}

#[test]
fn a_new_version_comes_to_one_broker_after_the_other_and_one_that_cannot_run_to_no_second() {
    let load = load("version");
    let of_status = || {
        load.namespace.object("kafkacluster/k").unwrap().unwrap()["status"]["image"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let next = format!("{}-next", of_status());
    roll(&load, &json!({"image": next}));
    assert_eq!((images(&load), of_status()), ([next.clone()].into(), next.clone()));

    let before = load.namespace.pods("k").unwrap();
    let change_to = |image: &str| {
        load.namespace
            .patch("kafkacluster/k", &json!({"spec": {"image": image}}).to_string())
            .unwrap()
    };
    change_to("localhost/weir-broker:no-such-version");
    let said = eventually("the status says what is wrong", || {
        let said = load.namespace.condition("kafkacluster/k", "Ready")?;
        Ok(said
            .filter(|said| said.status == "False" && said.message.contains("correct spec.image")))
    });
    assert!(said.message.contains("2 of 3 brokers serve"), "{said:?}");
    load.namespace.warned("kafkacluster/k", "correct spec.image");
    load.moves();
    // Back to the previous version: the other two pods were never touched.
    change_to(&next);
    load.whole();
    let after = load.namespace.pods("k").unwrap();
    assert_eq!((after.len(), after.intersection(&before).count()), (3, 2));
    assert_eq!(images(&load), [next].into());
    load.finish();
}

#[test]
fn settings_are_in_force_without_a_restart_and_listeners_move_with_one() {
    let load = load("settings");
    load.namespace.apply(&topic("large", "k", 1, 3, "")).unwrap();
    load.namespace.ready("topic/large");
    let _ = load.namespace.leader(&load.bootstrap, "large", 0);
    let record = vec![b'x'; 1_500_000];
    // Whether the brokers accept a record above Kafka's default limit.
    let is_taken = || {
        let produce = [
            "-P",
            "-t",
            "large",
            "-X",
            "message.max.bytes=5000000",
            "-X",
            "message.timeout.ms=20000",
        ];
        let _ = kcat(&load.bootstrap, &produce, &record)?;
        let end = kcat(&load.bootstrap, &["-Q", "-t", "large:0:-1"], b"")?.success()?;
        Ok((!end.contains("offset 0")).then_some(()))
    };
    assert_eq!(is_taken().unwrap(), None);
    let before = load.namespace.pods("k").unwrap();
    load.namespace
        .patch("kafkacluster/k", r#"{"spec": {"config": {"message.max.bytes": 3000000}}}"#)
        .unwrap();
    eventually("a large record is taken", is_taken);
    assert_eq!(load.namespace.pods("k").unwrap(), before);

    // The ports for replication and for clients change. The node port for clients outside stays.
    let moved = json!([{"name": "plain", "port": 9192, "type": "Internal"}, {"name": "external", "port": 9194, "type": "NodePort"}]);
    roll(&load, &json!({"listeners": moved}));
    assert_eq!(load.namespace.bootstrap("k"), load.bootstrap);
    eventually("the old port is no more", || {
        let service = load.namespace.object("service/k-0")?.unwrap();
        let ports = service["spec"]["ports"].as_array().unwrap().iter();
        // The API server orders them by the history of the applies.
        let ports: BTreeSet<_> = ports.map(|port| port["port"].as_i64().unwrap()).collect();
        let of_brokers_among_themselves = 9091;
        Ok((ports == [of_brokers_among_themselves, 9192].into()).then_some(()))
    });
    load.finish();
}

/// A broker in the Metadata (version 1).
#[derive(Debug)]
struct Broker {
    address: String,
    rack: String,
}

fn brokers(bootstrap: &str) -> anyhow::Result<BTreeMap<i32, Broker>> {
    let mut reply = Connection::open(bootstrap)?.call(3, 1, &Body::default().i32(0))?;
    let mut brokers = BTreeMap::new();
    for _ in 0..reply.i32()? {
        let (id, host, port) = (reply.i32()?, reply.str()?, reply.i32()?);
        let (address, rack) = (format!("{host}:{port}"), reply.str()?);
        brokers.insert(id, Broker { address, rack });
    }
    Ok(brokers)
}

/// The replica to which the leader sends a consumer of this rack (KIP-392).
fn read_replica(leader: &Broker, topic: &str, rack: &str) -> anyhow::Result<i32> {
    let fetch = FetchOf {
        topic,
        partition: 0,
        replica_id: -1,
        leader_epoch: -1,
        offset: 0,
        max_bytes: 1 << 20,
    };
    // The rack is the request's last field.
    let Body(mut body) = fetch.body();
    body.truncate(body.len() - 2);
    let mut reply = Connection::open(&leader.address)?.call(1, 11, &Body(body).str(rack))?;
    // Skip throttle time, error and session; then one topic, one partition.
    let _ = (
        reply.i32()?,
        reply.i16()?,
        reply.i32()?,
        reply.i32()?,
        reply.str()?,
        reply.i32()?,
        reply.i32()?,
    );
    anyhow::ensure!(reply.i16()? == 0, "the leader refuses");
    let _ = (reply.i64()?, reply.i64()?, reply.i64()?, reply.i32()?);
    reply.i32()
}

/// Moves a node to another zone until it is dropped.
struct Rezoned {
    node: String,
    zone: String,
}

impl Rezoned {
    fn to(node: &str, zone: &str) -> Self {
        let before = zone_of(node);
        let rezoned = Self { node: node.to_owned(), zone: before };
        rezoned.label(zone).unwrap();
        rezoned
    }

    fn label(&self, zone: &str) -> anyhow::Result<String> {
        kubectl(&["label", "node", &self.node, "--overwrite", &format!("{ZONE}={zone}")])
    }
}

impl Drop for Rezoned {
    fn drop(&mut self) {
        if let Err(error) = self.label(&self.zone) {
            eprintln!("{error:#}");
        }
    }
}

fn zone_of(node: &str) -> String {
    let path = format!("jsonpath={{.metadata.labels.{}}}", ZONE.replace('.', "\\."));
    kubectl(&["get", "node", node, "-o", &path]).unwrap()
}

/// The zone of the node of each broker's pod.
fn zones(load: &Load, count: i32) -> BTreeMap<i32, String> {
    (0..count)
        .map(|id| (id, zone_of(&load.namespace.node_of(&format!("k-{id}")).unwrap())))
        .collect()
}

fn racks(load: &Load) -> anyhow::Result<BTreeMap<i32, String>> {
    let brokers = brokers(&load.bootstrap)?.into_iter();
    Ok(brokers.map(|(id, broker)| (id, broker.rack)).collect())
}

#[test]
fn the_racks_of_brokers_are_the_zones_of_their_nodes() {
    let load = load("racks");
    // The fourth broker shares a zone with another one.
    load.namespace.patch("kafkacluster/k", r#"{"spec": {"brokers": {"replicas": 4}}}"#).unwrap();
    load.namespace.ready("kafkacluster/k");
    let zones_now = zones(&load, 4);
    assert_eq!(zones_now.values().collect::<BTreeSet<_>>().len(), 3, "{zones_now:?}");
    eventually("every broker is known with its rack", || {
        Ok((racks(&load)? == zones_now).then_some(()))
    });

    // The replicas of each partition are in three zones, so never two of them in the zone with two
    // brokers.
    load.namespace.apply(&topic("wide", "k", 12, 3, "")).unwrap();
    load.namespace.ready("topic/wide");
    let leader = load.namespace.leader(&load.bootstrap, "wide", 0);
    let metadata: Value = serde_json::from_str(
        &kcat(&load.bootstrap, &["-L", "-J", "-t", "wide"], b"").unwrap().success().unwrap(),
    )
    .unwrap();
    let partitions = metadata["topics"][0]["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 12);
    for partition in partitions {
        let replicas = partition["replicas"].as_array().unwrap().iter();
        let in_zones: BTreeSet<_> = replicas
            .map(|replica| &zones_now[&i32::try_from(replica["id"].as_i64().unwrap()).unwrap()])
            .collect();
        assert_eq!(in_zones.len(), 3, "{partition} of {zones_now:?}");
    }
    // Consumers read in their own zone, once the replica there has fetched.
    let all = brokers(&load.bootstrap).unwrap();
    for zone in zones_now.values().collect::<BTreeSet<_>>() {
        eventually("a consumer is sent to the replica in its zone", || {
            let chosen = read_replica(&all[&leader], "wide", zone)?;
            // -1 means the leader.
            let chosen = if chosen < 0 { leader } else { chosen };
            Ok((zones_now[&chosen] == *zone).then_some(()))
        });
    }

    // A broker that starts in another zone is in another rack.
    let node = load.namespace.node_of("k-1").unwrap();
    let rezoned = Rezoned::to(&node, "zone-z");
    load.namespace.kubectl(&["delete", "pod", "k-1"]).unwrap();
    eventually("the broker is in the new zone", || {
        Ok((racks(&load)?.get(&1).map(String::as_str) == Some("zone-z")).then_some(()))
    });
    drop(rezoned);
    load.namespace.kubectl(&["delete", "pod", "k-1"]).unwrap();
    eventually("the broker is where it was", || Ok((racks(&load)? == zones_now).then_some(())));
    load.finish();
}
