//! PURE: reads a topic's spec as far as this version knows it.
//!
//! Another version may have written fields or settings that this one does not know. An unreadable
//! setting must not discard the others, such as how long records are kept. The caller reports what
//! was left out. The topic is retained until a controller that can read all of it sets another
//! policy.

use serde_json::{Map, Value, json};
use weir_crds::{DeletionPolicy, TopicSpec};

/// The spec, and the parts left out with the reason for each; `None` if it names no cluster.
pub(super) fn topic_spec(spec: &Value) -> Option<(TopicSpec, Vec<String>)> {
    if let Ok(whole) = serde_json::from_value(spec.clone()) {
        return Some((whole, Vec::new()));
    }
    let cluster = spec.pointer("/clusterRef/name")?;
    let mut reference = json!({"name": cluster});
    if let Some(Value::String(namespace)) = spec.pointer("/clusterRef/namespace") {
        reference["namespace"] = json!(namespace);
    }
    let mut known = Map::from_iter([("clusterRef".to_owned(), reference.clone())]);
    let mut left_out = Vec::new();
    for (field, value) in spec.as_object()? {
        match (field.as_str(), value) {
            ("clusterRef", value) if *value == reference => {}
            ("config", Value::Object(settings)) => {
                let alone = |name: &str, value: &Value| json!({"clusterRef": &reference, "config": {name: value}});
                let config = readable(settings.iter(), alone, &mut left_out);
                known.insert(field.clone(), Value::Object(config));
            }
            _ => {
                let alone = |name: &str, value: &Value| match name {
                    "clusterRef" => json!({name: value}),
                    _ => json!({"clusterRef": &reference, name: value}),
                };
                known.extend(readable(std::iter::once((field, value)), alone, &mut left_out));
            }
        }
    }
    let mut spec: TopicSpec = serde_json::from_value(Value::Object(known)).ok()?;
    spec.deletion_policy = DeletionPolicy::Retain;
    Some((spec, left_out))
}

/// The fields that can be read. `alone` builds a spec with one field to try it.
fn readable<'a>(
    fields: impl Iterator<Item = (&'a String, &'a Value)>,
    alone: impl Fn(&str, &Value) -> Value,
    left_out: &mut Vec<String>,
) -> Map<String, Value> {
    let mut known = Map::new();
    for (name, value) in fields {
        match serde_json::from_value::<TopicSpec>(alone(name, value)) {
            Ok(_) => drop(known.insert(name.clone(), value.clone())),
            Err(error) => left_out.push(format!("{name} ({error})")),
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_costs_nothing_else() {
        let spec = json!({
            "clusterRef": {"name": "c", "region": "x"}, "topicName": "Orders", "partitions": 3, "replicas": "many", "tier": {"a": 1},
            "config": {"retention.ms": -1, "no.such.setting": 1, "cleanup.policy": "shred", "segment.bytes": "2000000"},
            "deletionPolicy": "Archive",
        });
        let (read, left_out) = topic_spec(&spec).unwrap();
        let expected = json!({
            "clusterRef": {"name": "c"}, "topicName": "Orders", "partitions": 3, "config": {"retention.ms": -1, "segment.bytes": 2_000_000},
            "deletionPolicy": "Retain",
        });
        assert_eq!(serde_json::to_value(read).unwrap(), expected);
        let mut names: Vec<&str> =
            left_out.iter().filter_map(|text| text.split(' ').next()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "cleanup.policy",
                "clusterRef",
                "deletionPolicy",
                "no.such.setting",
                "replicas",
                "tier"
            ]
        );
        assert!(
            left_out.iter().any(|text| text.contains("there is no such setting")),
            "{left_out:?}"
        );
    }

    #[test]
    fn what_can_be_read_is_read_as_it_is() {
        let spec =
            json!({"clusterRef": {"name": "c"}, "partitions": 3, "deletionPolicy": "Delete"});
        let (read, left_out) = topic_spec(&spec).unwrap();
        assert_eq!((serde_json::to_value(read).unwrap(), left_out), (spec, Vec::new()));
        let elsewhere = json!({"clusterRef": {"name": "c", "namespace": "n"}, "tier": 1});
        assert_eq!(topic_spec(&elsewhere).unwrap().0.cluster_ref.namespace.as_deref(), Some("n"));
        assert!(topic_spec(&json!({"partitions": 3})).is_none());
        assert!(topic_spec(&json!({"clusterRef": {"name": 3}})).is_none());
        assert!(topic_spec(&json!([])).is_none());
    }
}
