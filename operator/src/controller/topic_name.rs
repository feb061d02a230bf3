//! Topic names: which are valid, and how error messages show them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::error::ErrorCode;

use super::error::ApiError;

/// Kafka's longest topic name (`Topic.MAX_NAME_LENGTH`). With a partition's number appended it is
/// still a valid directory name.
const TOPIC_NAME_LENGTH_MAX: usize = 249;

/// Checks a topic's name (`Topic.validate` in Apache Kafka).
pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    let invalid = |reason: String| {
        Err(ApiError::new(
            ErrorCode::InvalidTopicException,
            format!("Topic name is invalid: {reason}"),
        ))
    };
    if name.is_empty() {
        return invalid("the empty string is not allowed".to_owned());
    }
    if name == "." || name == ".." {
        return invalid(format!("'{name}' is not allowed"));
    }
    if name.len() > TOPIC_NAME_LENGTH_MAX {
        return invalid(format!(
            "the length of '{name}' is longer than the max allowed length {TOPIC_NAME_LENGTH_MAX}"
        ));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    {
        return invalid(format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ));
    }
    if name == "__cluster_metadata" {
        return invalid("the name of Apache Kafka's metadata log is reserved".to_owned());
    }
    Ok(())
}

/// A topic's name for an error message. The name of an existing topic is never cut. The limit is
/// needed because the message repeats for each partition, and a name on the wire may take 32 KB.
pub(super) fn shown(name: &str) -> &str {
    name.get(..name.floor_char_boundary(TOPIC_NAME_LENGTH_MAX)).unwrap_or_default()
}
