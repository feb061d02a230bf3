//! Snapshots of a partition's producers. A snapshot holds the state at the offset in its file name.
//!
//! It has a version, a CRC-32C of the bytes after it, and an entry for each producer. An entry
//! holds the producer's last batch only. That is version 1, the format of Kafka's `.snapshot`
//! files. Version 2 adds the transactions that ended before this offset, and whose markers were not
//! committed. Without them, what they hold would count as decided after a restart; Kafka has that
//! gap.

use bytes::{Buf, BufMut};
use thiserror::Error;
use weir_protocol::types::ProducerEpoch;

use super::Producers;
use super::entry::{Entry, LastBatch};

/// The version that is written, and the one that knows nothing of ended transactions.
const VERSION: i16 = 2;
const WITHOUT_ENDED: i16 = 1;

/// Bytes of the version and the checksum, which the checksum does not cover.
const CHECKED_FROM: usize = 6;

const ENTRY_BYTES: usize = 46;
const ENDED_BYTES: usize = 16;

/// An ended transaction whose marker may not be committed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The transaction's first offset in this partition.
    pub first_offset: i64,
    /// The marker's offset.
    pub marker_offset: i64,
}

/// What a snapshot holds.
#[derive(Debug, PartialEq)]
pub struct Snapshot {
    /// The producers.
    pub producers: Producers,
    /// The ended transactions whose markers were not known to be committed. `None` in a snapshot of
    /// version 1.
    pub ended: Option<Vec<Ended>>,
}

/// Why bytes are no snapshot. The caller drops it and rebuilds the state from an older one, or from
/// the log.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SnapshotError {
    /// Its version is unknown.
    #[error("the snapshot has the unknown version {0}")]
    Version(i16),
    /// The checksum does not match.
    #[error("the snapshot is damaged: its checksum does not match")]
    Checksum,
    /// Its length does not match its numbers of entries.
    #[error("the snapshot is damaged: {0} bytes do not hold what it says")]
    Length(usize),
}

impl Producers {
    /// Returns the bytes of a snapshot, with these transactions as ended and undecided.
    pub fn to_snapshot(&self, ended: &[Ended]) -> Vec<u8> {
        let entries = self.entries.len() * ENTRY_BYTES + ended.len() * ENDED_BYTES;
        let mut bytes = Vec::with_capacity(CHECKED_FROM + 8 + entries);
        bytes.put_i16(VERSION);
        bytes.put_u32(0);
        bytes.put_i32(i32::try_from(self.entries.len()).unwrap_or(i32::MAX));
        for (id, entry) in &self.entries {
            let last = entry.last();
            bytes.put_i64(*id);
            bytes.put_i16(entry.epoch.0);
            bytes.put_i32(entry.last_sequence());
            bytes.put_i64(entry.last_offset());
            bytes.put_i32(last.map_or(0, |batch| batch.offset_delta));
            bytes.put_i64(entry.timestamp);
            bytes.put_i32(entry.coordinator_epoch);
            bytes.put_i64(entry.transaction_first_offset);
        }
        bytes.put_i32(i32::try_from(ended.len()).unwrap_or(i32::MAX));
        for ended in ended {
            bytes.put_i64(ended.first_offset);
            bytes.put_i64(ended.marker_offset);
        }
        let crc = crc32c::crc32c(bytes.get(CHECKED_FROM..).unwrap_or_default());
        if let Some(field) = bytes.get_mut(2..CHECKED_FROM) {
            field.copy_from_slice(&crc.to_be_bytes());
        }
        bytes
    }

    /// Reads a snapshot. Its producers count as used at `now_ms`.
    ///
    /// # Errors
    /// When the bytes are no complete snapshot.
    pub fn from_snapshot(bytes: &[u8], now_ms: i64) -> Result<Snapshot, SnapshotError> {
        let damaged = SnapshotError::Length(bytes.len());
        let mut rest = bytes;
        let version = rest.try_get_i16().map_err(|_| damaged)?;
        if ![WITHOUT_ENDED, VERSION].contains(&version) {
            return Err(SnapshotError::Version(version));
        }
        let crc = rest.try_get_u32().map_err(|_| damaged)?;
        if crc != crc32c::crc32c(rest) {
            return Err(SnapshotError::Checksum);
        }
        // The counts have no limit, because producers with open transactions are never forgotten.
        let mut producers = Self::default();
        for _ in 0..read_count(&mut rest, ENTRY_BYTES).ok_or(damaged)? {
            let (id, entry) = read_entry(&mut rest, now_ms).ok_or(damaged)?;
            producers.entries.insert(id, entry);
        }
        let mut ended = None;
        if version == VERSION {
            let count = read_count(&mut rest, ENDED_BYTES).ok_or(damaged)?;
            let all: Option<_> = (0..count).map(|_| read_ended(&mut rest)).collect();
            ended = Some(all.ok_or(damaged)?);
        }
        if rest.has_remaining() {
            return Err(damaged);
        }
        Ok(Snapshot { producers, ended })
    }
}

/// Reads a number of entries; `None` if fewer bytes than those follow.
fn read_count(bytes: &mut &[u8], entry_bytes: usize) -> Option<usize> {
    let count = usize::try_from(bytes.try_get_i32().ok()?).ok()?;
    (count.checked_mul(entry_bytes)? <= bytes.len()).then_some(count)
}

fn read_ended(bytes: &mut &[u8]) -> Option<Ended> {
    let first_offset = bytes.try_get_i64().ok()?;
    Some(Ended { first_offset, marker_offset: bytes.try_get_i64().ok()? })
}

fn read_entry(bytes: &mut &[u8], now_ms: i64) -> Option<(i64, Entry)> {
    let id = bytes.try_get_i64().ok()?;
    let epoch = ProducerEpoch(bytes.try_get_i16().ok()?);
    let last_sequence = bytes.try_get_i32().ok()?;
    let last_offset = bytes.try_get_i64().ok()?;
    let offset_delta = bytes.try_get_i32().ok()?;
    let timestamp = bytes.try_get_i64().ok()?;
    let mut entry = Entry::new(now_ms);
    if last_offset >= 0 {
        entry.push(epoch, LastBatch { last_sequence, offset_delta, last_offset, timestamp });
    }
    entry.epoch = epoch;
    entry.timestamp = timestamp;
    entry.coordinator_epoch = bytes.try_get_i32().ok()?;
    entry.transaction_first_offset = bytes.try_get_i64().ok()?;
    Some((id, entry))
}
