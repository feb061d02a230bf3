//! Validates a value against a structural schema, keyword by keyword, as kube-openapi does for
//! custom resources.
//!
//! Called by [`super::validate`], and recursively for each field. It never changes the value. It
//! runs a node's CEL rules only if the node and everything below it are well formed.

mod scalar;

#[cfg(test)]
mod tests;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrBool,
};
use serde_json::{Map, Value};

use super::error::{FieldError, shown, type_of};
use super::path::Path;
use super::rules;
use super::structure::{items, values};

/// The position of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It defines the fields, and may have rules.
    Spine,
    /// It is inside `allOf`, `anyOf`, `oneOf` or `not`, and restricts what the spine allows. A
    /// field that it does not name is not unknown.
    Junctor,
}

/// Adds to `errors` the violations of `value`, which is at `path`. `old` is the value to be
/// replaced.
pub(super) fn check(
    place: Place,
    schema: &JSONSchemaProps,
    value: &Value,
    old: Option<&Value>,
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    if value.is_null() && schema.nullable.unwrap_or(false) {
        return;
    }
    let known = errors.len();
    if let Some(expected) = expected_type(schema, value) {
        let actual = type_of(value);
        errors.push(FieldError::new(
            path,
            format!("Invalid value: \"{actual}\": must be of type {expected}: \"{actual}\""),
        ));
        return;
    }
    match value {
        Value::Object(fields) => check_object(place, schema, fields, old, path, errors),
        Value::Array(list) => check_list(place, schema, list, path, errors),
        Value::String(text) => scalar::check_text(schema, text, path, errors),
        Value::Number(number) => scalar::check_number(schema, number, path, errors),
        Value::Bool(_) | Value::Null => {}
    }
    check_enum(schema, value, path, errors);
    check_junctors(schema, value, path, errors);
    if place == Place::Spine && errors.len() == known {
        rules::check(schema, value, old, path, errors);
    }
}

/// The expected type, if the value has another.
fn expected_type<'s>(schema: &'s JSONSchemaProps, value: &Value) -> Option<&'s str> {
    let actual = type_of(value);
    if schema.x_kubernetes_int_or_string.unwrap_or(false) {
        return (!matches!(actual, "integer" | "string")).then_some("integer,string");
    }
    let expected = schema.type_.as_deref()?;
    let matches = expected == actual || (expected, actual) == ("number", "integer");
    (!matches).then_some(expected)
}

fn check_object(
    place: Place,
    schema: &JSONSchemaProps,
    fields: &Map<String, Value>,
    old: Option<&Value>,
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    for name in schema.required.iter().flatten().filter(|name| !fields.contains_key(*name)) {
        errors.push(FieldError::required(&path.field(name)));
    }
    check_count(
        fields.len(),
        [schema.min_properties, schema.max_properties],
        "properties",
        path,
        errors,
    );
    for (name, field) in fields {
        let path = path.field(name);
        let property = schema.properties.as_ref().and_then(|properties| properties.get(name));
        if let Some(property) = property.or_else(|| values(schema)) {
            check(place, property, field, old.and_then(|old| old.get(name)), &path, errors);
        } else if place == Place::Spine && !allows_unknown(schema) {
            errors.push(FieldError::new(&path, "unknown field"));
        }
    }
}

fn allows_unknown(schema: &JSONSchemaProps) -> bool {
    matches!(schema.additional_properties, Some(JSONSchemaPropsOrBool::Bool(true)))
        || schema.x_kubernetes_preserve_unknown_fields.unwrap_or(false)
        || schema.x_kubernetes_embedded_resource.unwrap_or(false)
}

/// Items have no old value: Kubernetes matches only those of `listType: map`, and refuses
/// transition rules below other lists.
fn check_list(
    place: Place,
    schema: &JSONSchemaProps,
    list: &[Value],
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    check_count(list.len(), [schema.min_items, schema.max_items], "items", path, errors);
    if let Some(each) = items(schema) {
        for (index, item) in list.iter().enumerate() {
            check(place, each, item, None, &path.item(index), errors);
        }
    }
    let repeated = |same: &dyn Fn(&Value, &Value) -> bool| {
        let repeats = |index: usize, item| {
            list.get(..index).is_some_and(|before| before.iter().any(|other| same(other, item)))
        };
        list.iter()
            .enumerate()
            .filter(move |(index, item)| repeats(*index, item))
            .map(|(index, item)| (index, item.clone()))
            .collect::<Vec<_>>()
    };
    let duplicates = match schema.x_kubernetes_list_type.as_deref() {
        Some("set") => repeated(&|a, b| a == b),
        Some("map") => repeated(&|a, b| {
            schema.x_kubernetes_list_map_keys.iter().flatten().all(|key| a.get(key) == b.get(key))
        }),
        _ => Vec::new(),
    };
    for (index, item) in duplicates {
        errors.push(FieldError::duplicate(&path.item(index), &item));
    }
    if schema.unique_items.unwrap_or(false) && !repeated(&|a, b| a == b).is_empty() {
        errors
            .push(FieldError::new(path, "Invalid value: \"array\": shouldn't contain duplicates"));
    }
}

/// Checks the number of items or properties against the minimum and the maximum.
fn check_count(
    count: usize,
    [min, max]: [Option<i64>; 2],
    what: &str,
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    if let Some(min) = min.filter(|min| count < *min) {
        errors.push(FieldError::new(
            path,
            format!("Invalid value: {count}: should have at least {min} {what}"),
        ));
    }
    if let Some(max) = max.filter(|max| count > *max) {
        errors.push(FieldError::new(
            path,
            format!("Too many: {count}: must have at most {max} {what}"),
        ));
    }
}

fn check_enum(schema: &JSONSchemaProps, value: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if let Some(allowed) = &schema.enum_
        && !allowed.iter().any(|allowed| allowed.0 == *value)
    {
        let supported: Vec<String> = allowed.iter().map(|allowed| shown(&allowed.0)).collect();
        let reason = format!(
            "Unsupported value: {}: supported values: {}",
            shown(value),
            supported.join(", ")
        );
        errors.push(FieldError::new(path, reason));
    }
}

fn check_junctors(
    schema: &JSONSchemaProps,
    value: &Value,
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    let failures = |schema: &JSONSchemaProps| {
        let mut failures = Vec::new();
        check(Place::Junctor, schema, value, None, path, &mut failures);
        failures
    };
    for schema in schema.all_of.iter().flatten() {
        errors.extend(failures(schema));
    }
    let holding = |schemas: &[JSONSchemaProps]| {
        schemas.iter().filter(|schema| failures(schema).is_empty()).count()
    };
    let mut refuse = |reason: &str| errors.push(FieldError::invalid(path, value, reason));
    if let Some(schemas) = &schema.any_of
        && holding(schemas) == 0
    {
        refuse("must validate at least one schema (anyOf)");
    }
    match schema.one_of.as_deref().map(holding) {
        None | Some(1) => {}
        Some(0) => refuse("must validate one and only one schema (oneOf). Found none valid"),
        Some(count) => refuse(&format!(
            "must validate one and only one schema (oneOf). Found {count} valid alternatives"
        )),
    }
    if let Some(schema) = &schema.not
        && failures(schema).is_empty()
    {
        refuse("must not validate the schema (not)");
    }
}
