//! Every rule of our definitions compiles, and refuses at least one resource.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use serde_json::json;

use super::*;

/// The key for all entries of the only map with rules, the settings of single brokers.
const MAP_KEY: &str = "0";

/// A rule with its schema.
struct Found {
    path: Path,
    schema: JSONSchemaProps,
    rule: ValidationRule,
}

/// Every rule of a schema. Panics on keywords that the validation does not support yet.
fn rules(path: &Path, schema: &JSONSchemaProps, in_list: bool) -> Vec<Found> {
    let unsupported = [
        schema.ref_path.is_some(),
        schema.definitions.is_some(),
        schema.dependencies.is_some(),
        schema.pattern_properties.is_some(),
        schema.additional_items.is_some(),
    ];
    assert_eq!(unsupported, [false; 5], "{path}");
    let known_formats =
        [None, Some("int16"), Some("uint16"), Some("int32"), Some("int64"), Some("date-time")];
    assert!(
        known_formats.contains(&schema.format.as_deref()),
        "{path}: format {:?}",
        schema.format
    );
    if let Some(pattern) = &schema.pattern {
        regex::Regex::new(pattern).unwrap();
    }
    let junctors = [&schema.all_of, &schema.any_of, &schema.one_of];
    for schema in junctors.into_iter().flatten().flatten().chain(schema.not.as_deref()) {
        assert!(rules(path, schema, in_list).is_empty(), "{path}: a rule in a junctor");
    }
    let own = schema.x_kubernetes_validations.iter().flatten();
    let mut found: Vec<Found> = own
        .map(|rule| Found { path: path.clone(), schema: schema.clone(), rule: rule.clone() })
        .collect();
    for Found { rule, .. } in &found {
        let program = rules::compile(&rule.rule).unwrap();
        let references = program.references();
        let variables: BTreeSet<&str> = references.variables().into_iter().collect();
        // The macros of lists bind `one` and `other`.
        assert!(
            variables.is_subset(&BTreeSet::from(["self", "oldSelf", "one", "other"])),
            "{path}: {variables:?}"
        );
        assert!(!in_list || !variables.contains("oldSelf"), "{path}: a transition rule in a list");
        rule.message_expression
            .iter()
            .for_each(|expression| drop(rules::compile(expression).unwrap()));
        rule.field_path
            .iter()
            .for_each(|below| assert!(path.below(below).is_some(), "{path}: {below}"));
        assert!(
            rule.message.is_some() || rule.message_expression.is_some(),
            "{path}: {} says nothing",
            rule.rule
        );
    }
    for (name, property) in schema.properties.iter().flatten() {
        found.extend(rules(&path.field(name), property, in_list));
    }
    structure::values(schema)
        .iter()
        .for_each(|each| found.extend(rules(&path.field(MAP_KEY), each, in_list)));
    structure::items(schema).iter().for_each(|each| found.extend(rules(&path.item(0), each, true)));
    found
}

fn rules_of(kind: &str) -> Vec<Found> {
    let crd = definition(kind);
    let schema = crd
        .spec
        .versions
        .first()
        .unwrap()
        .schema
        .as_ref()
        .unwrap()
        .open_api_v3_schema
        .as_ref()
        .unwrap();
    rules(&Path::root(), schema, false)
}

#[test]
fn every_rule_has_a_row_that_it_refuses() {
    let refused: Vec<String> =
        refused().iter().flat_map(|(object, old, _)| refusals(object, old.as_ref())).collect();
    for (kind, rules) in [("KafkaCluster", 10), ("Topic", 10), ("ConsumerGroup", 5)] {
        let found = rules_of(kind);
        assert!(found.len() >= rules, "{kind} has lost its rules");
        for Found { path, rule, .. } in
            found.iter().filter(|found| !found.rule.rule.starts_with("int(self)"))
        {
            // For a composed message, its beginning.
            let (message, is_whole) = match (&rule.message, &rule.message_expression) {
                (Some(message), _) => (message.as_str(), true),
                (None, expression) => {
                    (expression.as_deref().unwrap().split('\'').nth(1).unwrap(), false)
                }
            };
            let expected = FieldError::new(path, message).to_string();
            let (path_text, _) = expected.split_at(expected.len() - message.len());
            let has_row = refused.iter().any(|error| {
                let said = format!("\": {message}");
                error.starts_with(path_text)
                    && if is_whole { error.ends_with(&said) } else { error.contains(&said) }
            });
            assert!(has_row, "{kind} {path}: no row is refused with {message:?}");
        }
    }
}

/// The ranges of settings: the schema checks numbers, a rule checks strings.
#[test]
fn settings_out_of_range_are_refused_as_numbers_and_as_strings() {
    for kind in ["KafkaCluster", "Topic"] {
        for Found { path, schema, rule } in
            rules_of(kind).into_iter().filter(|found| found.rule.rule.starts_with("int(self)"))
        {
            let path = path.to_string();
            let setting = path.rsplit('"').nth(1).unwrap();
            let with = |value: Value| match kind {
                "Topic" => topic(json!({"config": {setting: value}})),
                _ if path.starts_with("spec.brokers.") => {
                    cluster(&json!({"brokers": {"config": {MAP_KEY: {setting: value}}}}))
                }
                _ if path.starts_with("spec.consumerGroups.") => {
                    cluster(&json!({"consumerGroups": {"config": {MAP_KEY: {setting: value}}}}))
                }
                _ if path.starts_with("spec.clientMetrics") => {
                    cluster(&json!({"clientMetrics": {MAP_KEY: {setting: value}}}))
                }
                _ => cluster(&json!({"brokers": {"replicas": 1000}, "config": {setting: value}})),
            };
            let message = rule.message.unwrap();
            let bounds = [
                (schema.minimum, -1, "greater than or equal to"),
                (schema.maximum, 1, "less than or equal to"),
            ];
            for (bound, beyond, words) in bounds
                .into_iter()
                .filter_map(|(bound, beyond, words)| Some((bound? as i64, beyond, words)))
            {
                let outside = bound + beyond;
                assert_eq!(
                    refusals(&with(json!(outside)), None),
                    [format!("{path}: Invalid value: {outside}: should be {words} {bound}")]
                );
                assert_eq!(
                    refusals(&with(json!(outside.to_string())), None),
                    [format!("{path}: Invalid value: \"{outside}\": {message}")]
                );
                // A value on the bound is in range, whatever other rules say.
                let inside = refusals(&with(json!(bound.to_string())), None);
                assert!(!inside.iter().any(|error| error.starts_with(&path)), "{inside:?}");
            }
            // The value exceeds an integer, so the rule cannot be evaluated.
            let huge = refusals(&with(json!("9999999999999999999")), None);
            assert!(
                huge.len() == 1 && huge.iter().all(|error| error.contains("evaluating rule: ")),
                "{huge:?}"
            );
        }
    }
}
