//! The limits on the size and the depth of an object. They are checked before anything else walks
//! the object.

use std::io::{self, Write};

use serde_json::Value;

use super::error::FieldError;
use super::path::Path;

/// The most bytes of an object as JSON: etcd's default limit of a request, so the most that an API
/// server can store.
const OBJECT_BYTES_MAX: usize = 1_572_864;

/// The most levels of an object. The definitions have fewer than ten, so a deeper field is unknown.
const OBJECT_DEPTH_MAX: usize = 64;

/// Refuses an object that is too large or too deep.
pub(super) fn check(object: &Value) -> Result<(), FieldError> {
    if !is_within(object, OBJECT_DEPTH_MAX) {
        return Err(FieldError::new(
            &Path::root(),
            format!("Too deep: may not have more than {OBJECT_DEPTH_MAX} levels"),
        ));
    }
    let mut remaining = Remaining(OBJECT_BYTES_MAX);
    match serde_json::to_writer(&mut remaining, object) {
        Ok(()) => Ok(()),
        Err(_) => Err(FieldError::new(
            &Path::root(),
            format!("Too long: may not be more than {OBJECT_BYTES_MAX} bytes"),
        )),
    }
}

fn is_within(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return false };
    match value {
        Value::Object(fields) => fields.values().all(|field| is_within(field, below)),
        Value::Array(items) => items.iter().all(|item| is_within(item, below)),
        _ => true,
    }
}

/// A writer that discards its input and fails after this many bytes.
struct Remaining(usize);

impl Write for Remaining {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::WriteZero)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn large_and_deep_objects_are_refused() {
        let deep = |levels: usize| (1..levels).fold(json!(1), |value, _| json!([value]));
        assert_eq!(check(&deep(OBJECT_DEPTH_MAX)), Ok(()));
        assert_eq!(
            check(&deep(OBJECT_DEPTH_MAX + 1)).unwrap_err().to_string(),
            "Too deep: may not have more than 64 levels"
        );
        // The quotes count.
        assert_eq!(check(&json!("x".repeat(OBJECT_BYTES_MAX - 2))), Ok(()));
        assert_eq!(
            check(&json!("x".repeat(OBJECT_BYTES_MAX - 1))).unwrap_err().to_string(),
            "Too long: may not be more than 1572864 bytes"
        );
    }
}
