//! The preparation of an object before validation, as in the API server: it drops nulls where the
//! schema does not allow them, sets defaults, and turns whole numbers into integers. The order is
//! that of apiextensions-apiserver (`defaulting.Default`, `PruneNonNullableNullsWithoutDefaults`).
//! Refuses nothing.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::{Number, Value};

use super::structure::{items, values};

/// The largest whole number up to which a double is exact; a larger float is not turned into an
/// integer.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Prepares `value` in place.
pub(super) fn prepare(schema: &JSONSchemaProps, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, property) in schema.properties.iter().flatten() {
                if !property.nullable.unwrap_or(false)
                    && fields.get(name).is_some_and(Value::is_null)
                {
                    fields.remove(name);
                }
                if let Some(default) = &property.default
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.0.clone());
                }
                if let Some(field) = fields.get_mut(name) {
                    prepare(property, field);
                }
            }
            if let Some(each) = values(schema) {
                fields.values_mut().for_each(|field| replace_null(each, field));
            }
        }
        Value::Array(list) => {
            if let Some(each) = items(schema) {
                list.iter_mut().for_each(|item| replace_null(each, item));
            }
        }
        Value::Number(number) => {
            let wants_integer = schema.type_.as_deref() == Some("integer")
                || schema.x_kubernetes_int_or_string.unwrap_or(false);
            if let Some(whole) = whole(number).filter(|_| wants_integer) {
                *number = whole;
            }
        }
        _ => {}
    }
}

/// A null entry of a map or list cannot be dropped, so it gets the default if there is one.
fn replace_null(schema: &JSONSchemaProps, value: &mut Value) {
    if let Some(default) = &schema.default
        && value.is_null()
        && !schema.nullable.unwrap_or(false)
    {
        *value = default.0.clone();
    }
    prepare(schema, value);
}

/// JSON has one number type: `3.0` is an integer.
fn whole(number: &Number) -> Option<Number> {
    let float = number
        .as_f64()
        .filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT_MAX)?;
    // The guard above makes the cast exact.
    Some(Number::from(float as i64))
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn nulls_defaults_and_whole_numbers() {
        let schema: JSONSchemaProps = from_value(json!({"type": "object", "properties": {
            "plain": {"type": "string"},
            "nullable": {"type": "string", "nullable": true, "default": "d"},
            "count": {"type": "integer", "default": 1},
            "share": {"type": "number"},
            "inner": {"type": "object", "default": {}, "properties": {"a": {"type": "string", "default": "x"}}},
            "map": {"type": "object", "additionalProperties": {"type": "integer", "default": 7}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "integer", "default": 2}}}},
        }}))
        .unwrap();
        let rows = [
            (json!({}), json!({"count": 1, "inner": {"a": "x"}, "nullable": "d"})),
            (
                json!({"plain": null, "nullable": null, "count": null, "inner": null}),
                json!({"nullable": null, "count": 1, "inner": {"a": "x"}}),
            ),
            (
                json!({"count": 3.0, "share": 3.0, "inner": {"a": "y"}, "map": {"k": null}, "list": [{}, {"b": 3}, null], "nullable": "n"}),
                json!({"count": 3, "share": 3.0, "inner": {"a": "y"}, "map": {"k": 7}, "list": [{"b": 2}, {"b": 3}, null], "nullable": "n"}),
            ),
            (
                json!({"count": 3.5, "inner": {"a": "y"}, "map": {"k": 1e300}, "nullable": "n"}),
                json!({"count": 3.5, "inner": {"a": "y"}, "map": {"k": 1e300}, "nullable": "n"}),
            ),
            (json!([]), json!([])),
        ];
        for (mut value, expected) in rows {
            prepare(&schema, &mut value);
            assert_eq!(value, expected);
        }
    }
}
