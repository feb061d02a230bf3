//! The checks of Kubernetes on every object: a valid name, and only known fields in `metadata`.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use super::check::{self, Place};
use super::error::FieldError;
use super::path::Path;
use super::prepare;

/// The most characters of a name (`DNS1123SubdomainMaxLength` in apimachinery).
const NAME_CHARS_MAX: usize = 253;

const NAME_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an \
                         alphanumeric character (e.g. 'example.com', regex used for validation is \
                         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// Checks an object's `metadata`.
pub(super) fn check(metadata: Option<&Value>, errors: &mut Vec<FieldError>) {
    let path = Path::root().field("metadata");
    let name_path = path.field("name");
    let mut metadata = metadata.cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let schema = object_meta();
    prepare::prepare(&schema, &mut metadata);
    check::check(Place::Spine, &schema, &metadata, None, &path, errors);
    match metadata.get("name") {
        Some(Value::String(name)) if name.is_empty() => {
            errors.push(FieldError::required(&name_path))
        }
        Some(Value::String(name)) => {
            if name.len() > NAME_CHARS_MAX {
                errors.push(FieldError::invalid(
                    &name_path,
                    &Value::from(name.as_str()),
                    format!("must be no more than {NAME_CHARS_MAX} characters"),
                ));
            }
            if !is_subdomain(name) {
                errors.push(FieldError::invalid(
                    &name_path,
                    &Value::from(name.as_str()),
                    NAME_RULE,
                ));
            }
        }
        // The schema has reported the wrong type.
        Some(_) => {}
        None => errors.push(FieldError::required(&name_path)),
    }
}

fn is_subdomain(name: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.split('.').all(|label| {
        let ends = [label.bytes().next(), label.bytes().next_back()];
        ends.iter().all(|end| end.is_some_and(alphanumeric))
            && label.bytes().all(|byte| alphanumeric(byte) || byte == b'-')
    })
}

/// The part of `metadata` that rules see: only the name, as in Kubernetes. [`check()`] validates
/// the rest.
pub(super) fn as_rules_see_it() -> JSONSchemaProps {
    JSONSchemaProps {
        required: Some(vec!["name".to_owned()]),
        default: Some(JSON(Value::Object(serde_json::Map::new()))),
        x_kubernetes_preserve_unknown_fields: Some(true),
        ..object([("name", text()), ("generateName", text())])
    }
}

/// The schema of a string.
pub(super) fn text() -> JSONSchemaProps {
    typed("string")
}

/// The schema of `ObjectMeta`. Fields that the API server sets are known by name only.
fn object_meta() -> JSONSchemaProps {
    let time = JSONSchemaProps { format: Some("date-time".to_owned()), ..text() };
    let texts = || JSONSchemaProps {
        additional_properties: Some(JSONSchemaPropsOrBool::Schema(Box::new(text()))),
        ..typed("object")
    };
    let list = |each| JSONSchemaProps {
        items: Some(JSONSchemaPropsOrArray::Schema(Box::new(each))),
        ..typed("array")
    };
    let anything =
        JSONSchemaProps { x_kubernetes_preserve_unknown_fields: Some(true), ..typed("object") };
    object([
        ("annotations", texts()),
        ("creationTimestamp", time.clone()),
        ("deletionGracePeriodSeconds", typed("integer")),
        ("deletionTimestamp", time),
        ("finalizers", list(text())),
        ("generateName", text()),
        ("generation", typed("integer")),
        ("labels", texts()),
        ("managedFields", list(anything.clone())),
        ("name", text()),
        ("namespace", text()),
        ("ownerReferences", list(anything)),
        ("resourceVersion", text()),
        ("selfLink", text()),
        ("uid", text()),
    ])
}

fn typed(name: &str) -> JSONSchemaProps {
    JSONSchemaProps { type_: Some(name.to_owned()), ..JSONSchemaProps::default() }
}

fn object<const N: usize>(properties: [(&str, JSONSchemaProps); N]) -> JSONSchemaProps {
    let properties: BTreeMap<_, _> =
        properties.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    JSONSchemaProps { properties: Some(properties), ..typed("object") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names() {
        let long = "a".repeat(254);
        let rows = [
            ("orders", true),
            ("0.orders-v1.eu", true),
            ("", false),
            ("Orders", false),
            ("orders_v1", false),
            ("-orders", false),
            ("orders-", false),
            ("orders..v1", false),
            (".orders", false),
            ("ördërs", false),
            (&long[..253], true),
            (long.as_str(), false),
        ];
        for (name, expected) in rows {
            let mut errors = Vec::new();
            check(Some(&json!({"name": name})), &mut errors);
            assert_eq!(errors.is_empty(), expected, "{name}: {errors:?}");
        }
    }

    #[test]
    fn the_words_and_the_other_fields() {
        let rows = [
            (json!({"name": "a"}), vec![]),
            (
                json!({"name": "a", "labels": {"x": "y"}, "annotations": null, "creationTimestamp": null, "managedFields": [{"manager": "kubectl"}]}),
                vec![],
            ),
            (json!({}), vec!["metadata.name: Required value"]),
            (json!({"name": null}), vec!["metadata.name: Required value"]),
            (
                json!({"name": 5}),
                vec![
                    "metadata.name: Invalid value: \"integer\": must be of type string: \"integer\"",
                ],
            ),
            (
                json!([]),
                vec![
                    "metadata: Invalid value: \"array\": must be of type object: \"array\"",
                    "metadata.name: Required value",
                ],
            ),
            (json!({"name": "a", "label": {}}), vec!["metadata.label: unknown field"]),
            (
                json!({"name": "a", "labels": {"on": true}}),
                vec![
                    "metadata.labels.on: Invalid value: \"boolean\": must be of type string: \"boolean\"",
                ],
            ),
        ];
        for (metadata, expected) in rows {
            let mut errors = Vec::new();
            check(Some(&metadata), &mut errors);
            assert_eq!(
                errors.iter().map(FieldError::to_string).collect::<Vec<_>>(),
                expected,
                "{metadata}"
            );
        }
    }
}
