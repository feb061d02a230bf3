//! `weir local` for a new user: the examples, and resources as Kafka topics.
#![allow(clippy::unwrap_used, missing_docs)]

mod examples;

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_e2e::cluster::{Cluster, Local, free_ports};
use weir_e2e::driver::{Client, Driver, From, Produce};
use weir_e2e::record::Record;
use weir_e2e::wire::{Body, Connection, PATIENCE, await_topic};

/// These tests need `weir local` itself.
fn own() -> bool {
    std::env::var_os("WEIR_E2E_BOOTSTRAP").is_none()
}

/// Every topic is a resource, whichever way it was created.
#[test]
fn topics_are_resources() {
    let cluster = Cluster::start().unwrap();
    let Some(local) = cluster.local() else { return };
    let mut driver = Driver::start(Client::Franz, &cluster.bootstrap).unwrap();
    driver.create_topic("by-client", 2, &json!({"retention.ms": "5000000"})).unwrap();
    let resource: serde_json::Value =
        serde_json::from_str(&local.run(&["get", "topic", "by-client", "-o", "json"]).unwrap())
            .unwrap();
    assert_eq!(
        (&resource["kind"], &resource["spec"]["partitions"]),
        (&json!("Topic"), &json!(2)),
        "{resource}"
    );
    local
        .apply("apiVersion: weir.dev/v1alpha1\nkind: Topic\nmetadata: {name: by-yaml}\nspec: {clusterRef: {name: local}, partitions: 3, config: {retention.ms: 6000000}}\n")
        .unwrap();
    await_topic(&cluster.bootstrap, "by-yaml", 3).unwrap();
    let configs = driver
        .call(&json!({"op": "describe_configs", "type": "topic", "name": "by-yaml"}))
        .unwrap();
    assert_eq!(configs["retention.ms"]["value"], "6000000");
    // An invalid resource is refused with the path of the field, and changes nothing.
    let wrong = "apiVersion: weir.dev/v1alpha1\nkind: Topic\nmetadata: {name: wrong}\nspec: {clusterRef: {name: local}, partitions: 0}\n";
    let refused = local.apply(wrong).unwrap_err().to_string();
    assert!(refused.contains("spec.partitions"), "{refused}");
    // Every invalid resource is named, whether the schema or the controller finds it.
    let topic = |name: &str, spec: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: Topic\nmetadata: {{name: {name}}}\nspec: {{clusterRef: {{name: local}}, {spec}}}\n---\n"
        )
    };
    for spec in ["partitions: 0", "config: {cleanup.policy: shred}"] {
        let all = [topic("wrong-1", spec), topic("right", "partitions: 1"), topic("wrong-2", spec)]
            .concat();
        let refused = local.apply(&all).unwrap_err().to_string();
        assert!(refused.contains("wrong-1") && refused.contains("wrong-2"), "{refused}");
        assert!(
            !local.output(&["get", "topic", "right"]).unwrap().status.success(),
            "all of a file or nothing"
        );
    }
    driver.call(&json!({"op": "delete_topic", "topic": "by-client"})).unwrap();
    assert!(!local.output(&["get", "topic", "by-client"]).unwrap().status.success());
}

/// Processes of `weir local` do not inherit the caller's open files.
#[test]
fn files_of_the_caller_are_not_handed_on() {
    if !own() {
        return;
    }
    let local = Local::start(None).unwrap();
    let lock = local.data().join("lock");
    let other = local.data().join("other");
    local.run(&["kill", "0"]).unwrap();
    let data = local.data().display().to_string();
    let other = other.to_str().unwrap();
    let port = free_ports(Ipv4Addr::LOCALHOST.into(), 1).unwrap().to_string();
    let up = ["up", "--detach", "--brokers", "1", "--port", &port, "--data", other];
    for command in [&["start", "0", "--data", &data][..], &up] {
        let locked = Command::new("bash")
            .args(["-c", "exec 9>\"$0\"; flock 9; \"$@\""])
            .arg(&lock)
            .arg(weir_e2e::cluster::binary().unwrap())
            .arg("local")
            .args(command)
            .output()
            .unwrap();
        assert!(locked.status.success(), "{locked:?}");
        let free = Command::new("flock").arg("-n").arg(&lock).arg("true").status().unwrap();
        assert!(free.success(), "a process of {command:?} holds the lock of the script");
    }
    let down = Command::new(weir_e2e::cluster::binary().unwrap())
        .args(["local", "down", "--data", other])
        .output()
        .unwrap();
    assert!(down.status.success(), "{down:?}");
}

/// The status does not wait for a frozen controller and shows the rest.
#[test]
fn a_controller_that_is_frozen() {
    if !own() {
        return;
    }
    let local = Local::start(None).unwrap();
    let broker = local.broker_pid().unwrap();
    let controller = local.status().unwrap().controller.unwrap().pid.unwrap().to_string();
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &controller]).status().unwrap().success())
    };
    signal("-STOP");
    let status = local.status();
    let file = local.data().join("topic.yaml");
    std::fs::write(
        &file,
        "apiVersion: weir.dev/v1alpha1\nkind: Topic\nmetadata: {name: t}\nspec: {clusterRef: {name: local}}\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let refused: Vec<_> = [&["get", "topics"][..], &["apply", "-f", file], &["delete", "-f", file]]
        .into_iter()
        .map(|command| local.run(command).map_err(|error| error.to_string()))
        .collect();
    local.run(&["kill", "0"]).unwrap();
    local.run(&["start", "0"]).unwrap();
    let restarted = local.broker_pid().unwrap();
    signal("-CONT");
    let status = status.unwrap();
    assert_eq!(
        (status.brokers[0].pid, status.brokers[0].state.as_str()),
        (Some(broker), "unknown")
    );
    assert!(status.partitions.is_none());
    assert_ne!(restarted, broker);
    for refused in refused {
        let refused = refused.unwrap_err();
        assert!(refused.contains("has not answered"), "{refused}");
    }
    local.run(&["get", "topics"]).unwrap();
    // `down` also stops a frozen process.
    signal("-STOP");
    local.run(&["down"]).unwrap();
}

/// Clients find brokers, and brokers find each other, by IPv6 addresses alone. Hosts in messages
/// have no brackets, as in Apache Kafka; addresses for people do.
#[test]
fn ipv6() {
    let host = Ipv6Addr::LOCALHOST;
    if !own() || TcpListener::bind((host, 0)).is_err() {
        return;
    }
    let local = Local::start_at(host.into(), 2).unwrap();
    assert!(local.bootstrap().starts_with("[::1]:"), "{}", local.bootstrap());
    // Metadata version 1 without topics: brokers with ids, hosts, ports and racks.
    let ask = || {
        Connection::open(&local.bootstrap()).unwrap().call(3, 1, &Body::default().i32(0)).unwrap()
    };
    // The first broker may serve before it knows the second.
    let deadline = Instant::now() + PATIENCE;
    let mut metadata = loop {
        let mut metadata = ask();
        match metadata.i32().unwrap() {
            2 => break metadata,
            brokers => assert!(Instant::now() < deadline, "{brokers} brokers"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!((metadata.i32().unwrap(), metadata.str().unwrap().as_str()), (0, "::1"));
    for (number, client) in [Client::Java, Client::Franz, Client::Librdkafka, Client::KafkaPython]
        .into_iter()
        .enumerate()
    {
        let mut driver = Driver::start(client, &local.bootstrap()).unwrap();
        let topic = format!("t-{number}");
        driver.create_replicated_topic(&topic, 1, 2, &json!({})).unwrap();
        let record = Record::new("k", "v");
        let produce = Produce::records(&topic, std::slice::from_ref(&record)).set("acks", "all");
        driver.produce(produce).unwrap();
        let read = driver.consume(&topic, &[0], From::Beginning, 1).unwrap();
        assert_eq!((&read[0].key, &read[0].value), (&record.key, &record.value), "{client:?}");
    }
    // A killed broker returns with the same address; the other one leads meanwhile.
    local.run(&["kill", "0"]).unwrap();
    local.run(&["start", "0"]).unwrap();
    let refused = local.output(&["up", "--host", "::"]).unwrap();
    assert!(
        !refused.status.success()
            && String::from_utf8_lossy(&refused.stderr).contains("clients are told this address")
    );
}
