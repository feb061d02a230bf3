//! The records inside a batch (magic 2): reading them from the uncompressed section of a batch, and
//! writing them into new batches.
//!
//! Validation, compaction and lookups by time call it. Reading copies and allocates nothing: a
//! record is a view of the section. No length is trusted before its bytes are there.

use std::borrow::Cow;

use thiserror::Error;

use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::compression::{self, CompressionError};

mod builder;
mod walk;

pub use builder::BatchBuilder;
pub use walk::{Seen, WalkError, walk};

/// What is wrong with the records of a batch.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("record {index} of the batch is invalid: {reason}")]
pub struct RecordError {
    /// The index of the record, from 0.
    pub index: i32,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// A record, as a view of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset minus the batch's base offset.
    pub offset_delta: i32,
    /// Its timestamp minus the batch's base timestamp, in milliseconds.
    pub timestamp_delta: i64,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; a record without one is a tombstone.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// Its offset.
    pub fn offset(&self, batch: &BatchHeader) -> i64 {
        batch.base_offset.saturating_add(i64::from(self.offset_delta))
    }

    /// Its own timestamp. In a batch with the time of its append, that time replaces it. The sum
    /// wraps around when the two lie too far apart, as in Java.
    pub fn timestamp(&self, batch: &BatchHeader) -> i64 {
        batch.base_timestamp.wrapping_add(self.timestamp_delta)
    }

    /// Its headers, in order.
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }
}

/// The headers of a record: keys, and values that may be missing. Reading the record validated
/// them, so this iterator cannot fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    count: i32,
    bytes: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.count <= 0 {
            return None;
        }
        self.count -= 1;
        let key = nullable(&mut self.bytes, LONG_BYTES_MAX)??;
        let value = nullable(&mut self.bytes, LONG_BYTES_MAX)?;
        Some((key, value))
    }
}

/// The uncompressed records of a whole batch, at most `limit` bytes. Bytes after the batch belong
/// to other batches and are ignored.
///
/// # Errors
/// When the codec is unknown, the bytes are not valid for it, or the output exceeds `limit`.
pub fn section<'a>(
    header: &BatchHeader,
    batch: &'a [u8],
    limit: usize,
) -> Result<Cow<'a, [u8]>, CompressionError> {
    let codec = header.codec().ok_or(CompressionError::UnknownCodec)?;
    let end = header.size_bytes().min(batch.len());
    compression::decompress(codec, batch.get(HEADER_BYTES..end).unwrap_or_default(), limit)
}

/// An iterator over the records of an uncompressed section. Its last item is an error if the
/// section does not hold exactly as many records as the batch's header says.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    index: i32,
    count: i32,
    int_bytes_max: usize,
}

impl<'a> Records<'a> {
    /// The `count` records of `section` ([`BatchHeader::records_count`]) as they lie in a log. A
    /// log may hold records that earlier versions accepted.
    pub fn new(section: &'a [u8], count: i32) -> Self {
        Self { rest: section, index: 0, count, int_bytes_max: LONG_BYTES_MAX }
    }

    /// The same iterator, but a record that Java cannot read is an error.
    #[must_use]
    fn for_java(self) -> Self {
        Self { int_bytes_max: INT_BYTES_MAX, ..self }
    }

    fn record(&mut self) -> Result<Record<'a>, &'static str> {
        let length =
            int(&mut self.rest, self.int_bytes_max).ok_or("its length is cut off or too long")?;
        let length = usize::try_from(length).map_err(|_| "its length is negative")?;
        let (body, rest) =
            self.rest.split_at_checked(length).ok_or("it is longer than the batch")?;
        self.rest = rest;
        parse(body, self.int_bytes_max)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = if self.index < self.count {
            self.record()
        } else if self.rest.is_empty() {
            return None;
        } else {
            Err("there are bytes behind the last record")
        };
        let index = self.index;
        match result {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(reason) => {
                // After an error the rest cannot be trusted.
                (self.rest, self.count) = (&[], 0);
                Some(Err(RecordError { index, reason }))
            }
        }
    }
}

/// Parses a record from all of `bytes`, which begin after its length.
fn parse(mut bytes: &[u8], int_bytes_max: usize) -> Result<Record<'_>, &'static str> {
    let bytes = &mut bytes;
    // The first byte holds attributes, none of which has a meaning yet.
    bytes.split_off_first().ok_or("it is empty")?;
    let timestamp_delta = long(bytes).ok_or("its timestamp is cut off")?;
    let offset_delta = int(bytes, int_bytes_max).ok_or("its offset is not one")?;
    let key = nullable(bytes, int_bytes_max).ok_or("its key does not fit")?;
    let value = nullable(bytes, int_bytes_max).ok_or("its value does not fit")?;
    let count = int(bytes, int_bytes_max)
        .filter(|count| *count >= 0)
        .ok_or("its header count is not one")?;
    let headers = Headers { count, bytes };
    for _ in 0..count {
        nullable(bytes, int_bytes_max)
            .flatten()
            .ok_or("the key of a header is missing or does not fit")?;
        nullable(bytes, int_bytes_max).ok_or("the value of a header does not fit")?;
    }
    if !bytes.is_empty() {
        return Err("it is longer than its parts");
    }
    Ok(Record { offset_delta, timestamp_delta, key, value, headers })
}

/// The most bytes of a 64-bit number ...
const LONG_BYTES_MAX: usize = 10;

/// ... and of a 32-bit one, beyond which Java's `ByteUtils.readVarint` fails with "Varint is too
/// long".
const INT_BYTES_MAX: usize = 5;

/// A zigzag integer of 64 bits, seven bits a byte, lowest first (`ByteUtils.readVarlong`).
fn long(bytes: &mut &[u8]) -> Option<i64> {
    varint(bytes).map(zigzag)
}

/// A zigzag integer of 32 bits in at most `bytes_max` bytes. Java ignores the bits of the fifth
/// byte beyond the 32 (`ByteUtils.readVarint`). Longer forms exist only in logs that earlier
/// versions wrote; their value must fit into 32 bits.
fn int(bytes: &mut &[u8], bytes_max: usize) -> Option<i32> {
    let before = bytes.len();
    let value = varint(bytes)?;
    match before - bytes.len() {
        ..=INT_BYTES_MAX => i32::try_from(zigzag(value & u64::from(u32::MAX))).ok(),
        length if length <= bytes_max => i32::try_from(zigzag(value)).ok(),
        _ => None,
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Bytes after their length, where -1 means none. The outer `None` means an invalid length.
#[allow(clippy::option_option, reason = "an invalid string and a missing one are two things")]
fn nullable<'a>(bytes: &mut &'a [u8], int_bytes_max: usize) -> Option<Option<&'a [u8]>> {
    let length = int(bytes, int_bytes_max)?;
    if length == -1 {
        return Some(None);
    }
    let (content, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(Some(content))
}

#[cfg(test)]
mod tests;
