//! A certificate's subject as Java writes it: `X500Principal.getName`, which follows RFC 2253.

use std::fmt::Write;

use super::der::{BadDer, OID, Reader, SEQUENCE, SET, Value};

/// The attribute types that Java writes by name; by the bytes of their object identifiers.
const KEYWORDS: [(&[u8], &str); 9] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
];

/// UTF8String, PrintableString, T61String, IA5String, GeneralString and BMPString. Java takes the
/// bytes of all of them for UTF-8; what has another type is written in hexadecimal.
const TEXTS: [u8; 6] = [12, 19, 20, 22, 27, 30];

/// The longest name that is written, in bytes of DER.
const NAME_BYTES_MAX: usize = 16 * 1024;

/// Writes a name in DER: the last part first.
///
/// # Errors
/// When it is malformed, or too long.
pub fn rfc2253(name: &[u8]) -> Result<String, BadDer> {
    if name.len() > NAME_BYTES_MAX {
        return Err(BadDer("a name that is too long"));
    }
    let mut sequence = Reader(Reader(name).expect(SEQUENCE)?.content);
    let mut parts = Vec::new();
    while !sequence.is_empty() {
        let mut set = Reader(sequence.expect(SET)?.content);
        let mut attributes = Vec::new();
        while !set.is_empty() {
            let mut attribute = Reader(set.expect(SEQUENCE)?.content);
            attributes.push(written(attribute.expect(OID)?.content, attribute.next()?)?);
        }
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    Ok(parts.join(","))
}

/// `AVA.toRFC2253String`: one attribute.
fn written(kind: &[u8], value: Value<'_>) -> Result<String, BadDer> {
    let keyword = KEYWORDS.iter().find(|(oid, _)| *oid == kind).map(|(_, keyword)| *keyword);
    match keyword {
        Some(keyword) if TEXTS.contains(&value.tag) => {
            Ok(format!("{keyword}={}", escaped(&String::from_utf8_lossy(value.content))))
        }
        Some(keyword) => Ok(format!("{keyword}=#{}", hexadecimal(value.whole))),
        None => Ok(format!("{}=#{}", dotted(kind)?, hexadecimal(value.whole))),
    }
}

fn escaped(text: &str) -> String {
    let is_space = |c: char| c == ' ' || c == '\r';
    let inner = text.trim_start_matches(is_space);
    let lead = text.len() - inner.len();
    let trail = lead + inner.trim_end_matches(is_space).len();
    let mut escaped = String::with_capacity(text.len());
    for (at, letter) in text.char_indices() {
        match letter {
            ',' | '=' | '+' | '<' | '>' | '#' | ';' | '"' | '\\' => escaped.extend(['\\', letter]),
            '\0' => escaped.push_str("\\00"),
            _ if at < lead || at >= trail => escaped.extend(['\\', letter]),
            _ => escaped.push(letter),
        }
    }
    escaped
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An object identifier as numbers with dots.
fn dotted(oid: &[u8]) -> Result<String, BadDer> {
    let mut numbers: Vec<u64> = Vec::new();
    let (mut number, mut is_open) = (0u64, false);
    for byte in oid {
        number = number.checked_mul(128).ok_or(BadDer("an object identifier that is too long"))?
            | u64::from(byte & 0x7f);
        is_open = byte & 0x80 != 0;
        if !is_open {
            numbers.push(std::mem::take(&mut number));
        }
    }
    let (first, rest) = numbers.split_first().ok_or(BadDer("an empty object identifier"))?;
    if is_open {
        return Err(BadDer("an object identifier that is cut off"));
    }
    let (root, second) = ((first / 40).min(2), first - 40 * (first / 40).min(2));
    let rest = rest.iter().map(|number| format!(".{number}"));
    Ok(format!("{root}.{second}") + &rest.collect::<String>())
}
