//! What one replica has of a partition, leader or follower: its bytes, and the records that it
//! shows under `read_committed`.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::txn::{Fetched, fetch};
use crate::wire::{Connection, error};

/// Bytes of a batch before its records.
const HEADER: usize = 61;

/// A record as a log holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: Option<String>,
    /// Its value; `None` is a tombstone.
    pub value: Option<String>,
}

/// All that a replica shows of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Where its log begins.
    pub log_start_offset: i64,
    /// Its high watermark.
    pub high_watermark: i64,
    /// Its last stable offset.
    pub last_stable_offset: i64,
    /// The batches as they are, from the one on that holds the log's beginning.
    pub bytes: Vec<u8>,
    /// What a client sees that reads committed records only.
    pub records: Vec<Logged>,
}

/// Reads a partition at this very broker; `None` while it does not serve it, or has it not up to
/// this offset.
///
/// # Errors
/// When the broker does not answer, or a batch is compressed or ends early.
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
    };
    let mut from = last.log_start_offset;
    while from < end {
        let part = fetch(&mut c, topic, partition, from, true)?;
        if part.code != error::NONE {
            return Ok(None);
        }
        let Some(next) = take(&part, &mut replica)? else {
            // What compaction has removed at the end.
            break;
        };
        from = next;
    }
    let start = replica.log_start_offset;
    replica.records.retain(|record| record.offset >= start);
    Ok(Some(replica))
}

/// Takes up the whole batches of an answer, and says where the next one begins.
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
        // Its attributes.
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

/// Zigzag, seven bits a byte.
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
