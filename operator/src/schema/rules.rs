//! The CEL rules of a schema (`x-kubernetes-validations`), with Kubernetes' variables: `self`, and
//! `oldSelf` if a value is replaced.
//!
//! Called for one node with a well-formed value. A rule that does not compile or cannot be
//! evaluated refuses the value, as in an API server. A test compiles every rule of our definitions
//! and breaks each once. Rules are only on the spine of a schema, not in `allOf`.

mod functions;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::common::types::CelOptional;
use cel::common::value::Val;
use cel::{Context, Env, Program};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, ValidationRule,
};
use serde_json::Value;

use super::error::{FieldError, shown};
use super::path::Path;
use super::structure::{items, values};

/// The functions of rules: CEL's own, and those of Kubernetes that our rules need.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(functions::environment()));

/// Reserved words of CEL, which are escaped in identifiers (`cel.Escape` in k8s.io/apiserver).
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Adds to `errors` the rules of `schema` that `value` breaks.
pub(super) fn check(
    schema: &JSONSchemaProps,
    value: &Value,
    old: Option<&Value>,
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    let rules = schema.x_kubernetes_validations.as_deref().unwrap_or_default();
    if rules.is_empty() || value.is_null() {
        return;
    }
    let old = old.filter(|old| !old.is_null());
    for rule in rules {
        match holds(rule, schema, value, old) {
            Ok(true) => {}
            Ok(false) => {
                let message = message(rule, schema, value, old);
                errors.push(refusal(rule, value, path, &message));
            }
            Err(error) => errors.push(FieldError::invalid(path, value, error)),
        }
    }
}

/// Whether a rule holds. A transition rule holds without an old value, unless it has
/// `optionalOldSelf`.
pub(super) fn holds(
    rule: &ValidationRule,
    schema: &JSONSchemaProps,
    value: &Value,
    old: Option<&Value>,
) -> Result<bool, String> {
    let program = compile(&rule.rule)?;
    let optional_old = rule.optional_old_self.unwrap_or(false);
    if old.is_none() && !optional_old && program.references().has_variable("oldSelf") {
        return Ok(true);
    }
    match evaluate(&program, rule, schema, value, old)? {
        cel::Value::Bool(holds) => Ok(holds),
        other => Err(format!("{other:?} is not true or false: {}", said(rule))),
    }
}

/// Compiles an expression.
pub(super) fn compile(expression: &str) -> Result<Program, String> {
    ENVIRONMENT.compile(expression).map_err(|error| format!("rule compile error: {error}"))
}

fn evaluate(
    program: &Program,
    rule: &ValidationRule,
    schema: &JSONSchemaProps,
    value: &Value,
    old: Option<&Value>,
) -> Result<cel::Value, String> {
    let failed = |error: cel::ExecutionError| format!("{error} evaluating rule: {}", said(rule));
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    context.add_variable_as_val("self", operand(schema, value).map_err(failed)?);
    let old = old.map(|old| operand(schema, old)).transpose().map_err(failed)?;
    match (old, rule.optional_old_self.unwrap_or(false)) {
        (Some(old), false) => context.add_variable_as_val("oldSelf", old),
        (Some(old), true) => context.add_variable_as_val("oldSelf", Box::new(CelOptional::of(old))),
        (None, true) => context.add_variable_as_val("oldSelf", Box::new(CelOptional::none())),
        (None, false) => {}
    }
    program.execute(&context).map_err(failed)
}

fn operand(schema: &JSONSchemaProps, value: &Value) -> Result<Box<dyn Val>, cel::ExecutionError> {
    convert(schema, value).try_into()
}

/// A value as CEL sees it, typed by its schema. Properties that are unknown or null are omitted.
fn convert(schema: &JSONSchemaProps, value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(flag) => cel::Value::Bool(*flag),
        Value::Number(number) => {
            match number.as_i64().filter(|_| schema.type_.as_deref() != Some("number")) {
                Some(integer) => cel::Value::Int(integer),
                None => cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            }
        }
        Value::String(text) => cel::Value::from(text.as_str()),
        Value::Array(list) => {
            let each = items(schema);
            cel::Value::from(
                list.iter().filter_map(|item| Some(convert(each?, item))).collect::<Vec<_>>(),
            )
        }
        Value::Object(fields) => {
            // The map type that the crate requires.
            let seen: HashMap<String, cel::Value> = match &schema.properties {
                Some(properties) => {
                    let known = fields.iter().filter(|(_, field)| !field.is_null());
                    known
                        .filter_map(|(name, field)| {
                            Some((escape(name)?, convert(properties.get(name)?, field)))
                        })
                        .collect()
                }
                None => fields
                    .iter()
                    .filter_map(|(name, field)| {
                        Some((name.clone(), convert(values(schema)?, field)))
                    })
                    .collect(),
            };
            cel::Value::from(seen)
        }
    }
}

/// The name of a property in CEL; `None` if no expression can name it.
fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let writable =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'/');
    if name.is_empty()
        || name.starts_with(|first: char| first.is_ascii_digit())
        || !name.bytes().all(writable)
    {
        return None;
    }
    // Underscores come first: the other escapes contain them.
    Some(
        name.replace("__", "__underscores__")
            .replace('.', "__dot__")
            .replace('-', "__dash__")
            .replace('/', "__slash__"),
    )
}

/// The name of a rule in errors.
fn said(rule: &ValidationRule) -> &str {
    rule.message.as_deref().unwrap_or(&rule.rule).trim()
}

/// The message of a broken rule: its `messageExpression` if that gives one line of text, else its
/// `message`.
fn message(
    rule: &ValidationRule,
    schema: &JSONSchemaProps,
    value: &Value,
    old: Option<&Value>,
) -> String {
    let evaluated = rule.message_expression.as_deref().and_then(|expression| {
        let result = evaluate(&compile(expression).ok()?, rule, schema, value, old).ok()?;
        let cel::Value::String(text) = result else { return None };
        let text = text.trim();
        (!text.is_empty() && !text.contains('\n')).then(|| text.to_owned())
    });
    evaluated.unwrap_or_else(|| match &rule.message {
        Some(message) => message.trim().to_owned(),
        None => format!("failed rule: {}", rule.rule.trim()),
    })
}

/// The error of a broken rule, with the field and the reason that the rule names
/// (`fieldErrorForReason` in apiextensions-apiserver).
fn refusal(rule: &ValidationRule, value: &Value, path: &Path, message: &str) -> FieldError {
    let path = rule
        .field_path
        .as_deref()
        .and_then(|below| path.below(below))
        .unwrap_or_else(|| path.clone());
    let reason = match rule.reason.as_deref() {
        Some("FieldValueForbidden") => format!("Forbidden: {message}"),
        Some("FieldValueRequired") => format!("Required value: {message}"),
        Some("FieldValueDuplicate") => format!("Duplicate value: {}", shown(value)),
        _ => format!("Invalid value: {}: {message}", shown(value)),
    };
    FieldError::new(&path, reason)
}

#[cfg(test)]
mod tests;
