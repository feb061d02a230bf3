//! The records inside a batch (magic 2): read from the uncompressed section of a batch, and written
//! into new batches.
//!
//! Called by what has to look into batches: validation, compaction, lookups by time. Reading copies
//! nothing and allocates nothing: a record is a view of the section. No length in it is believed
//! before the bytes are there.

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
    /// Which record, counted from 0.
    pub index: i32,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// A record, as it stands in its batch.
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

    /// Its own timestamp, which a batch with the time of its append overrides. Two that lie too far
    /// apart for a difference come round, as in Java.
    pub fn timestamp(&self, batch: &BatchHeader) -> i64 {
        batch.base_timestamp.wrapping_add(self.timestamp_delta)
    }

    /// Its headers, in order.
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }
}

/// The headers of a record: keys, and values that may be missing. They were walked over once when
/// the record was read, so going through them cannot fail.
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

/// The uncompressed records of a whole batch, of at most `limit` bytes. What lies behind the batch
/// is not looked at: it is other batches.
///
/// # Errors
/// When the codec is unknown, or the bytes are not its own, or give more than `limit`.
pub fn section<'a>(
    header: &BatchHeader,
    batch: &'a [u8],
    limit: usize,
) -> Result<Cow<'a, [u8]>, CompressionError> {
    let codec = header.codec().ok_or(CompressionError::UnknownCodec)?;
    let end = header.size_bytes().min(batch.len());
    compression::decompress(codec, batch.get(HEADER_BYTES..end).unwrap_or_default(), limit)
}

/// Walks over the records of an uncompressed section. Its last item is an error when the section
/// does not hold exactly as many as its batch says.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    index: i32,
    count: i32,
    int_bytes_max: usize,
}

impl<'a> Records<'a> {
    /// The records of `section`, of which there are `count` ([`BatchHeader::records_count`]), as
    /// they lie in a log: it may hold what earlier versions took.
    pub fn new(section: &'a [u8], count: i32) -> Self {
        Self { rest: section, index: 0, count, int_bytes_max: LONG_BYTES_MAX }
    }

    /// As before, but what Java cannot read is an error.
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
                // Nothing that follows can be trusted.
                (self.rest, self.count) = (&[], 0);
                Some(Err(RecordError { index, reason }))
            }
        }
    }
}

/// Reads a record from all of `bytes`, which do not have its length any more.
fn parse(mut bytes: &[u8], int_bytes_max: usize) -> Result<Record<'_>, &'static str> {
    let bytes = &mut bytes;
    // A byte of attributes, none of which has a meaning yet.
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

/// The most bytes of a number of 64 bits ...
const LONG_BYTES_MAX: usize = 10;

/// ... and of one of 32, beyond which Java's `ByteUtils.readVarint` says "Varint is too long".
const INT_BYTES_MAX: usize = 5;

/// A zigzag integer of 64 bits, seven to a byte, lowest first (`ByteUtils.readVarlong`).
fn long(bytes: &mut &[u8]) -> Option<i64> {
    varint(bytes).map(zigzag)
}

/// One of 32 bits in at most `bytes_max` bytes. Of the fifth byte Java drops what is beyond them
/// (`ByteUtils.readVarint`). Of more bytes, which are only in logs that earlier versions wrote,
/// none may be set.
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

/// Bytes behind their length, where -1 stands for none. The outer `None` is for a length that
/// cannot be.
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
