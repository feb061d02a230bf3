//! `weir local` as a new user meets it: the examples, and resources that are Kafka topics.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::json;
use weir_e2e::cluster::{Cluster, Local};
use weir_e2e::driver::{Client, Driver};
use weir_e2e::wire::await_topic;

/// These tests need `weir local` itself.
fn own() -> bool {
    std::env::var_os("WEIR_E2E_BOOTSTRAP").is_none()
}

/// Each example starts a cluster, and its topics are there.
#[test]
fn examples() {
    if !own() {
        return;
    }
    for entry in std::fs::read_dir(weir_e2e::workspace().join("examples")).unwrap() {
        let yaml = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let local = Local::start(Some(&yaml)).unwrap();
        let listed: serde_json::Value = serde_json::from_str(&local.run(&["get", "topics", "-o", "json"]).unwrap()).unwrap();
        for topic in listed["items"].as_array().unwrap() {
            // Where a group is declared there is the topic of committed offsets, too, whose name Kubernetes would not take.
            let name = topic["spec"]["topicName"].as_str().or(topic["metadata"]["name"].as_str()).unwrap();
            await_topic(&local.bootstrap(), name, 1).unwrap();
        }
        // The same file again changes nothing.
        assert!(!local.apply(&yaml).unwrap().contains("configured"));
    }
}

/// A topic is a resource, whichever way it came: one door.
#[test]
fn topics_are_resources() {
    let cluster = Cluster::start().unwrap();
    let Some(local) = cluster.local() else { return };
    let mut driver = Driver::start(Client::Franz, &cluster.bootstrap).unwrap();
    driver.create_topic("by-client", 2, &json!({"retention.ms": "5000000"})).unwrap();
    let resource: serde_json::Value = serde_json::from_str(&local.run(&["get", "topic", "by-client", "-o", "json"]).unwrap()).unwrap();
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
    // What is wrong is refused with the path of the field, and changes nothing.
    let wrong = "apiVersion: weir.dev/v1alpha1\nkind: Topic\nmetadata: {name: wrong}\nspec: {clusterRef: {name: local}, partitions: 0}\n";
    let refused = local.apply(wrong).unwrap_err().to_string();
    assert!(refused.contains("spec.partitions"), "{refused}");
    driver.call(&json!({"op": "delete_topic", "topic": "by-client"})).unwrap();
    assert!(!local.output(&["get", "topic", "by-client"]).unwrap().status.success());
}
