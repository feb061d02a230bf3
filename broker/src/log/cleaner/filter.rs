//! What remains of one batch: `MemoryRecords.filterTo` and `Cleaner.shouldRetainRecord`. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::Cow;
use std::collections::BTreeMap;

use weir_protocol::batch::BatchHeader;
use weir_protocol::record::{BatchBuilder, Record, Records, section};
use weir_protocol::types::ProducerId;

use super::super::LogConfig;
use super::super::producers::LastRecord;
use super::super::validate::{decompressed_bytes_max, written_with};
use super::map::OffsetMap;

/// One cleaning of a log: what decides about each of its batches.
#[derive(Debug)]
pub(super) struct Round<'a> {
    pub(super) config: &'a LogConfig,
    pub(super) map: &'a OffsetMap,
    pub(super) last_records: &'a BTreeMap<ProducerId, LastRecord>,
    pub(super) now_ms: i64,
}

/// Whether a batch's records are for compaction to judge.
fn is_plain(header: &BatchHeader) -> bool {
    !header.is_control() && !header.is_transactional()
}

/// Takes up the keys of a batch that lie at `first_dirty_offset` or behind; returns false when the map is full.
pub(super) fn index(map: &mut OffsetMap, config: &LogConfig, first_dirty_offset: i64, header: &BatchHeader, batch: &[u8]) -> bool {
    if is_plain(header)
        && header.last_offset() >= first_dirty_offset
        && let Some(section) = readable(header, batch, config)
    {
        for record in Records::new(&section, header.records_count).filter_map(Result::ok) {
            let offset = record.offset(header);
            if let Some(key) = record.key.filter(|_| offset >= first_dirty_offset)
                && !map.put(key, offset)
            {
                return false;
            }
        }
    }
    map.known_up_to(header.next_offset());
    true
}

/// The records of a batch; `None` when they cannot be read, or are none.
fn readable<'a>(header: &BatchHeader, batch: &'a [u8], config: &LogConfig) -> Option<Cow<'a, [u8]>> {
    let section = section(header, batch, decompressed_bytes_max(config)).ok()?;
    let sound = Records::new(&section, header.records_count).all(|record| record.is_ok());
    sound.then_some(section)
}

impl Round<'_> {
    /// What remains of a batch; `None` when nothing does.
    pub(super) fn filter<'b>(&self, header: &BatchHeader, batch: &'b [u8]) -> Option<Cow<'b, [u8]>> {
        if !is_plain(header) || header.base_offset >= self.map.end_offset() {
            return Some(Cow::Borrowed(batch));
        }
        let Some(section) = readable(header, batch, self.config) else {
            return Some(Cow::Borrowed(batch));
        };
        let records = || Records::new(&section, header.records_count).filter_map(Result::ok);
        let (mut all, mut tombstones) = (true, false);
        let mut any = false;
        for record in records() {
            let keeps = self.keeps(header, &record);
            all &= keeps;
            any |= keeps;
            tombstones |= keeps && record.value.is_none();
        }
        if !any {
            return self.keeps_header(header).then(|| match header.records_count {
                0 => Cow::Borrowed(batch),
                _ => Cow::Owned(BatchBuilder::emptied(header).to_vec()),
            });
        }
        // Tombstones that are met for the first time say from now on until when they stay.
        let fresh_tombstones = tombstones && header.delete_horizon_ms().is_none();
        if all && !fresh_tombstones {
            return Some(Cow::Borrowed(batch));
        }
        let mut builder = BatchBuilder::like(header);
        if fresh_tombstones {
            builder = builder.delete_horizon(self.now_ms.saturating_add(self.config.delete_retention_ms));
        }
        for record in records().filter(|record| self.keeps(header, record)) {
            builder.append_record(record.offset(header), record.timestamp(header), &record);
        }
        let (_, level) = header.codec().map_or_else(Default::default, |codec| written_with(codec, self.config));
        Some(builder.build(level).map_or(Cow::Borrowed(batch), |bytes| Cow::Owned(bytes.to_vec())))
    }

    fn keeps(&self, header: &BatchHeader, record: &Record<'_>) -> bool {
        let offset = record.offset(header);
        if offset >= self.map.end_offset() {
            return true;
        }
        // A record without a key, from the time before the topic was compacted, cannot be asked for by key.
        let Some(key) = record.key else { return false };
        let is_newest = self.map.newest(key).is_none_or(|newest| offset >= newest);
        let is_due = record.value.is_none() && header.delete_horizon_ms().is_some_and(|horizon| horizon <= self.now_ms);
        is_newest && !is_due
    }

    /// Whether a batch without records stays: its producer's sequence goes on from it, or without it the end of what was cleaned would not be told by any batch.
    fn keeps_header(&self, header: &BatchHeader) -> bool {
        let is_last_of_producer = self.last_records.get(&header.producer_id) == Some(&LastRecord::Data(header.last_offset()));
        is_last_of_producer || header.next_offset() == self.map.end_offset()
    }
}
