//! One replica's copy of a partition, leader or follower: its bytes, and its records under
//! `read_committed`.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::txn::{Fetched, fetch};
use crate::wire::{Connection, error};

/// The bytes of a batch header.
const HEADER: usize = 61;

/// A record in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: Option<String>,
    /// Its value; `None` is a tombstone.
    pub value: Option<String>,
}

/// A replica's copy of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its log start offset.
    pub log_start_offset: i64,
    /// Its high watermark.
    pub high_watermark: i64,
    /// Its last stable offset.
    pub last_stable_offset: i64,
    /// The batches as bytes, from the one that contains the log start offset.
    pub bytes: Vec<u8>,
    /// The records that `read_committed` shows.
    pub records: Vec<Logged>,
    /// The answers that they are from, for messages: the first offset, the last stable offset, and
    /// the aborted transactions by producer and first offset.
    pub answers: Vec<(i64, i64, Vec<(i64, i64)>)>,
}

/// Reads a partition from this broker; `None` while the broker does not serve it, or does not have
/// it up to this offset.
///
/// It reads on to the last stable offset of its last answer. Compaction may remove a record during
/// the reading because of a later one, which therefore belongs to the reading.
///
/// # Errors
/// When the broker does not answer, or a batch is compressed or truncated.
pub fn read(address: &str, topic: &str, partition: i32, end: i64) -> Result<Option<Replica>> {
    let mut c = Connection::open(address)?;
    let last = fetch(&mut c, topic, partition, end, true)?;
    if last.code != error::NONE {
        return Ok(None);
    }
    let mut replica = Replica {
        log_start_offset: last.log_start_offset,
        high_watermark: last.high_watermark,
        last_stable_offset: last.last_stable_offset,
        bytes: Vec::new(),
        records: Vec::new(),
        answers: Vec::new(),
    };
    let mut from = last.log_start_offset;
    loop {
        let part = fetch(&mut c, topic, partition, from, true)?;
        if part.code != error::NONE {
            return Ok(None);
        }
        replica.answers.push((from, part.last_stable_offset, part.aborted.clone()));
        let Some(next) = take(&part, &mut replica)? else {
            // Compaction has removed the rest, if the broker still has it up to `end`: the last
            // stable offset of a follower goes back when it cuts what its leader does not have.
            if part.last_stable_offset < end {
                return Ok(None);
            }
            break;
        };
        from = next;
        if from >= end.max(part.last_stable_offset) {
            break;
        }
    }
    let start = replica.log_start_offset;
    replica.records.retain(|record| record.offset >= start);
    Ok(Some(replica))
}

/// Adds the complete batches of an answer, and returns the offset of the next one.
fn take(part: &Fetched, to: &mut Replica) -> Result<Option<i64>> {
    let mut aborted = part.aborted.clone();
    aborted.sort_by_key(|(_, first)| *first);
    let mut aborted = aborted.into_iter().peekable();
    let mut aborting = BTreeSet::new();
    let mut rest = part.records.as_slice();
    let mut next = None;
    while let Some(header) = rest.get(..HEADER) {
        let size = 12 + usize::try_from(i32::from_be_bytes(header[8..12].try_into()?))?;
        let Some(batch) = rest.get(..size) else {
            break;
        };
        let base = i64::from_be_bytes(batch[..8].try_into()?);
        let end = base + i64::from(i32::from_be_bytes(batch[23..27].try_into()?)) + 1;
        let producer = i64::from_be_bytes(batch[43..51].try_into()?);
        let attributes = batch[22];
        while let Some((producer, _)) = aborted.next_if(|(_, first)| *first < end) {
            aborting.insert(producer);
        }
        let is_control = attributes & 0x20 != 0;
        if is_control {
            aborting.remove(&producer);
        } else if attributes & 0x10 == 0 || !aborting.contains(&producer) {
            ensure!(attributes & 7 == 0, "a compressed batch at {base}");
            let count = i32::from_be_bytes(batch[57..61].try_into()?);
            to.records.extend(records(&batch[HEADER..], base, count)?);
        }
        to.bytes.extend(batch);
        next = Some(end);
        rest = &rest[size..];
    }
    Ok(next)
}

fn records(mut bytes: &[u8], base: i64, count: i32) -> Result<Vec<Logged>> {
    let mut found = Vec::new();
    for _ in 0..count {
        let size = usize::try_from(varint(&mut bytes)?)?;
        let (mut record, rest) = bytes.split_at_checked(size).context("a record ends early")?;
        bytes = rest;
        // Skip the attributes.
        record = record.get(1..).context("a record is empty")?;
        varint(&mut record)?;
        let offset = base + varint(&mut record)?;
        let (key, value) = (text(&mut record)?, text(&mut record)?);
        found.push(Logged { offset, key, value });
    }
    Ok(found)
}

fn text(bytes: &mut &[u8]) -> Result<Option<String>> {
    let Ok(size) = usize::try_from(varint(bytes)?) else {
        return Ok(None);
    };
    let (text, rest) = bytes.split_at_checked(size).context("a field ends early")?;
    *bytes = rest;
    Ok(Some(String::from_utf8_lossy(text).into_owned()))
}

/// Decodes a zigzag integer, seven bits a byte.
fn varint(bytes: &mut &[u8]) -> Result<i64> {
    let mut number = 0_u64;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first().context("a number ends early")?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift.min(63);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}
