//! Snapshots of a partition's producers, in the format of Kafka's `.snapshot` files. A snapshot
//! holds the state at the offset in its file name.
//!
//! It has a version, a CRC-32C of the bytes after it, and an entry for each producer. An entry
//! holds the producer's last batch only.

use bytes::{Buf, BufMut};
use thiserror::Error;
use weir_protocol::types::ProducerEpoch;

use super::Producers;
use super::entry::{Entry, LastBatch};

/// The only version.
const VERSION: i16 = 1;

/// Bytes of the version and the checksum, which the checksum does not cover.
const CHECKED_FROM: usize = 6;

const ENTRY_BYTES: usize = 46;

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
    /// Its length does not match its number of entries.
    #[error("the snapshot is damaged: {0} bytes do not hold what it says")]
    Length(usize),
}

impl Producers {
    /// Returns the bytes of a snapshot.
    pub fn to_snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CHECKED_FROM + 4 + self.entries.len() * ENTRY_BYTES);
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
    pub fn from_snapshot(bytes: &[u8], now_ms: i64) -> Result<Self, SnapshotError> {
        let damaged = SnapshotError::Length(bytes.len());
        let mut rest = bytes;
        let version = rest.try_get_i16().map_err(|_| damaged)?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let crc = rest.try_get_u32().map_err(|_| damaged)?;
        if crc != crc32c::crc32c(rest) {
            return Err(SnapshotError::Checksum);
        }
        let count =
            rest.try_get_i32().ok().and_then(|count| usize::try_from(count).ok()).ok_or(damaged)?;
        // The count has no limit, because producers with open transactions are never forgotten.
        if count.checked_mul(ENTRY_BYTES) != Some(rest.len()) {
            return Err(damaged);
        }
        let mut producers = Self::default();
        while rest.has_remaining() {
            let (id, entry) = read_entry(&mut rest, now_ms).ok_or(damaged)?;
            producers.entries.insert(id, entry);
        }
        Ok(producers)
    }
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
