//! PURE: computes the JSON merge patch (RFC 7386) that brings a decision to an object that others
//! write too.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The patch that brings the decision from `before` to `after` to the object; `None` if the object
/// needs no change. `there` is the object: it may contain what a user wrote and the controller has
/// not accepted, and the patch names none of that. Null stands for an absent field.
pub(super) fn owed(before: &Value, after: &Value, there: &Value) -> Option<Value> {
    if before == after || there == after {
        return None;
    }
    let empty = Map::new();
    let fields = |of: &Value| matches!(of, Value::Object(_) | Value::Null);
    if !fields(before) || !fields(after) || (before.is_null() && after.is_null()) {
        return Some(after.clone());
    }
    let fields = |of: &'_ Value| of.as_object().cloned().unwrap_or_else(|| empty.clone());
    let (old, new, held) = (fields(before), fields(after), fields(there));
    let of =
        |fields: &Map<String, Value>, name: &str| fields.get(name).cloned().unwrap_or_default();
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut patch = Map::new();
    for name in names {
        if let Some(changed) = owed(&of(&old, name), &of(&new, name), &of(&held, name)) {
            patch.insert(name.clone(), changed);
        }
    }
    if patch.is_empty() {
        return None;
    }
    // The decision removes every field of the object.
    let empties =
        after.is_null() && held.keys().all(|name| patch.get(name).is_some_and(Value::is_null));
    Some(if empties { Value::Null } else { Value::Object(patch) })
}

/// Whether a patch removes an object within `there` as a whole. That also removes what somebody
/// has written into it since `there` was read.
pub(super) fn removes_an_object(patch: &Value, there: &Value) -> bool {
    match (patch, there) {
        (Value::Null, Value::Object(_)) => true,
        (Value::Object(fields), Value::Object(held)) => fields.iter().any(|(name, change)| {
            held.get(name).is_some_and(|value| removes_an_object(change, value))
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_the_decision_changed_is_named() {
        let cases = [
            // Only the operator wrote: the object is as it was before.
            (json!({"a": 1}), json!({"a": 1}), json!({"a": 1}), None),
            (
                json!({"a": 1, "b": {"c": 2, "d": 3}}),
                json!({"a": 1, "b": {"c": 2, "d": 4}}),
                json!({"a": 1, "b": {"c": 2, "d": 3}}),
                Some(json!({"b": {"d": 4}})),
            ),
            (
                json!({"a": 1, "b": 2}),
                json!({"a": 1}),
                json!({"a": 1, "b": 2}),
                Some(json!({"b": null})),
            ),
            (json!({}), json!({"a": {"b": 1}}), json!({}), Some(json!({"a": {"b": 1}}))),
            (
                json!({"a": [1, 2]}),
                json!({"a": [1]}),
                json!({"a": [1, 2]}),
                Some(json!({"a": [1]})),
            ),
            // A user wrote something that is not accepted: it stays.
            (
                json!({"a": 5, "c": {"x": 1}}),
                json!({"a": 5, "c": {"x": 2}}),
                json!({"a": 3, "c": {"x": 1, "y": 1}}),
                Some(json!({"c": {"x": 2}})),
            ),
            (
                json!({"a": 5}),
                json!({"a": 5, "c": {"x": 2}}),
                json!({"a": 3, "c": {"y": 1}}),
                Some(json!({"c": {"x": 2}})),
            ),
            (
                json!({"c": {"x": 1}}),
                json!({}),
                json!({"c": {"x": 1, "y": 1}}),
                Some(json!({"c": {"x": null}})),
            ),
            (json!({"c": {"x": 1}}), json!({}), json!({"c": {"x": 1}}), Some(json!({"c": null}))),
            (
                json!({"c": {"x": 1, "z": 1}}),
                json!({"c": {"x": 1, "z": 2}}),
                json!({}),
                Some(json!({"c": {"z": 2}})),
            ),
            (json!({"c": {"x": 1}}), json!({}), json!({}), None),
            // The accepted value is the user's own.
            (json!({"a": 5}), json!({"a": 3}), json!({"a": 3}), None),
            // The decision fills in a default.
            (json!({"a": null}), json!({"a": 1}), json!({}), Some(json!({"a": 1}))),
        ];
        for (before, after, there, patch) in cases {
            assert_eq!(owed(&before, &after, &there), patch, "{before} to {after} of {there}");
        }
    }

    #[test]
    fn a_patch_that_removes_an_object_is_told_from_one_that_removes_fields() {
        let there = json!({"a": 1, "c": {"x": 1, "d": {"y": 1}}});
        for (patch, removes) in [
            (json!({"a": null, "b": null}), false),
            (json!({"c": {"x": null}}), false),
            (json!({"c": null}), true),
            (json!({"a": 2, "c": {"d": null}}), true),
            (json!({"c": {"d": {"y": null, "z": null}}}), false),
        ] {
            assert_eq!(removes_an_object(&patch, &there), removes, "{patch}");
        }
    }
}
