//! A field and the reason of its refusal, in the API server's words.

use std::fmt;

use serde_json::Value;

use super::path::Path;

/// A field and the reason of its refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field, for instance `spec.config["retention.ms"]` or `spec.listeners[1].port`. Empty for
    /// the object as a whole.
    pub path: String,
    /// The reason, in the API server's words (`field.Error` in apimachinery): `Invalid value: 0:
    /// should be greater than or equal to 1`.
    pub reason: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.reason),
            path => write!(f, "{path}: {}", self.reason),
        }
    }
}

/// The most characters of a value that a [`FieldError`] repeats.
const SHOWN_CHARS_MAX: usize = 200;

impl FieldError {
    pub(super) fn new(path: &Path, reason: impl Into<String>) -> Self {
        Self { path: path.to_string(), reason: reason.into() }
    }

    pub(super) fn required(path: &Path) -> Self {
        Self::new(path, "Required value")
    }

    pub(super) fn invalid(path: &Path, value: &Value, detail: impl fmt::Display) -> Self {
        Self::new(path, format!("Invalid value: {}: {detail}", shown(value)))
    }

    pub(super) fn duplicate(path: &Path, value: &Value) -> Self {
        Self::new(path, format!("Duplicate value: {}", shown(value)))
    }
}

/// A value as an error repeats it: a scalar as JSON, truncated if it is long; of an object or array
/// only the type, as in the API server.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "\"object\"".to_owned(),
        Value::Array(_) => "\"array\"".to_owned(),
        scalar => {
            let text = scalar.to_string();
            match text.char_indices().nth(SHOWN_CHARS_MAX) {
                Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
                None => text,
            }
        }
    }
}

/// The type as errors name it.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
