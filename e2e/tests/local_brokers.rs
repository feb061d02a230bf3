//! `weir local` with several brokers: processes are killed, stopped and started, and the controller
//! reacts.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use weir_e2e::cluster::{Local, Status};
use weir_e2e::wire::{Connection, list_offset};

const TOPICS: &str = "apiVersion: weir.dev/v1alpha1\nkind: Topic\nmetadata: {name: orders}\nspec: {clusterRef: {name: local}, partitions: 6}\n";

/// `ListOffsetsRequest.LATEST_TIMESTAMP` in Apache Kafka.
const LATEST: i64 = -1;

/// These tests need `weir local` itself.
fn own() -> bool {
    std::env::var_os("WEIR_E2E_BOOTSTRAP").is_none()
}

fn state(status: &Status, id: usize) -> String {
    status.brokers[id].state.clone()
}

/// Waits for an expected state.
fn eventually(local: &Local, what: &str, holds: impl Fn(&Status) -> bool) {
    let started = Instant::now();
    loop {
        let status = local.status().unwrap();
        if holds(&status) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: {status:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn three_brokers_by_default_and_one_may_die() {
    if !own() {
        return;
    }
    let local = Local::start_of(None, None).unwrap();
    let cluster = local.run(&["get", "kfc", "local", "-o", "json"]).unwrap();
    let cluster: serde_json::Value = serde_json::from_str(&cluster).unwrap();
    assert_eq!(cluster["spec"]["brokers"]["replicas"], 3);
    assert_eq!(cluster["spec"]["config"]["default.replication.factor"], 3);
    assert_eq!(cluster["spec"]["config"]["min.insync.replicas"], 2);
    local.apply(TOPICS).unwrap();
    let whole = |status: &Status| {
        let partitions = status.partitions.as_ref().unwrap();
        (partitions.total, partitions.under_replicated, partitions.offline) == (6, 0, 0)
    };
    eventually(&local, "all replicas are in sync", whole);

    // A crash: other brokers take over its leaders, and it leaves every ISR.
    local.run(&["kill", "0"]).unwrap();
    eventually(&local, "the others take over", |status| {
        let partitions = status.partitions.as_ref().unwrap();
        (partitions.under_replicated, partitions.offline) == (6, 0)
    });
    assert_eq!(state(&local.status().unwrap(), 0), "stopped");
    // `start` returns when the new process serves. The controller's opinion of the old process does
    // not count.
    local.run(&["start", "0"]).unwrap();
    assert_eq!(state(&local.status().unwrap(), 0), "ready");
    assert!(!local.output(&["start", "0"]).unwrap().status.success(), "it runs already");
    assert!(!local.output(&["kill", "3"]).unwrap().status.success(), "there is no such broker");
}

#[test]
fn brokers_go_on_without_a_controller() {
    if !own() {
        return;
    }
    let local = Local::start_of(Some(2), None).unwrap();
    local.apply(TOPICS).unwrap();
    let pids = |status: &Status| status.brokers.iter().map(|broker| broker.pid).collect::<Vec<_>>();
    let before = pids(&local.status().unwrap());
    local.run(&["kill", "controller"]).unwrap();
    let status = local.status().unwrap();
    assert_eq!((state(&status, 0).as_str(), pids(&status)), ("unknown", before.clone()));
    let leads = |bootstrap: &str| {
        let mut connection = Connection::open(bootstrap).unwrap();
        list_offset(&mut connection, "orders", 0, LATEST).unwrap().0 == 0
    };
    assert_eq!(
        local.bootstrap().split(',').filter(|broker| leads(broker)).count(),
        1,
        "one of them serves the partition"
    );
    // A broker that died without a controller is found dead by the next controller.
    local.run(&["kill", "1"]).unwrap();
    local.run(&["start", "controller"]).unwrap();
    eventually(&local, "the dead broker is noticed", |status| {
        status
            .partitions
            .as_ref()
            .is_some_and(|partitions| partitions.under_replicated == 6 && partitions.offline == 0)
    });
    let status = local.status().unwrap();
    assert_eq!(
        (state(&status, 0).as_str(), state(&status, 1).as_str(), status.brokers[0].pid),
        ("ready", "stopped", before[0])
    );
    local.run(&["start", "1"]).unwrap();
    assert_eq!(state(&local.status().unwrap(), 1), "ready");
}

#[test]
fn a_cluster_grows_and_shrinks_by_its_resource() {
    if !own() {
        return;
    }
    let cluster = |brokers: u32| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {{name: local}}\nspec: {{brokers: {{replicas: {brokers}}}}}\n"
        )
    };
    let local = Local::start(Some(&cluster(1))).unwrap();
    local.apply(&cluster(2)).unwrap();
    let status = local.status().unwrap();
    assert_eq!((status.brokers.len(), state(&status, 1).as_str()), (2, "ready"));
    let refused = local.apply(&cluster(1)).unwrap_err().to_string();
    assert!(refused.contains("broker 1 is running: stop it first"), "{refused}");
    local.run(&["stop", "1"]).unwrap();
    local.apply(&cluster(1)).unwrap();
    assert_eq!(local.status().unwrap().brokers.len(), 1);
}
