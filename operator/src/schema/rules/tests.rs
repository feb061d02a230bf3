//! The input and the errors of rules. The rules of our own definitions are in `schema/tests.rs`.

use serde_json::{from_value, json};

use super::*;

/// The errors of the rules of `schema` for `value` at `spec`.
fn errors(schema: &Value, value: &Value, old: Option<&Value>) -> Vec<String> {
    let schema: JSONSchemaProps = from_value(schema.clone()).unwrap();
    let mut errors = Vec::new();
    check(&schema, value, old, &Path::root().field("spec"), &mut errors);
    errors.iter().map(FieldError::to_string).collect()
}

#[test]
fn what_rules_see() {
    let properties = json!({
        "a.b-c/d__e": {"type": "integer"}, "namespace": {"type": "string"}, "share": {"type": "number"}, "any": {"x-kubernetes-int-or-string": true},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}}, "gone": {"type": "string", "nullable": true},
        "list": {"type": "array", "items": {"type": "object", "properties": {"x.y": {"type": "boolean"}}}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    });
    let value = json!({
        "a.b-c/d__e": 5, "namespace": "n", "share": 2, "any": "-7", "map": {"k.l": 3}, "gone": null, "list": [{"x.y": true}, {}], "open": {"z": 1},
        "unknown": 1,
    });
    let rows = [
        ("self.a__dot__b__dash__c__slash__d__underscores__e == 5", true),
        ("self.__namespace__ == 'n'", true),
        ("self.share == 2.0 && self.share / 4.0 == 0.5", true),
        ("int(self.any) == -7", true),
        ("self.map['k.l'] == 3 && 'k.l' in self.map && !('m' in self.map)", true),
        ("has(self.gone)", false),
        ("has(self.unknown)", false),
        ("has(self.open.z)", false),
        ("self.list.exists(item, has(item.x__dot__y) && item.x__dot__y)", true),
        ("self.list.all(item, has(item.x__dot__y))", false),
        ("size(self.list) == 2 && size(self.__namespace__) == 1", true),
        ("self.__namespace__.matches('^[a-z]$') && self.__namespace__.startsWith('n')", true),
    ];
    for (rule, expected) in rows {
        let schema = json!({"type": "object", "properties": properties, "x-kubernetes-validations": [{"rule": rule, "message": "no"}]});
        let expected: &[&str] =
            if expected { &[] } else { &["spec: Invalid value: \"object\": no"] };
        assert_eq!(errors(&schema, &value, None), expected, "{rule}");
    }
}

#[test]
fn what_kubernetes_adds() {
    let rows = [
        ("quantity('1Gi').compareTo(quantity('1024Mi')) == 0", true),
        ("quantity('500m').compareTo(quantity('1')) < 0", true),
        ("quantity(string(self.size)).compareTo(quantity('1Gi')) > 0", true),
        ("quantity(string(self.count)).isInteger()", true),
        ("quantity('1500m').isInteger()", false),
        ("isIP('192.0.2.1') && isIP('2001:db8::1')", true),
        (
            "isIP('192.0.2.300') || isIP('::ffff:192.0.2.1') || isIP('fe80::1%eth0') || isIP('example.com')",
            false,
        ),
    ];
    let properties = json!({"size": {"x-kubernetes-int-or-string": true}, "count": {"x-kubernetes-int-or-string": true}});
    for (rule, expected) in rows {
        let schema = json!({"type": "object", "properties": properties, "x-kubernetes-validations": [{"rule": rule, "message": "no"}]});
        let expected: &[&str] =
            if expected { &[] } else { &["spec: Invalid value: \"object\": no"] };
        assert_eq!(
            errors(&schema, &json!({"size": "1.5Gi", "count": 3}), None),
            expected,
            "{rule}"
        );
    }
    let schema = json!({"type": "string", "x-kubernetes-validations": [{"rule": "quantity(self).isInteger()", "message": "no"}]});
    let refused = errors(&schema, &json!("mem"), None);
    assert!(
        refused.iter().all(|error| error.contains("evaluating rule: no")) && refused.len() == 1,
        "{refused:?}"
    );
}

#[test]
fn transition_rules() {
    let rows = [
        (json!({"rule": "self >= oldSelf", "message": "no"}), None, true),
        (json!({"rule": "self >= oldSelf", "message": "no"}), Some(json!(null)), true),
        (json!({"rule": "self >= oldSelf", "message": "no"}), Some(json!(3)), true),
        (json!({"rule": "self >= oldSelf", "message": "no"}), Some(json!(4)), false),
        (
            json!({"rule": "oldSelf.hasValue() || self < 3", "message": "no", "optionalOldSelf": true}),
            None,
            false,
        ),
        (
            json!({"rule": "oldSelf.hasValue() && oldSelf.value() == 9", "message": "no", "optionalOldSelf": true}),
            Some(json!(9)),
            true,
        ),
        (
            json!({"rule": "oldSelf.orValue(0) <= self", "message": "no", "optionalOldSelf": true}),
            Some(json!(9)),
            false,
        ),
    ];
    for (rule, old, expected) in rows {
        let schema = json!({"type": "integer", "x-kubernetes-validations": [rule]});
        let expected: &[&str] = if expected { &[] } else { &["spec: Invalid value: 3: no"] };
        assert_eq!(errors(&schema, &json!(3), old.as_ref()), expected, "{rule} {old:?}");
    }
}

#[test]
fn what_rules_say() {
    let rows = [
        (
            json!({"rule": "self.n > 1"}),
            r#"spec: Invalid value: "object": failed rule: self.n > 1"#,
        ),
        (
            json!({"rule": "self.n > 1", "message": " too few\n"}),
            r#"spec: Invalid value: "object": too few"#,
        ),
        (
            json!({"rule": "self.n > 1", "message": "m", "messageExpression": "'n is ' + string(self.n)"}),
            r#"spec: Invalid value: "object": n is 1"#,
        ),
        // An expression that gives no line of text is ignored.
        (
            json!({"rule": "self.n > 1", "message": "m", "messageExpression": "self.missing"}),
            r#"spec: Invalid value: "object": m"#,
        ),
        (
            json!({"rule": "self.n > 1", "message": "m", "messageExpression": "' '"}),
            r#"spec: Invalid value: "object": m"#,
        ),
        (
            json!({"rule": "self.n > 1", "message": "m", "fieldPath": ".n"}),
            r#"spec.n: Invalid value: "object": m"#,
        ),
        (
            json!({"rule": "self.n > 1", "message": "m", "reason": "FieldValueForbidden"}),
            "spec: Forbidden: m",
        ),
        (
            json!({"rule": "self.n > 1", "message": "m", "reason": "FieldValueRequired", "fieldPath": "['a.b']"}),
            r#"spec["a.b"]: Required value: m"#,
        ),
        (
            json!({"rule": "self.n > 1", "message": "m", "reason": "FieldValueDuplicate"}),
            r#"spec: Duplicate value: "object""#,
        ),
    ];
    for (rule, expected) in rows {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "x-kubernetes-validations": [rule]});
        assert_eq!(errors(&schema, &json!({"n": 1}), None), [expected], "{rule}");
    }
}

#[test]
fn a_rule_that_cannot_be_evaluated_refuses() {
    for (rule, part) in [
        ("self.", "rule compile error"),
        ("self.missing == 1", "evaluating rule: self.missing == 1"),
        ("isURL(self.n)", "evaluating rule"),
        ("self.n", "is not true or false"),
        ("oldSelf == self && self.missing == 1", ""),
    ] {
        let schema = json!({"type": "object", "properties": {"n": {"type": "string"}}, "x-kubernetes-validations": [{"rule": rule}]});
        let errors = errors(&schema, &json!({"n": "x"}), None).join("; ");
        assert_eq!(errors.is_empty(), part.is_empty(), "{rule}: {errors}");
        assert!(errors.contains(part), "{rule}: {errors}");
    }
}

#[test]
fn names_in_rules() {
    let rows = [
        ("retention.ms", Some("retention__dot__ms")),
        ("a-b/c", Some("a__dash__b__slash__c")),
        ("a__b", Some("a__underscores__b")),
        ("a_b", Some("a_b")),
        ("in", Some("__in__")),
        ("inner", Some("inner")),
        ("9lives", None),
        ("", None),
        ("a b", None),
        ("ö", None),
    ];
    for (name, expected) in rows {
        assert_eq!(escape(name).as_deref(), expected, "{name}");
    }
}
