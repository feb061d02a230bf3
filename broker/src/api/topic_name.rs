//! PURE: the valid names of topics, and the names of internal topics (`Topic` in Apache Kafka).

/// The most characters of a name. With a partition's number and a suffix it is still a file name.
pub(super) const LENGTH_MAX: usize = 249;

/// Checks a topic's name.
///
/// # Errors
/// The fault, in Kafka's words. The error code is INVALID_TOPIC_EXCEPTION.
pub(super) fn check(name: &str) -> Result<(), String> {
    let wrong = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if matches!(name, "." | "..") {
        format!("'{name}' is not allowed")
    } else if name.len() > LENGTH_MAX {
        format!(
            "the length of '{}...' is longer than the max allowed length {LENGTH_MAX}",
            name.chars().take(32).collect::<String>()
        )
    } else if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    {
        format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        )
    } else {
        return Ok(());
    };
    Err(format!("Topic name is invalid: {wrong}"))
}

/// Whether the name is that of an internal topic, existing or not.
pub(super) fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["a", "A.b_c-9", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ü", "a\0", "a:b", &"x".repeat(250)] {
            assert!(check(name).is_err(), "{name}");
        }
        assert!(is_internal("__consumer_offsets") && !is_internal("__mine"));
    }
}
