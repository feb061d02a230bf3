//! Tagged fields (KIP-482) and nullable structs, which the generated messages need beyond the
//! primitive types.
//!
//! Readers skip a tagged field that the schema does not know, as every Kafka client and broker
//! must.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::primitive::{
    DecodeError, EncodeError, Version, Wire, need, read_uvarint, write_uvarint,
};

/// The state of reading the tagged fields at the end of a struct.
pub(crate) struct Tags {
    left: u32,
    /// The lowest tag that may come next: tags ascend strictly.
    next: Option<u32>,
}

impl Tags {
    /// Reads the number of fields; a version that is not flexible has none.
    pub(crate) fn read(buf: &mut Bytes, v: Version) -> Result<Self, DecodeError> {
        let left = if v.flexible { read_uvarint(buf)? } else { 0 };
        Ok(Self { left, next: Some(0) })
    }

    /// The next field's tag and value.
    pub(crate) fn next(&mut self, buf: &mut Bytes) -> Result<Option<(u32, Bytes)>, DecodeError> {
        Ok(self.next_length(buf)?.map(|(tag, length)| (tag, buf.split_to(length))))
    }

    /// The next field's tag and the length of its value. The value is complete and comes next in
    /// `buf`.
    fn next_length(&mut self, buf: &mut impl Buf) -> Result<Option<(u32, usize)>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let tag = read_uvarint(buf)?;
        if self.next.is_none_or(|next| tag < next) {
            return Err(DecodeError::Tags);
        }
        self.next = tag.checked_add(1);
        let length = read_uvarint(buf)? as usize;
        need(buf, length)?;
        Ok(Some((tag, length)))
    }
}

/// Skips the tagged fields of a struct for which the schema has none.
pub(crate) fn skip_tags(buf: &mut impl Buf, v: Version) -> Result<(), DecodeError> {
    if v.flexible { skip_all_tags(buf) } else { Ok(()) }
}

/// Skips the tagged fields of a struct in a flexible version.
pub(crate) fn skip_all_tags(buf: &mut impl Buf) -> Result<(), DecodeError> {
    let mut tags = Tags { left: read_uvarint(buf)?, next: Some(0) };
    while let Some((_, length)) = tags.next_length(buf)? {
        buf.advance(length);
    }
    Ok(())
}

/// Refuses a tagged field with bytes after its value.
pub(crate) fn at_end(value: &Bytes) -> Result<(), DecodeError> {
    if value.has_remaining() { Err(DecodeError::Tags) } else { Ok(()) }
}

/// Writes that a struct has no tagged fields.
pub(crate) fn write_no_tags(buf: &mut BytesMut, v: Version) {
    if v.flexible {
        buf.put_u8(0);
    }
}

/// Collects tagged fields in ascending order of their tags, because the wire has their number
/// first.
#[derive(Default)]
pub(crate) struct TagWriter {
    count: u32,
    fields: BytesMut,
}

impl TagWriter {
    pub(crate) fn add(
        &mut self,
        tag: u32,
        value: &impl Wire,
        v: Version,
    ) -> Result<(), EncodeError> {
        self.add_bytes(tag, |bytes| value.write(bytes, v))
    }

    /// A struct that may be null.
    pub(crate) fn add_nullable_struct<T: Wire>(
        &mut self,
        tag: u32,
        value: Option<&T>,
        v: Version,
    ) -> Result<(), EncodeError> {
        self.add_bytes(tag, |bytes| write_nullable_struct(value, bytes, v))
    }

    fn add_bytes(
        &mut self,
        tag: u32,
        write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut bytes = BytesMut::new();
        write(&mut bytes)?;
        self.count += 1;
        write_uvarint(&mut self.fields, tag);
        write_uvarint(
            &mut self.fields,
            u32::try_from(bytes.len()).map_err(|_| EncodeError::TooLong(bytes.len()))?,
        );
        self.fields.put_slice(&bytes);
        Ok(())
    }

    pub(crate) fn finish(self, buf: &mut BytesMut, v: Version) {
        if v.flexible {
            write_uvarint(buf, self.count);
            buf.put_slice(&self.fields);
        }
    }
}

/// Reads a struct that may be null: a byte of `-1` for null, else `1` and the struct.
pub(crate) fn read_nullable_struct<T: Wire>(
    buf: &mut Bytes,
    v: Version,
) -> Result<Option<T>, DecodeError> {
    match i8::read(buf, v)? {
        ..0 => Ok(None),
        _ => T::read(buf, v).map(Some),
    }
}

/// Writes a struct or null.
pub(crate) fn write_nullable_struct<T: Wire>(
    value: Option<&T>,
    buf: &mut BytesMut,
    v: Version,
) -> Result<(), EncodeError> {
    match value {
        None => (-1_i8).write(buf, v),
        Some(value) => {
            1_i8.write(buf, v)?;
            value.write(buf, v)
        }
    }
}

/// Refuses null in a version that does not allow it.
pub(crate) fn non_null<T>(
    value: Option<T>,
    refused: bool,
    field: &'static str,
) -> Result<Option<T>, DecodeError> {
    if refused && value.is_none() { Err(DecodeError::Null(field)) } else { Ok(value) }
}

/// Refuses to write null in a version that does not allow it.
pub(crate) fn refuse_null(refused: bool, field: &'static str) -> Result<(), EncodeError> {
    if refused { Err(EncodeError::Null(field)) } else { Ok(()) }
}

/// Refuses to lose a value that the version does not carry.
pub(crate) fn refuse_unsupported(
    holds_value: bool,
    field: &'static str,
    v: Version,
) -> Result<(), EncodeError> {
    if holds_value { Err(EncodeError::Unsupported { field, version: v.number }) } else { Ok(()) }
}
