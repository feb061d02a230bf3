//! The primitive types of the Kafka protocol (KIP-482 for the flexible forms), read from and
//! written to buffers.
//!
//! The generated messages and the codecs of hot paths call it. Reading never trusts a length: it
//! compares the claim of a length field with the remaining bytes before it allocates. A byte string
//! is a slice of its frame.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

pub use error::{DecodeError, EncodeError};

mod error;

/// The longest string that the protocol allows, in bytes, in flexible versions too (Kafka's
/// generated code refuses more).
pub const MAX_STRING_LENGTH: usize = i16::MAX as usize;

/// A version of a message, and whether its encoding is flexible (compact lengths, tagged fields).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version {
    pub(crate) number: i16,
    pub(crate) flexible: bool,
}

impl Version {
    /// The same version for the one field that never became flexible, `RequestHeader.ClientId`.
    pub(crate) fn inflexible(self) -> Self {
        Self { flexible: false, ..self }
    }
}

/// A value that can occur in a message: a primitive, an array, or a struct of the schema.
pub(crate) trait Wire: Sized {
    /// The fewest bytes of a value in any version. It is at least one, so that the received bytes
    /// bound the number of elements of an array.
    const MIN_SIZE: usize;

    fn read(buf: &mut Bytes, v: Version) -> Result<Self, DecodeError>;

    fn write(&self, buf: &mut BytesMut, v: Version) -> Result<(), EncodeError>;
}

/// Fails if fewer than `needed` bytes are left.
pub(crate) fn need(buf: &impl Buf, needed: usize) -> Result<(), DecodeError> {
    let remaining = buf.remaining();
    if remaining < needed { Err(DecodeError::Truncated { needed, remaining }) } else { Ok(()) }
}

macro_rules! number {
    ($type:ty, $size:literal, $get:ident, $put:ident) => {
        impl Wire for $type {
            const MIN_SIZE: usize = $size;

            fn read(buf: &mut Bytes, _: Version) -> Result<Self, DecodeError> {
                need(buf, $size)?;
                Ok(buf.$get())
            }

            fn write(&self, buf: &mut BytesMut, _: Version) -> Result<(), EncodeError> {
                buf.$put(*self);
                Ok(())
            }
        }
    };
}

number!(i8, 1, get_i8, put_i8);
number!(i16, 2, get_i16, put_i16);
number!(i32, 4, get_i32, put_i32);
number!(i64, 8, get_i64, put_i64);
number!(u16, 2, get_u16, put_u16);
number!(u32, 4, get_u32, put_u32);
number!(f64, 8, get_f64, put_f64);

impl Wire for bool {
    const MIN_SIZE: usize = 1;

    fn read(buf: &mut Bytes, v: Version) -> Result<Self, DecodeError> {
        Ok(i8::read(buf, v)? != 0)
    }

    fn write(&self, buf: &mut BytesMut, v: Version) -> Result<(), EncodeError> {
        i8::from(*self).write(buf, v)
    }
}

impl Wire for Uuid {
    const MIN_SIZE: usize = 16;

    fn read(buf: &mut Bytes, _: Version) -> Result<Self, DecodeError> {
        need(buf, 16)?;
        Ok(Self::from_u128(buf.get_u128()))
    }

    fn write(&self, buf: &mut BytesMut, _: Version) -> Result<(), EncodeError> {
        buf.put_u128(self.as_u128());
        Ok(())
    }
}

/// Reads an unsigned variable-length integer (KIP-482): seven bits a byte, lowest first, at most
/// five bytes.
pub(crate) fn read_uvarint(buf: &mut impl Buf) -> Result<u32, DecodeError> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        need(buf, 1)?;
        let byte = buf.get_u8();
        let bits = u32::from(byte & 0x7f);
        // The fifth byte holds the last four bits.
        if shift == 28 && byte > 0x0f {
            return Err(DecodeError::Varint);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::Varint)
}

/// Writes an unsigned variable-length integer.
pub(crate) fn write_uvarint(buf: &mut impl BufMut, mut value: u32) {
    while value > 0x7f {
        buf.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

/// Reads a length field; `None` is null. The classic form is an integer with `-1` for null. The
/// flexible form is the length plus one, with `0` for null.
pub(crate) fn read_length<B: Buf>(
    buf: &mut B,
    flexible: bool,
    classic: impl FnOnce(&mut B) -> Result<i64, DecodeError>,
) -> Result<Option<usize>, DecodeError> {
    let length = if flexible { i64::from(read_uvarint(buf)?) - 1 } else { classic(buf)? };
    match length {
        -1 => Ok(None),
        0..=0x7fff_ffff => Ok(Some(length as usize)),
        other => Err(DecodeError::Length(other)),
    }
}

/// The classic length of a string: 16 bits.
pub(crate) fn short_length(buf: &mut impl Buf) -> Result<i64, DecodeError> {
    need(buf, 2)?;
    Ok(i64::from(buf.get_i16()))
}

/// The classic length of bytes, records and arrays: 32 bits.
pub(crate) fn long_length(buf: &mut impl Buf) -> Result<i64, DecodeError> {
    need(buf, 4)?;
    Ok(i64::from(buf.get_i32()))
}

/// Writes the length of bytes, records or an array; `None` is null.
pub(crate) fn write_long_length(
    buf: &mut impl BufMut,
    length: Option<usize>,
    flexible: bool,
) -> Result<(), EncodeError> {
    let classic = match length {
        None => -1,
        Some(length) => i32::try_from(length).map_err(|_| EncodeError::TooLong(length))?,
    };
    if flexible {
        write_uvarint(buf, classic.wrapping_add(1) as u32);
    } else {
        buf.put_i32(classic);
    }
    Ok(())
}

/// Writes a string or null.
pub(crate) fn write_str(
    buf: &mut impl BufMut,
    text: Option<&str>,
    flexible: bool,
) -> Result<(), EncodeError> {
    let length = text.map_or(0, str::len);
    if length > MAX_STRING_LENGTH {
        return Err(EncodeError::TooLong(length));
    }
    match (text, flexible) {
        (None, true) => write_uvarint(buf, 0),
        (None, false) => buf.put_i16(-1),
        (Some(_), true) => write_uvarint(buf, length as u32 + 1),
        (Some(_), false) => buf.put_i16(length as i16),
    }
    buf.put_slice(text.unwrap_or_default().as_bytes());
    Ok(())
}

/// The longest error message that is sent, in bytes.
const ERROR_MESSAGE_BYTES_MAX: usize = 1024;

/// An error message, cut to the maximum: the parts that it repeats of a request can have any
/// length.
pub(crate) fn shortened(message: &str) -> &str {
    message.get(..message.floor_char_boundary(ERROR_MESSAGE_BYTES_MAX)).unwrap_or(message)
}

/// Reads a string or null.
pub(crate) fn read_string(
    buf: &mut impl Buf,
    flexible: bool,
) -> Result<Option<String>, DecodeError> {
    let Some(length) = read_length(buf, flexible, short_length)? else {
        return Ok(None);
    };
    if length > MAX_STRING_LENGTH {
        return Err(DecodeError::Length(length as i64));
    }
    need(buf, length)?;
    // A `Bytes` or `BytesMut` is one chunk.
    let bytes = buf.chunk().get(..length).unwrap_or_default();
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)?.to_owned();
    buf.advance(length);
    Ok(Some(text))
}

impl Wire for Option<String> {
    const MIN_SIZE: usize = 1;

    fn read(buf: &mut Bytes, v: Version) -> Result<Self, DecodeError> {
        read_string(buf, v.flexible)
    }

    fn write(&self, buf: &mut BytesMut, v: Version) -> Result<(), EncodeError> {
        write_str(buf, self.as_deref(), v.flexible)
    }
}

impl Wire for Option<Bytes> {
    const MIN_SIZE: usize = 1;

    fn read(buf: &mut Bytes, v: Version) -> Result<Self, DecodeError> {
        let Some(length) = read_length(buf, v.flexible, long_length)? else {
            return Ok(None);
        };
        need(buf, length)?;
        Ok(Some(buf.split_to(length)))
    }

    fn write(&self, buf: &mut BytesMut, v: Version) -> Result<(), EncodeError> {
        write_long_length(buf, self.as_ref().map(Bytes::len), v.flexible)?;
        buf.put_slice(self.as_deref().unwrap_or_default());
        Ok(())
    }
}

impl<T: Wire> Wire for Option<Vec<T>> {
    const MIN_SIZE: usize = 1;

    fn read(buf: &mut Bytes, v: Version) -> Result<Self, DecodeError> {
        let Some(length) = read_length(buf, v.flexible, long_length)? else {
            return Ok(None);
        };
        // Refuse a count that the received bytes cannot hold before allocating for it.
        need(buf, length.saturating_mul(T::MIN_SIZE))?;
        let mut elements = Vec::with_capacity(length);
        for _ in 0..length {
            elements.push(T::read(buf, v)?);
        }
        Ok(Some(elements))
    }

    fn write(&self, buf: &mut BytesMut, v: Version) -> Result<(), EncodeError> {
        write_array(buf, self.as_deref(), v)
    }
}

/// Writes an array or null.
pub(crate) fn write_array<T: Wire>(
    buf: &mut BytesMut,
    elements: Option<&[T]>,
    v: Version,
) -> Result<(), EncodeError> {
    write_long_length(buf, elements.map(<[T]>::len), v.flexible)?;
    elements.unwrap_or_default().iter().try_for_each(|element| element.write(buf, v))
}

/// Types without a null value: they are read like the nullable ones, and null is refused.
macro_rules! never_null {
    ($type:ty, [$($generics:tt)*], |$value:ident, $buf:ident, $v:ident| $write:expr) => {
        impl<$($generics)*> Wire for $type {
            const MIN_SIZE: usize = 1;

            fn read(buf: &mut Bytes, v: Version) -> Result<Self, DecodeError> {
                Option::<$type>::read(buf, v)?.ok_or(DecodeError::Length(-1))
            }

            fn write(&self, $buf: &mut BytesMut, $v: Version) -> Result<(), EncodeError> {
                let $value = self;
                $write
            }
        }
    };
}

never_null!(String, [], |text, buf, v| write_str(buf, Some(text), v.flexible));
never_null!(Bytes, [], |bytes, buf, v| {
    write_long_length(buf, Some(bytes.len()), v.flexible)?;
    buf.put_slice(bytes);
    Ok(())
});
never_null!(Vec<T>, [T: Wire], |elements, buf, v| write_array(buf, Some(elements), v));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_length_integers() {
        let table: [(&[u8], u32); 6] = [
            (b"\0", 0),
            (b"\x7f", 127),
            (b"\x80\x01", 128),
            (b"\xff\x7f", 16383),
            (b"\x80\x80\x01", 16384),
            (b"\xff\xff\xff\xff\x0f", u32::MAX),
        ];
        for (bytes, value) in table {
            let mut written = Vec::new();
            write_uvarint(&mut written, value);
            assert_eq!(written, bytes);
            assert_eq!(read_uvarint(&mut &bytes[..]), Ok(value));
            assert!(matches!(
                read_uvarint(&mut &bytes[..bytes.len() - 1]),
                Err(DecodeError::Truncated { .. })
            ));
        }
        assert_eq!(read_uvarint(&mut &b"\x80\x80\x80\x80\x10"[..]), Err(DecodeError::Varint));
    }

    #[test]
    fn an_array_is_refused_when_its_smallest_form_does_not_fit() {
        let v = Version { number: 0, flexible: true };
        for (bytes, expected) in [
            (&b"\x03\0\0\0\x01\0\0\0\x02"[..], Ok(vec![1, 2])),
            (b"\x03\0\0\0\x01\0\0\0", Err(DecodeError::Truncated { needed: 8, remaining: 7 })),
            (b"\xff\xff\xff\xff\x0f", Err(DecodeError::Length(0xffff_fffe))),
            (b"\0", Err(DecodeError::Length(-1))),
        ] {
            assert_eq!(Vec::<i32>::read(&mut Bytes::from_static(bytes), v), expected);
        }
    }
}
