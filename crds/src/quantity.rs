//! A quantity as Kubernetes writes it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::kubernetes_values;

/// A quantity as Kubernetes writes it: a number, or a number with a unit or an exponent (`500m`,
/// `2Gi`, `1e10`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quantity(pub String);

/// The number of parts of a unit: Kubernetes has no smaller ones.
const PARTS: u128 = 1_000_000_000;

/// The largest quantity, as in Kubernetes; larger ones count as this.
const PARTS_MAX: u128 = i64::MAX as u128 * PARTS;

/// Further decimal digits do not change the result.
const FRACTION_DIGITS_MAX: usize = 18;

impl Serialize for Quantity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            serde_json::Value::Number(number) => Ok(Self(number.to_string())),
            other => Err(serde::de::Error::custom(format!("{other} is no quantity"))),
        }
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        kubernetes_values::amount()
    }
}

impl Quantity {
    /// Its value in bytes (or whole units), if it is zero or more. A fraction is rounded up.
    pub fn value(&self) -> Option<u128> {
        Some(self.parts()?.div_ceil(PARTS))
    }

    /// Its value in billionths of a unit, if it is zero or more. Less than one is rounded up; more
    /// than 2^63 - 1 units count as that many.
    pub fn parts(&self) -> Option<u128> {
        let text = self.0.strip_prefix('+').unwrap_or(&self.0);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(end)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let (binary, decimal) = scale(unit)?;
        let is_zero = number.bytes().all(|digit| matches!(digit, b'0' | b'.'));
        let kept = fraction.get(..fraction.len().min(FRACTION_DIGITS_MAX))?;
        let rest = fraction.get(kept.len()..)?.bytes().any(|digit| digit != b'0');
        let Ok(digits) = format!("0{whole}{kept}").parse::<u128>() else {
            return Some(PARTS_MAX);
        };
        let exponent = decimal + 9 - i32::try_from(kept.len()).ok()?;
        let power = 10_u128.checked_pow(exponent.unsigned_abs());
        let scaled = match (exponent >= 0, power) {
            _ if is_zero => return Some(0),
            (true, power) => power.and_then(|power| digits.checked_mul(binary)?.checked_mul(power)),
            (false, Some(power)) => digits.checked_mul(binary).map(|digits| digits.div_ceil(power)),
            (false, None) => Some(1),
        };
        let scaled = scaled.and_then(|scaled| scaled.checked_add(u128::from(rest && exponent < 0)));
        Some(scaled.map_or(PARTS_MAX, |scaled| scaled.min(PARTS_MAX)))
    }

    /// Whether it is a whole number of units.
    pub fn is_whole(&self) -> bool {
        self.parts().is_some_and(|parts| parts.is_multiple_of(PARTS))
    }
}

/// The factor of a suffix: a power of 1024, and the exponent of a power of ten.
fn scale(unit: &str) -> Option<(u128, i32)> {
    let decimal = |exponent| Some((1, exponent));
    let binary = |power| Some((1024_u128.pow(power), 0));
    match unit {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => decimal(
            unit.strip_prefix(['e', 'E'])?
                .parse()
                .ok()
                .filter(|exponent: &i32| exponent.abs() < 1_000)?,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes_values::QUANTITY;

    #[test]
    fn quantities_are_worth_what_kubernetes_says() {
        let rows = [
            ("0", Some(0)),
            ("500m", Some(1)),
            ("1500m", Some(2)),
            ("1", Some(1)),
            ("+7", Some(7)),
            (".5k", Some(500)),
            ("5.", Some(5)),
            ("1n", Some(1)),
            ("0n", Some(0)),
            ("1000000u", Some(1)),
            ("1e10", Some(10_000_000_000)),
            ("1E10", Some(10_000_000_000)),
            ("12e-1", Some(2)),
            ("1e-30", Some(1)),
            ("0e999", Some(0)),
            ("1e999", Some(i64::MAX as u128)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("1.5Gi", Some(1_610_612_736)),
            ("8Ei", Some(i64::MAX as u128)),
            ("1.0000000000000000000001", Some(2)),
            ("99999999999999999999999999999999999999999999", Some(i64::MAX as u128)),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("-1", None),
            ("1 Gi", None),
            ("1gi", None),
            ("mem", None),
        ];
        let pattern = regex::Regex::new(QUANTITY).unwrap();
        for (text, value) in rows {
            assert_eq!(Quantity(text.to_owned()).value(), value, "{text}");
            assert_eq!(pattern.is_match(text), value.is_some(), "{text}");
        }
        for (text, whole) in
            [("1.5Gi", true), ("1500m", false), ("3000m", true), ("2", true), ("0.1", false)]
        {
            assert_eq!(Quantity(text.to_owned()).is_whole(), whole, "{text}");
        }
    }
}
