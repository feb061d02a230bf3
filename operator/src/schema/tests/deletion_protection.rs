//! The chart's policy that refuses deletions, with the variables of an API server.

use std::sync::Arc;

use cel::{Context, Env};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::super::rules;

/// The policy as the chart renders it.
fn policy() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/install.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let objects =
        serde_yaml::Deserializer::from_str(&text).map(|object| Value::deserialize(object).unwrap());
    objects.into_iter().find(|object| object["kind"] == "ValidatingAdmissionPolicy").unwrap()
}

fn evaluate(expression: &Value, request: &Value, old: &Value) -> cel::Value {
    let mut context = Context::with_env(Arc::new(Env::stdlib()));
    context.add_variable("request", request).unwrap();
    context.add_variable("oldObject", old).unwrap();
    rules::compile(expression.as_str().unwrap()).unwrap().execute(&context).unwrap()
}

/// Why this user may not delete this object; `None` if it is allowed.
fn refusal(user: &str, spec: &Value, status: Option<&Value>) -> Option<String> {
    let mut old =
        json!({"kind": "Topic", "metadata": {"name": "orders", "namespace": "n"}, "spec": spec});
    if let Some(status) = status {
        old["status"] = status.clone();
    }
    refusal_of(user, "topics", &old)
}

/// Why this user may not delete this object of this resource; `None` if it is allowed.
fn refusal_of(user: &str, resource: &str, old: &Value) -> Option<String> {
    let policy = policy();
    let request = json!({"userInfo": {"username": user}, "resource": {"resource": resource}});
    let holds = |expression: &Value| evaluate(expression, &request, old) == cel::Value::Bool(true);
    let conditions = policy["spec"]["matchConditions"].as_array().unwrap();
    if !conditions.iter().all(|condition| holds(&condition["expression"])) {
        return None;
    }
    let validations = policy["spec"]["validations"].as_array().unwrap();
    let broken = validations.iter().find(|validation| !holds(&validation["expression"]))?;
    match evaluate(&broken["messageExpression"], &request, old) {
        cel::Value::String(message) => Some(message.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_holds_records_is_deleted_by_who_says_so() {
    let (unset, full) = (json!({"partitions": 1}), json!({"bytes": 4096}));
    let said = refusal("someone", &unset, Some(&full)).unwrap();
    let command = r#"kubectl patch topics orders -n n --type=merge -p '{"spec": {"deletionProtection": false}}'"#;
    assert!(
        said.starts_with("it holds 4096 bytes of records") && said.ends_with(command),
        "{said}"
    );
    assert!(refusal("someone", &json!({"deletionProtection": true}), Some(&full)).is_some());
    assert_eq!(refusal("someone", &json!({"deletionProtection": false}), Some(&full)), None);
    // An empty topic, and one that no controller has accepted.
    assert_eq!(refusal("someone", &unset, Some(&json!({"bytes": 0}))), None);
    assert_eq!(refusal("someone", &unset, Some(&json!({"conditions": []}))), None);
    assert_eq!(refusal("someone", &unset, None), None);
}

#[test]
fn what_is_to_be_retained_is_deleted_by_nobody() {
    let (empty, full) = (json!({"bytes": 0}), json!({"bytes": 4096}));
    for spec in [
        json!({"deletionPolicy": "Retain"}),
        json!({"deletionPolicy": "Retain", "deletionProtection": false}),
    ] {
        for status in [None, Some(&empty), Some(&full)] {
            let said = refusal("someone", &spec, status).unwrap();
            let command = r#"kubectl patch topics orders -n n --type=merge -p '{"spec": {"deletionPolicy": "Delete"}}'"#;
            assert!(
                said.starts_with("its spec.deletionPolicy is Retain") && said.ends_with(command),
                "{said}"
            );
        }
    }
    assert_eq!(refusal("someone", &json!({"deletionPolicy": "Delete"}), Some(&empty)), None);
    assert!(
        refusal("someone", &json!({"deletionPolicy": "Delete"}), Some(&full))
            .unwrap()
            .contains("4096 bytes")
    );
    // An object that is deleted with its namespace or its cluster.
    let collector = "system:serviceaccount:kube-system:generic-garbage-collector";
    assert_eq!(refusal(collector, &json!({"deletionPolicy": "Retain"}), Some(&full)), None);
}

#[test]
fn what_a_cluster_rests_on_is_deleted_by_who_says_so() {
    for topic in ["__consumer_offsets", "__transaction_state"] {
        let spec = |protected: Value| json!({"topicName": topic, "deletionProtection": protected});
        let said = refusal("someone", &json!({"topicName": topic}), None).unwrap();
        assert!(said.starts_with(&format!("it is {topic}, on which")), "{said}");
        assert!(refusal("someone", &spec(json!(true)), None).is_some());
        assert_eq!(refusal("someone", &spec(json!(false)), Some(&json!({"bytes": 4096}))), None);
    }
    assert_eq!(refusal("someone", &json!({"topicName": "__mine"}), None), None);

    let table = |annotations: Value| json!({"kind": "PartitionTable", "metadata": {"name": "k-registry", "namespace": "n", "annotations": annotations}, "spec": {}});
    let said = refusal_of("someone", "partitiontables", &table(json!({}))).unwrap();
    let command =
        "kubectl annotate partitiontables k-registry -n n weir.dev/deletion-protection=false";
    assert!(said.ends_with(command), "{said}");
    let protection = |value: &str| table(json!({"weir.dev/deletion-protection": value}));
    assert!(refusal_of("someone", "partitiontables", &protection("true")).is_some());
    assert_eq!(refusal_of("someone", "partitiontables", &protection("false")), None);
    let operator = "system:serviceaccount:weir-system:weir-operator";
    assert_eq!(refusal_of(operator, "partitiontables", &table(json!({}))), None);
}

#[test]
fn nobody_waits_for_ever_for_a_protected_topic() {
    let (spec, full) = (json!({"deletionProtection": true}), json!({"bytes": 4096}));
    for user in [
        "system:serviceaccount:kube-system:generic-garbage-collector",
        "system:serviceaccount:kube-system:namespace-controller",
        "system:kube-controller-manager",
        "system:serviceaccount:weir-system:weir-operator",
    ] {
        assert_eq!(refusal(user, &spec, Some(&full)), None, "{user}");
    }
    assert!(refusal("system:serviceaccount:n:weir-operator", &spec, Some(&full)).is_some());
}
