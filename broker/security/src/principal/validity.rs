//! When a certificate is valid: its two times in DER.

use super::der::{BadDer, Reader, Value};

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// From when and until when a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: i64,
    /// The last second.
    pub not_after: i64,
}

impl Validity {
    /// Whether it contains this second.
    pub fn contains(&self, seconds: i64) -> bool {
        (self.not_before..=self.not_after).contains(&seconds)
    }

    pub(super) fn parse(content: &[u8]) -> Result<Self, BadDer> {
        let mut times = Reader(content);
        Ok(Self { not_before: seconds(times.next()?)?, not_after: seconds(times.next()?)? })
    }
}

/// RFC 5280 has two forms: `YYMMDDHHMMSSZ`, from 1950 to 2049, and `YYYYMMDDHHMMSSZ`.
fn seconds(time: Value<'_>) -> Result<i64, BadDer> {
    const BAD: BadDer = BadDer("a time of another form");
    let digits = time.content.strip_suffix(b"Z").ok_or(BAD)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |sum, b| sum * 10 + i64::from(b - b'0'));
    let (year, rest) = match (time.tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(&digits[..2]);
            (year + if year < 50 { 2000 } else { 1900 }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return Err(BAD),
    };
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| number(&rest[at..at + 2]));
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return Err(BAD);
    }
    Ok(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// The days from 1970-01-01 to a date. Years begin in March here, so that a leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(tag: u8, text: &str) -> Option<i64> {
        seconds(Value { tag, content: text.as_bytes(), whole: &[] }).ok()
    }

    #[test]
    fn both_forms_of_a_time_are_read() {
        let cases = [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "240229120000Z", Some(1_709_208_000)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (GENERALIZED_TIME, "00000101000000Z", Some(-62_167_219_200)),
            (UTC_TIME, "20500101000000Z", None),
            (GENERALIZED_TIME, "500101000000Z", None),
            (UTC_TIME, "701301000000Z", None),
            (UTC_TIME, "700100000000Z", None),
            (UTC_TIME, "700101240000Z", None),
            (UTC_TIME, "700101000000", None),
            (UTC_TIME, "7001010000+1Z", None),
            (UTC_TIME, "", None),
            (0x0c, "700101000000Z", None),
        ];
        for (tag, text, expected) in cases {
            assert_eq!(parsed(tag, text), expected, "{tag:#x} {text}");
        }
    }

    #[test]
    fn a_validity_contains_its_two_ends() {
        let validity = Validity { not_before: 10, not_after: 20 };
        let inside = [9, 10, 15, 20, 21].map(|second| validity.contains(second));
        assert_eq!(inside, [false, true, true, true, false]);
    }
}
