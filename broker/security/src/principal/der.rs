//! The few structures of DER that a certificate's names need.

/// Bytes that are not the DER that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed certificate: {0}")]
pub struct BadDer(pub(super) &'static str);

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// A value with its tag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    /// Tag, length and content.
    pub(super) whole: &'a [u8],
}

/// Reads one value after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn next(&mut self) -> Result<Value<'a>, BadDer> {
        let bytes = self.0;
        let (&tag, rest) = bytes.split_first().ok_or(BadDer("a value is missing"))?;
        if tag & 0x1f == 0x1f {
            return Err(BadDer("a tag of several bytes"));
        }
        let (&first, rest) = rest.split_first().ok_or(BadDer("a length is missing"))?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (length, rest) = rest
                    .split_at_checked(usize::from(first & 0x7f))
                    .ok_or(BadDer("a length is missing"))?;
                (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return Err(BadDer("a length that DER does not have")),
        };
        let (content, after) =
            rest.split_at_checked(length).ok_or(BadDer("a value that is cut off"))?;
        self.0 = after;
        Ok(Value { tag, content, whole: &bytes[..bytes.len() - after.len()] })
    }

    /// The next value, which has to have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<Value<'a>, BadDer> {
        let value = self.next()?;
        if value.tag == tag { Ok(value) } else { Err(BadDer("a value of another type")) }
    }

    /// The next value, if it has this tag.
    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<Value<'a>>, BadDer> {
        match self.0.first() {
            Some(next) if *next == tag => self.next().map(Some),
            _ => Ok(None),
        }
    }
}
