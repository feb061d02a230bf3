//! Every keyword, with the API server's error for a value that violates it.

use serde_json::{from_value, json};

use super::*;

/// The violations of `value` at `spec.x`.
fn errors(schema: &Value, value: &Value) -> Vec<String> {
    let schema: JSONSchemaProps = from_value(schema.clone()).unwrap();
    let mut errors = Vec::new();
    check(Place::Spine, &schema, value, None, &Path::root().field("spec").field("x"), &mut errors);
    errors.iter().map(FieldError::to_string).collect()
}

#[test]
fn scalars() {
    let rows = [
        (json!({"type": "integer"}), json!(5), ""),
        (
            json!({"type": "integer"}),
            json!("5"),
            r#"spec.x: Invalid value: "string": must be of type integer: "string""#,
        ),
        (
            json!({"type": "integer"}),
            json!(5.5),
            r#"spec.x: Invalid value: "number": must be of type integer: "number""#,
        ),
        (
            json!({"type": "integer"}),
            json!(u64::MAX),
            r#"spec.x: Invalid value: "number": must be of type integer: "number""#,
        ),
        (
            json!({"type": "integer"}),
            json!(null),
            r#"spec.x: Invalid value: "null": must be of type integer: "null""#,
        ),
        (json!({"type": "integer", "nullable": true, "enum": [1]}), json!(null), ""),
        (json!({"type": "number"}), json!(5), ""),
        (
            json!({"type": "boolean"}),
            json!("true"),
            r#"spec.x: Invalid value: "string": must be of type boolean: "string""#,
        ),
        (json!({"x-kubernetes-int-or-string": true}), json!("5"), ""),
        (
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
            json!(5),
            "",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            r#"spec.x: Invalid value: "boolean": must be of type integer,string: "boolean""#,
        ),
        (json!({"minimum": 1.0}), json!(1), ""),
        (
            json!({"minimum": 1.0}),
            json!(0),
            "spec.x: Invalid value: 0: should be greater than or equal to 1",
        ),
        (
            json!({"minimum": 1.0, "exclusiveMinimum": true}),
            json!(1),
            "spec.x: Invalid value: 1: should be greater than 1",
        ),
        (
            json!({"maximum": 1.5}),
            json!(1.6),
            "spec.x: Invalid value: 1.6: should be less than or equal to 1.5",
        ),
        (
            json!({"maximum": 9.0, "exclusiveMaximum": true}),
            json!(9),
            "spec.x: Invalid value: 9: should be less than 9",
        ),
        (json!({"multipleOf": 4.0}), json!(8), ""),
        (
            json!({"multipleOf": 4.0}),
            json!(6),
            "spec.x: Invalid value: 6: should be a multiple of 4",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(3_000_000_000_u32),
            r#"spec.x: Invalid value: 3000000000: must be of type int32: "integer""#,
        ),
        // The limit counts characters, not bytes.
        (json!({"maxLength": 3}), json!("öäü"), ""),
        (json!({"maxLength": 3}), json!("abcd"), "spec.x: Too long: may not be more than 3 bytes"),
        (
            json!({"minLength": 1}),
            json!(""),
            r#"spec.x: Invalid value: "": should be at least 1 chars long"#,
        ),
        (json!({"pattern": "b+"}), json!("abc"), ""),
        (
            json!({"pattern": "^b+$"}),
            json!("abc"),
            r#"spec.x: Invalid value: "abc": should match '^b+$'"#,
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("now"),
            r#"spec.x: Invalid value: "now": must be of type date-time: "now""#,
        ),
        (json!({"enum": ["a", "b"]}), json!("b"), ""),
        (
            json!({"enum": ["a", "b"]}),
            json!("x"),
            r#"spec.x: Unsupported value: "x": supported values: "a", "b""#,
        ),
        (json!({"enum": [1, 2]}), json!(3), "spec.x: Unsupported value: 3: supported values: 1, 2"),
    ];
    for (schema, value, expected) in rows {
        assert_eq!(errors(&schema, &value).join("; "), expected, "{schema} {value}");
    }
}

#[test]
fn lists_and_maps() {
    let object =
        json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}});
    let keyed = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}});
    let rows = [
        (object.clone(), json!({"a": 1}), ""),
        (object.clone(), json!({}), "spec.x.a: Required value"),
        (object.clone(), json!({"a": 1, "b": 2}), "spec.x.b: unknown field"),
        (
            object.clone(),
            json!([]),
            r#"spec.x: Invalid value: "array": must be of type object: "array""#,
        ),
        (json!({"type": "object"}), json!({"a": 1}), "spec.x.a: unknown field"),
        (json!({"type": "object", "additionalProperties": true}), json!({"a": 1}), ""),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            json!({"a": 1}),
            "",
        ),
        (
            json!({"type": "object", "additionalProperties": {"minimum": 2.0}}),
            json!({"a.b": 2}),
            "",
        ),
        (
            json!({"type": "object", "additionalProperties": {"minimum": 2.0}}),
            json!({"a.b": 1}),
            r#"spec.x["a.b"]: Invalid value: 1: should be greater than or equal to 2"#,
        ),
        (
            json!({"minProperties": 1, "additionalProperties": true}),
            json!({}),
            "spec.x: Invalid value: 0: should have at least 1 properties",
        ),
        (
            json!({"maxProperties": 1, "additionalProperties": true}),
            json!({"a": 1, "b": 2}),
            "spec.x: Too many: 2: must have at most 1 properties",
        ),
        (
            json!({"items": {"type": "string"}}),
            json!(["a", 1]),
            r#"spec.x[1]: Invalid value: "integer": must be of type string: "integer""#,
        ),
        (
            json!({"minItems": 1}),
            json!([]),
            "spec.x: Invalid value: 0: should have at least 1 items",
        ),
        (json!({"maxItems": 1}), json!([1, 2]), "spec.x: Too many: 2: must have at most 1 items"),
        (json!({"uniqueItems": true}), json!([1, 2]), ""),
        (
            json!({"uniqueItems": true}),
            json!([1, 1]),
            r#"spec.x: Invalid value: "array": shouldn't contain duplicates"#,
        ),
        (
            json!({"x-kubernetes-list-type": "set"}),
            json!(["a", "b", "a"]),
            r#"spec.x[2]: Duplicate value: "a""#,
        ),
        (keyed.clone(), json!([{"name": "a", "port": 1}, {"name": "b", "port": 1}]), ""),
        (
            keyed,
            json!([{"name": "a", "port": 1}, {"name": "a", "port": 2}]),
            r#"spec.x[1]: Duplicate value: "object""#,
        ),
    ];
    for (schema, value, expected) in rows {
        assert_eq!(errors(&schema, &value).join("; "), expected, "{schema} {value}");
    }
}

#[test]
fn junctors() {
    let (small, even) = (json!({"maximum": 10.0}), json!({"multipleOf": 2.0}));
    let rows = [
        (json!({"allOf": [small, even]}), json!(4), ""),
        (
            json!({"allOf": [small, even]}),
            json!(13),
            "spec.x: Invalid value: 13: should be less than or equal to 10; spec.x: Invalid value: 13: should be a multiple of 2",
        ),
        (json!({"anyOf": [small, even]}), json!(12), ""),
        (
            json!({"anyOf": [small, even]}),
            json!(13),
            "spec.x: Invalid value: 13: must validate at least one schema (anyOf)",
        ),
        (json!({"oneOf": [small, even]}), json!(12), ""),
        (
            json!({"oneOf": [small, even]}),
            json!(13),
            "spec.x: Invalid value: 13: must validate one and only one schema (oneOf). Found none valid",
        ),
        (
            json!({"oneOf": [small, even]}),
            json!(2),
            "spec.x: Invalid value: 2: must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
        (json!({"not": small}), json!(11), ""),
        (
            json!({"not": small}),
            json!(1),
            "spec.x: Invalid value: 1: must not validate the schema (not)",
        ),
        // A junctor defines no fields: one that it does not mention is not unknown.
        (
            json!({"properties": {"a": {}, "b": {}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"a": 1}),
            "",
        ),
    ];
    for (schema, value, expected) in rows {
        assert_eq!(errors(&schema, &value).join("; "), expected, "{schema} {value}");
    }
}

#[test]
fn a_long_value_is_cut_in_the_error() {
    let errors = errors(&json!({"enum": ["a"]}), &json!("ö".repeat(100_000)));
    assert_eq!(
        errors,
        [format!("spec.x: Unsupported value: \"{}...: supported values: \"a\"", "ö".repeat(199))]
    );
}
