//! Tests of the definitions: the committed YAML is current, and the types accept what users write.

use std::path::Path;

use serde_json::json;

use super::*;

#[test]
fn the_yaml_is_what_crdgen_writes() {
    for definition in definitions() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("{}.yaml", definition.spec.names.plural));
        let committed = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            committed,
            serde_yaml::to_string(&definition).unwrap(),
            "{} is out of date: run crdgen",
            path.display()
        );
        // `kubectl apply` keeps the object as JSON in an annotation; annotations have 256 KiB.
        let stored = serde_json::to_string(&definition).unwrap();
        assert!(
            stored.len() < 200_000,
            "{} is too large to be stored by `kubectl apply`",
            path.display()
        );
    }
}

/// Kubernetes compiles patterns with Go's `regexp` (RE2), which allows at most a thousand
/// repetitions; other libraries allow more.
#[test]
fn the_api_server_takes_every_pattern() {
    for definition in definitions() {
        let yaml = serde_yaml::to_string(&definition).unwrap();
        let patterns = yaml.lines().filter_map(|line| line.trim().strip_prefix("pattern: "));
        for pattern in patterns {
            let counts = pattern.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
            let too_many = counts
                .flat_map(|(counts, _)| counts.split(','))
                .find(|count| count.parse().is_ok_and(|count: u64| count > 1_000));
            assert_eq!(too_many, None, "{pattern}");
        }
    }
}

#[test]
fn every_kind_is_in_the_group_and_what_users_write_in_the_category() {
    for definition in definitions() {
        assert_eq!(definition.spec.group, GROUP);
        assert_eq!(definition.spec.versions.first().unwrap().name, VERSION);
        // `kubectl get kafka` is for people, and a cluster has seventeen PartitionTables.
        let categories = definition.spec.names.categories.unwrap_or_default();
        let expected: &[&str] =
            if definition.spec.names.kind == "PartitionTable" { &[] } else { &["kafka"] };
        assert_eq!(categories, expected, "{}", definition.spec.names.kind);
    }
}

#[test]
fn settings_are_read_as_users_write_them() {
    let config: TopicConfig = serde_json::from_value(
        json!({"retention.ms": "604800000", "segment.bytes": 1_048_576, "preallocate": true, "min.cleanable.dirty.ratio": 0.1}),
    )
    .unwrap();
    let texts: Vec<(&str, &str)> =
        config.texts().iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(
        texts,
        [
            ("min.cleanable.dirty.ratio", "0.1"),
            ("preallocate", "true"),
            ("retention.ms", "604800000"),
            ("segment.bytes", "1048576")
        ]
    );
    let shown = serde_json::to_value(&config).unwrap();
    assert_eq!(
        shown,
        json!({"retention.ms": 604_800_000, "segment.bytes": 1_048_576, "preallocate": true, "min.cleanable.dirty.ratio": 0.1})
    );
    assert_eq!(serde_json::from_value::<TopicConfig>(shown).unwrap(), config);
}

#[test]
fn settings_out_of_their_bounds_are_refused() {
    let cases = [
        (json!({"retention.ms": -7}), "retention.ms: -7 is not between -1 and"),
        (json!({"retention.ms": "week"}), "retention.ms: \"week\" is not a whole number"),
        (
            json!({"cleanup.policy": "never"}),
            "cleanup.policy: \"never\" is none of \"\", \"compact\"",
        ),
        (
            json!({"min.cleanable.dirty.ratio": 1.5}),
            "min.cleanable.dirty.ratio: \"1.5\" is not a number from 0 to 1",
        ),
        (json!({"preallocate": "yes"}), "preallocate: \"yes\" is neither true nor false"),
        (json!({"retention.days": 7}), "retention.days: there is no such setting"),
        (json!({"retention.ms": [1]}), "retention.ms: must be a single value"),
    ];
    for (value, reason) in cases {
        let error = serde_json::from_value::<TopicConfig>(value.clone()).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{value}: {error}");
    }
}

#[test]
fn the_defaults_of_the_tables_are_values_of_their_settings() {
    let tables = TopicConfig::settings()
        .chain(ClusterConfig::settings())
        .chain(GroupConfig::settings())
        .chain(ClientMetricsConfig::settings());
    for setting in tables {
        if let Some(default) = setting.default().filter(|default| !default.is_empty()) {
            setting.text_of(&json!(default)).unwrap();
        }
    }
}

#[test]
fn a_topic_reads_with_its_defaults() {
    let topic: Topic = serde_json::from_value(json!({
        "apiVersion": API_VERSION, "kind": "Topic", "metadata": {"name": "orders"}, "spec": {"clusterRef": {"name": "local"}},
    }))
    .unwrap();
    assert_eq!(topic.topic_name(), "orders");
    assert_eq!(topic.spec.deletion_policy, DeletionPolicy::Delete);
    assert!(
        serde_json::from_value::<TopicSpec>(
            json!({"clusterRef": {"name": "local"}, "partition": 3})
        )
        .is_err()
    );
}

/// The output of `kubectl get` fits a terminal: no column before the age may be long, and the age
/// is the last column.
#[test]
fn rows_are_short() {
    for definition in definitions() {
        let columns = definition.spec.versions[0].additional_printer_columns.clone().unwrap();
        let short: Vec<_> =
            columns.iter().filter(|column| column.priority.unwrap_or_default() == 0).collect();
        assert_eq!(
            short.last().map(|column| column.name.as_str()),
            Some("Age"),
            "{}",
            definition.spec.names.kind
        );
        assert!(short.iter().all(|column| !column.json_path.ends_with(".message")), "{short:?}");
        // Three spaces separate columns.
        let width: usize = short.iter().map(|column| column.name.len() + 3).sum();
        assert!(width <= 80, "{}: {width} columns without a value", definition.spec.names.kind);
    }
}

/// A client that waits for a new resource sees that it has no status yet (kstatus compares
/// `observedGeneration` if there is one). Applying one condition changes no other.
#[test]
fn statuses_say_that_nobody_has_looked_yet_and_their_lists_are_maps() {
    for definition in
        definitions().iter().filter(|definition| definition.spec.names.kind != "PartitionTable")
    {
        let schema = definition.spec.versions[0]
            .schema
            .as_ref()
            .unwrap()
            .open_api_v3_schema
            .as_ref()
            .unwrap();
        let status = &schema.properties.as_ref().unwrap()["status"];
        assert_eq!(
            status.default.as_ref().map(|default| &default.0),
            Some(&json!({"observedGeneration": -1}))
        );
        let conditions = &status.properties.as_ref().unwrap()["conditions"];
        assert_eq!(conditions.x_kubernetes_list_type.as_deref(), Some("map"));
        assert_eq!(conditions.x_kubernetes_list_map_keys, Some(vec!["type".to_owned()]));
    }
}
