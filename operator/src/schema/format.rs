//! The OpenAPI formats that the API server checks. As there, an unknown format is only a remark for
//! the reader (`int16`, `uint32` of Rust types).

use std::net::{Ipv4Addr, Ipv6Addr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::{Number, Value};
use uuid::Uuid;

/// Whether a string has the format; `true` for an unknown format.
pub(super) fn is_text_of(format: &str, text: &str) -> bool {
    match format {
        "date-time" => Time::deserialize(Value::from(text)).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "uuid" => Uuid::parse_str(text).is_ok(),
        _ => true,
    }
}

/// Whether a number fits the format; `true` for an unknown format.
pub(super) fn is_number_of(format: &str, number: &Number) -> bool {
    match format {
        "int32" => number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        "int64" => number.as_i64().is_some(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let rows = [
            ("date-time", "2024-05-01T10:00:00Z", true),
            ("date-time", "2024-05-01T10:00:00.5+02:00", true),
            ("date-time", "2024-05-01", false),
            ("date-time", "yesterday", false),
            ("ipv4", "127.0.0.1", true),
            ("ipv4", "::1", false),
            ("ipv6", "::1", true),
            ("uuid", "8c2e3f1a-0a39-4b0e-9d5c-0a7d4f9b8a11", true),
            ("uuid", "8c2e", false),
            ("password", "anything", true),
        ];
        for (format, text, expected) in rows {
            assert_eq!(is_text_of(format, text), expected, "{format} {text}");
        }
    }

    #[test]
    fn numbers() {
        let rows = [
            ("int32", i64::from(i32::MAX), true),
            ("int32", i64::from(i32::MAX) + 1, false),
            ("int32", i64::from(i32::MIN) - 1, false),
            ("int64", i64::MAX, true),
            ("int16", 70_000, true),
        ];
        for (format, number, expected) in rows {
            assert_eq!(is_number_of(format, &Number::from(number)), expected, "{format} {number}");
        }
        assert!(!is_number_of("int64", &Number::from(u64::MAX)));
    }
}
