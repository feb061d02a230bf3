//! The generated definitions: what they refuse, and in which words. `every_rule` makes sure that
//! every keyword and rule is checked.

use std::sync::LazyLock;

use serde_json::json;

use super::*;

mod clusters;
mod deletion_protection;
mod every_rule;
mod fields;

static DEFINITIONS: LazyLock<Vec<CustomResourceDefinition>> = LazyLock::new(weir_crds::definitions);

fn definition(kind: &str) -> &'static CustomResourceDefinition {
    DEFINITIONS.iter().find(|crd| crd.spec.names.kind == kind).unwrap()
}

fn resource(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "weir.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// A topic of cluster `c` with `fields` in its spec.
fn topic(fields: Value) -> Value {
    let mut spec = json!({"clusterRef": {"name": "c"}});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    resource("Topic", "orders", &spec)
}

/// A group of cluster `c` with `fields` in its spec.
fn group(fields: Value) -> Value {
    let mut spec = json!({"clusterRef": {"name": "c"}});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    resource("ConsumerGroup", "billing", &spec)
}

fn reset(to: Value) -> Value {
    group(json!({"reset": {"id": "r", "to": to}}))
}

fn cluster(spec: &Value) -> Value {
    resource("KafkaCluster", "c", spec)
}

fn brokers(spec: Value) -> Value {
    cluster(&json!({"brokers": spec}))
}

/// The violations of a resource.
fn refusals(object: &Value, old: Option<&Value>) -> Vec<String> {
    let kind = object
        .get("kind")
        .and_then(Value::as_str)
        .filter(|kind| ["KafkaCluster", "ConsumerGroup"].contains(kind))
        .unwrap_or("Topic");
    match validate(definition(kind), object, old) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(FieldError::to_string).collect(),
    }
}

/// New object, old object, and the error: one row for every rule that is not a setting's range, and
/// for the schema's own errors.
fn refused() -> Vec<(Value, Option<Value>, &'static str)> {
    let long = "a".repeat(250);
    let long: &str = &long;
    let mut rows = clusters::refused();
    rows.extend([
        (
            resource("Topic", long, &json!({"clusterRef": {"name": "c"}})),
            None,
            "Invalid value: \"object\": a topic's name has at most 249 characters: give a shorter metadata.name, or spec.topicName",
        ),
        (
            topic(json!({"topicName": "orders_v2"})),
            Some(topic(json!({"topicName": "orders_v1"}))),
            "spec: Invalid value: \"object\": topicName cannot change: a topic cannot be renamed",
        ),
        (
            topic(json!({})),
            Some(topic(json!({"topicName": "orders_v1"}))),
            "spec: Invalid value: \"object\": topicName cannot change: a topic cannot be renamed",
        ),
        (
            topic(json!({"partitions": 3})),
            Some(topic(json!({"partitions": 4}))),
            "spec: Invalid value: \"object\": partitions can only be raised: a partition cannot be taken away without its records",
        ),
        (
            topic(json!({"replicas": 1, "config": {"min.insync.replicas": "2"}})),
            None,
            "spec: Invalid value: \"object\": config's min.insync.replicas must not be greater than replicas",
        ),
        (
            topic(json!({"clusterRef": {"name": "d"}})),
            Some(topic(json!({}))),
            "spec.clusterRef: Invalid value: \"object\": clusterRef cannot change: a topic cannot move to another cluster",
        ),
        (
            topic(json!({"config": {"min.compaction.lag.ms": 9, "max.compaction.lag.ms": "8"}})),
            None,
            "spec.config: Invalid value: \"object\": min.compaction.lag.ms must not be greater than max.compaction.lag.ms",
        ),
        (
            topic(json!({"config": {"remote.storage.enable": true}})),
            None,
            "spec.config: Invalid value: \"object\": remote.storage.enable cannot be true: there is no tiered storage",
        ),
        (
            topic(json!({"topicName": "__cluster_metadata"})),
            None,
            "spec.topicName: Invalid value: \"__cluster_metadata\": '.', '..' and '__cluster_metadata' are no topic names",
        ),
        (
            resource("KafkaCluster", &long[..38], &json!({})),
            None,
            "Invalid value: \"object\": a cluster's name has at most 37 characters: names of other objects are made from it",
        ),
        (
            resource("KafkaCluster", "a.b", &json!({})),
            None,
            "Invalid value: \"object\": a cluster's name has lower-case letters, digits and '-' only, and begins with a letter: names of services are made from it",
        ),
        (
            cluster(&json!({"listeners": [{"name": "a", "port": 9092}, {"name": "brokers", "port": 9093}]})),
            None,
            "spec.listeners: Invalid value: \"array\": no listener is called bootstrap or brokers: services of the cluster are",
        ),
        (
            cluster(&json!({"config": {"default.replication.factor": 2}})),
            None,
            "spec: Invalid value: \"object\": config's default.replication.factor must not be greater than brokers.replicas",
        ),
        (
            cluster(&json!({"config": {"log.cleaner.min.compaction.lag.ms": 9, "log.cleaner.max.compaction.lag.ms": 8}})),
            None,
            "spec.config: Invalid value: \"object\": log.cleaner.min.compaction.lag.ms must not be greater than log.cleaner.max.compaction.lag.ms",
        ),
        (
            cluster(&json!({"brokers": {"config": {"0": {"log.cleaner.min.compaction.lag.ms": 9, "log.cleaner.max.compaction.lag.ms": 8}}}})),
            None,
            "spec.brokers.config[\"0\"]: Invalid value: \"object\": log.cleaner.min.compaction.lag.ms must not be greater than \
             log.cleaner.max.compaction.lag.ms",
        ),
        (
            cluster(&json!({"brokers": {"config": {"0": {"min.insync.replicas": 3, "default.replication.factor": 2}}}})),
            None,
            "spec.brokers.config[\"0\"]: Invalid value: \"object\": min.insync.replicas must not be greater than default.replication.factor",
        ),
        (
            cluster(&json!({"brokers": {"replicas": 3}, "config": {"min.insync.replicas": 3, "default.replication.factor": 2}})),
            None,
            "spec.config: Invalid value: \"object\": min.insync.replicas must not be greater than default.replication.factor",
        ),
        (
            cluster(&json!({"listeners": [{"name": "out", "port": 9092, "type": "NodePort"}]})),
            None,
            "spec.listeners: Invalid value: \"array\": the first listener must be of type Internal: clients inside the Kubernetes cluster use it",
        ),
        (
            cluster(&json!({"listeners": [{"name": "a", "port": 9092}, {"name": "b", "port": 9092}]})),
            None,
            "spec.listeners: Invalid value: \"array\": two listeners cannot have one port",
        ),
        (
            cluster(
                &json!({"brokers": {"replicas": 9}, "listeners": [{"name": "a", "port": 9092}, {"name": "b", "port": 65_530, "type": "SharedLoadBalancer"}]}),
            ),
            None,
            "spec: Invalid value: \"object\": a listener of type SharedLoadBalancer takes a port more for each broker, up to 65535",
        ),
        (
            cluster(&json!({"listeners": [{"name": "a", "port": 9091}]})),
            None,
            "spec.listeners: Invalid value: \"array\": port 9091, called weir-internal, is that of brokers among themselves",
        ),
        (
            cluster(&json!({"listeners": [{"name": "weir-internal", "port": 9092}]})),
            None,
            "spec.listeners: Invalid value: \"array\": port 9091, called weir-internal, is that of brokers among themselves",
        ),
        (
            cluster(&json!({"listeners": [{"name": "a", "port": 9100}]})),
            None,
            "spec.listeners: Invalid value: \"array\": port 9100, called http, is that of the brokers' metrics",
        ),
        (
            cluster(&json!({"listeners": [{"name": "a", "port": 9092}, {"name": "http", "port": 9093}]})),
            None,
            "spec.listeners: Invalid value: \"array\": port 9100, called http, is that of the brokers' metrics",
        ),
        (
            cluster(&json!({"listeners": [{"name": "a", "port": 9092}]})),
            Some(cluster(&json!({}))),
            "spec: Invalid value: \"object\": the first listener keeps its name: brokers find one another by it while they are restarted; its port may change",
        ),
        (
            cluster(&json!({"listeners": [{"name": "b", "port": 9093}, {"name": "a", "port": 9092}]})),
            Some(cluster(&json!({"listeners": [{"name": "a", "port": 9092}]}))),
            "spec: Invalid value: \"object\": the first listener keeps its name: brokers find one another by it while they are restarted; its port may change",
        ),
        (
            cluster(&json!({"brokers": {"storage": {"storageClassName": "slow"}}})),
            Some(cluster(&json!({"brokers": {"storage": {"storageClassName": "fast"}}}))),
            "spec.brokers.storage.storageClassName: Invalid value: \"slow\": storageClassName cannot change: volumes stay in the class in which they were made",
        ),
        (
            topic(json!({"partitions": 0})),
            None,
            "spec.partitions: Invalid value: 0: should be greater than or equal to 1",
        ),
        (
            topic(json!({"partitions": 100_001})),
            None,
            "spec.partitions: Invalid value: 100001: should be less than or equal to 100000",
        ),
        (
            topic(json!({"partitions": "3"})),
            None,
            "spec.partitions: Invalid value: \"string\": must be of type integer: \"string\"",
        ),
        (topic(json!({"partition": 3})), None, "spec.partition: unknown field"),
        (
            topic(json!({"config": {"retention.mss": 3}})),
            None,
            "spec.config[\"retention.mss\"]: unknown field",
        ),
        (topic(json!({"clusterRef": {}})), None, "spec.clusterRef.name: Required value"),
        (
            topic(json!({"clusterRef": {"name": ""}})),
            None,
            "spec.clusterRef.name: Invalid value: \"\": should match '^[a-z]([a-z0-9-]*[a-z0-9])?$'",
        ),
        (topic(json!({"clusterRef": null})), None, "spec.clusterRef: Required value"),
        (
            topic(json!({"topicName": "a b"})),
            None,
            "spec.topicName: Invalid value: \"a b\": should match '^[a-zA-Z0-9._-]+$'",
        ),
        (
            topic(json!({"deletionPolicy": "Keep"})),
            None,
            "spec.deletionPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Retain\"",
        ),
        (
            topic(json!({"config": {"retention.ms": "1d"}})),
            None,
            "spec.config[\"retention.ms\"]: Invalid value: \"1d\": should match '^-?[0-9]{1,19}$'",
        ),
        (
            cluster(&json!({"brokers": {"replicas": 0}})),
            None,
            "spec.brokers.replicas: Invalid value: 0: should be greater than or equal to 1",
        ),
        (
            cluster(&json!(3)),
            None,
            "spec: Invalid value: \"integer\": must be of type object: \"integer\"",
        ),
        (json!({"kind": "Topic"}), None, "apiVersion: Required value"),
        (
            group(json!({"groupId": "b"})),
            Some(group(json!({"groupId": "a"}))),
            "spec: Invalid value: \"object\": groupId cannot change: make another ConsumerGroup",
        ),
        (
            group(json!({"clusterRef": {"name": "d"}})),
            Some(group(json!({}))),
            "spec.clusterRef: Invalid value: \"object\": clusterRef cannot change: a group cannot move to another cluster",
        ),
        (
            group(json!({"lagPolicy": {"forSeconds": 60}})),
            None,
            "spec.lagPolicy: Invalid value: \"object\": give maxSeconds or maxMessages, or both",
        ),
        (
            group(json!({"scaling": {"targetRef": {"name": "w"}, "min": 3, "max": 2, "targetLagSeconds": 10}})),
            None,
            "spec.scaling: Invalid value: \"object\": min must not be greater than max",
        ),
        (
            reset(json!({"position": "Earliest", "shift": 1})),
            None,
            "spec.reset.to: Invalid value: \"object\": give exactly one of position, timestamp, offsets, shift and undo",
        ),
        (
            reset(json!({})),
            None,
            "spec.reset.to: Invalid value: \"object\": give exactly one of position, timestamp, offsets, shift and undo",
        ),
        (
            reset(json!({"position": "Middle"})),
            None,
            "spec.reset.to.position: Unsupported value: \"Middle\": supported values: \"Earliest\", \"Latest\"",
        ),
        (
            reset(json!({"timestamp": "yesterday"})),
            None,
            "spec.reset.to.timestamp: Invalid value: \"yesterday\": must be of type date-time: \"yesterday\"",
        ),
        (
            reset(json!({"shift": "back"})),
            None,
            "spec.reset.to.shift: Invalid value: \"string\": must be of type integer: \"string\"",
        ),
        (
            reset(json!({"offsets": [{"topic": "t", "partition": 0, "offset": -1}]})),
            None,
            "spec.reset.to.offsets[0].offset: Invalid value: -1: should be greater than or equal to 0",
        ),
        (
            reset(json!({"offsets": [{"topic": "t", "offset": 1}]})),
            None,
            "spec.reset.to.offsets[0].partition: Required value",
        ),
        (group(json!({"reset": {"to": {"shift": 1}}})), None, "spec.reset.id: Required value"),
        (
            group(json!({"reset": {"id": "r", "to": {"shift": 1}, "members": "Kill"}})),
            None,
            "spec.reset.members: Unsupported value: \"Kill\": supported values: \"Wait\", \"Evict\"",
        ),
        (
            group(json!({"topics": ["a b"]})),
            None,
            "spec.topics[0]: Invalid value: \"a b\": should match '^[a-zA-Z0-9._-]+$'",
        ),
        (group(json!({"topics": ["a", "a"]})), None, "spec.topics[1]: Duplicate value: \"a\""),
        (
            group(json!({"scaling": {"targetRef": {"kind": "deployment", "name": "w"}, "targetLagSeconds": 10}})),
            None,
            "spec.scaling.targetRef.kind: Invalid value: \"deployment\": should match '^[A-Z][A-Za-z0-9]*$'",
        ),
        (
            group(json!({"scaling": {"targetRef": {"name": "w"}}})),
            None,
            "spec.scaling.targetLagSeconds: Required value",
        ),
        (
            group(json!({"lagPolicy": {"maxSeconds": 0}})),
            None,
            "spec.lagPolicy.maxSeconds: Invalid value: 0: should be greater than or equal to 1",
        ),
        (
            group(json!({"deletionPolicy": "Drop"})),
            None,
            "spec.deletionPolicy: Unsupported value: \"Drop\": supported values: \"Retain\", \"Delete\"",
        ),
        (group(json!({"topic": "a"})), None, "spec.topic: unknown field"),
        (
            cluster(&json!({"consumerGroups": {"reflect": "Some"}})),
            None,
            "spec.consumerGroups.reflect: Unsupported value: \"Some\": supported values: \"Declared\", \"All\"",
        ),
        (
            json!({"kind": "Topik", "apiVersion": "weir.dev/v1alpha1"}),
            None,
            "kind: Invalid value: \"Topik\": must be Topic",
        ),
        (
            json!({"kind": "Topic", "apiVersion": "weir.dev/v2"}),
            None,
            "apiVersion: Invalid value: \"weir.dev/v2\": must be weir.dev/v1alpha1",
        ),
        (json!([]), None, "an object has to be a map with apiVersion, kind, metadata and spec"),
    ]);
    rows
}

#[test]
fn wrong_resources_are_refused_in_the_words_of_the_api_server() {
    for (object, old, expected) in refused() {
        assert_eq!(refusals(&object, old.as_ref()), [expected], "{object}");
    }
}

#[test]
fn right_resources_come_back_with_their_defaults() {
    let mut spelt_out = topic(json!({"deletionPolicy": "Delete"}));
    let rows = [
        (topic(json!({})), None, spelt_out.clone()),
        (topic(json!({"deletionPolicy": null})), None, spelt_out.clone()),
        (
            topic(json!({"partitions": 3.0, "deletionPolicy": "Retain"})),
            None,
            topic(json!({"partitions": 3, "deletionPolicy": "Retain"})),
        ),
        (cluster(&json!({})), None, cluster(&json!({"brokers": {"replicas": 1}}))),
        // The throttles that kafka-reassign-partitions sets while brokers are emptied before their
        // removal.
        (
            brokers(
                json!({"replicas": 3, "config": {"4": {"follower.replication.throttled.rate": 50_000_000}}}),
            ),
            Some(brokers(json!({"replicas": 3}))),
            brokers(
                json!({"replicas": 3, "config": {"4": {"follower.replication.throttled.rate": 50_000_000}}}),
            ),
        ),
        (cluster(&json!({"brokers": {}})), None, cluster(&json!({"brokers": {"replicas": 1}}))),
        // Mutable fields may change.
        (
            topic(json!({"partitions": 4, "topicName": "T_1", "deletionPolicy": "Delete"})),
            Some(topic(json!({"partitions": 3, "topicName": "T_1"}))),
            topic(json!({"partitions": 4, "topicName": "T_1", "deletionPolicy": "Delete"})),
        ),
        // A long name is valid if the topic has another one.
        (
            resource(
                "Topic",
                &"a".repeat(250),
                &json!({"clusterRef": {"name": "c"}, "topicName": "t", "deletionPolicy": "Delete"}),
            ),
            None,
            resource(
                "Topic",
                &"a".repeat(250),
                &json!({"clusterRef": {"name": "c"}, "topicName": "t", "deletionPolicy": "Delete"}),
            ),
        ),
    ];
    for (object, old, mut expected) in rows {
        // The default status tells tools that no controller has seen the object yet.
        expected["status"] = json!({"observedGeneration": -1, "conditions": []});
        assert_eq!(
            validate(definition(object["kind"].as_str().unwrap()), &object, old.as_ref()),
            Ok(expected),
            "{object}"
        );
    }

    // The controller owns the status: the old one stays, the writer's is ignored.
    spelt_out["status"] = json!({"topicId": "AAAAAAAAAAAAAAAAAAAAAA", "conditions": []});
    let mut forged = topic(json!({}));
    forged["status"] = json!({"topicId": 7});
    assert_eq!(validate(definition("Topic"), &forged, Some(&spelt_out)), Ok(spelt_out.clone()));
    spelt_out["status"] = json!({"observedGeneration": -1, "conditions": []});
    assert_eq!(validate(definition("Topic"), &forged, None), Ok(spelt_out));
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let object = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "Topic", "metadata": {"name": "Orders"}, "extra": 1,
        "spec": {"partitions": 0, "replicas": 1, "config": {"min.insync.replicas": 2, "min.compaction.lag.ms": 2, "max.compaction.lag.ms": 1}},
    });
    let errors = refusals(&object, None);
    let errors: Vec<&str> = errors.iter().map(|error| error.split(": ").next().unwrap()).collect();
    // The rules of `spec.config` run, those of `spec` do not, because it is not well formed.
    assert_eq!(
        errors,
        ["metadata.name", "extra", "spec.clusterRef", "spec.config", "spec.partitions"]
    );

    let nameless = json!({"apiVersion": "weir.dev/v1alpha1", "kind": "Topic", "spec": {"clusterRef": {"name": "c"}}});
    assert_eq!(refusals(&nameless, None), ["metadata.name: Required value"]);
}
