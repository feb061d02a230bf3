//! Decides which records of a batch remain: `MemoryRecords.filterTo` and
//! `Cleaner.shouldRetainRecord`. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use weir_protocol::batch::BatchHeader;
use weir_protocol::record::{BatchBuilder, Record, Records, section};
use weir_protocol::types::ProducerId;

use super::super::producers::{LastRecord, Marker};
use super::super::validate::{decompressed_bytes_max, written_with};
use super::super::{Aborted, LogConfig};
use super::map::OffsetMap;

/// The inputs of one cleaning of a log, which decide about each of its batches.
#[derive(Debug)]
pub(super) struct Round<'a> {
    pub(super) outcomes: &'a Outcomes,
    /// Producers with transactional batches whose marker has not come yet.
    pub(super) observed: BTreeSet<ProducerId>,
    pub(super) config: &'a LogConfig,
    pub(super) map: &'a OffsetMap,
    pub(super) last_records: &'a BTreeMap<ProducerId, LastRecord>,
    pub(super) now_ms: i64,
    /// The base offset of the first batch that stays because its records cannot be read, or would
    /// take too much memory. Tombstones behind it stay, too: it may hold what they delete.
    pub(super) unread: Option<i64>,
}

/// The outcomes of the transactions in the cleaned part of a log: each one that is not listed as
/// aborted is committed.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    aborted: BTreeMap<ProducerId, Vec<(i64, i64)>>,
}

impl Outcomes {
    pub(super) fn of(aborted: &[Aborted]) -> Self {
        let mut outcomes = Self::default();
        for it in aborted {
            outcomes
                .aborted
                .entry(it.producer)
                .or_default()
                .push((it.first_offset, it.last_offset));
        }
        outcomes
    }

    fn is_aborted(&self, header: &BatchHeader) -> bool {
        let inside =
            |(first, last): &(i64, i64)| *first <= header.base_offset && header.base_offset < *last;
        header.is_transactional()
            && self
                .aborted
                .get(&header.producer_id)
                .is_some_and(|aborted| aborted.iter().any(inside))
    }
}

/// Adds the keys of a batch at or after `first_dirty_offset` to the map. Returns false when the map
/// is full.
pub(super) fn index(
    map: &mut OffsetMap,
    (config, outcomes): (&LogConfig, &Outcomes),
    first_dirty_offset: i64,
    header: &BatchHeader,
    batch: &[u8],
) -> bool {
    if !header.is_control()
        && !outcomes.is_aborted(header)
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

/// Returns the records of a batch, decompressed; `None` when any of them cannot be read, or they
/// are larger than a compacted topic takes: the topic was not compacted, or took larger batches.
fn readable<'a>(
    header: &BatchHeader,
    batch: &'a [u8],
    config: &LogConfig,
) -> Option<Cow<'a, [u8]>> {
    let section = section(header, batch, decompressed_bytes_max(config)).ok()?;
    let sound = Records::new(&section, header.records_count).all(|record| record.is_ok());
    sound.then_some(section)
}

impl Round<'_> {
    /// Returns what remains of a batch; `None` when nothing does.
    pub(super) fn filter<'b>(
        &mut self,
        header: &BatchHeader,
        batch: &'b [u8],
    ) -> Option<Cow<'b, [u8]>> {
        if header.is_control() {
            let ends_something = self.observed.remove(&header.producer_id);
            return if ends_something {
                Some(Cow::Borrowed(batch))
            } else {
                self.filter_marker(header, batch)
            };
        }
        if header.is_transactional() {
            self.observed.insert(header.producer_id);
        }
        if self.outcomes.is_aborted(header) {
            return self
                .keeps_header(header)
                .then(|| Cow::Owned(BatchBuilder::emptied(header).to_vec()));
        }
        if header.base_offset >= self.map.end_offset() {
            return Some(Cow::Borrowed(batch));
        }
        let Some(section) = readable(header, batch, self.config) else {
            self.unread.get_or_insert(header.base_offset);
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
        // The first cleaning that meets a tombstone writes into the batch until when it stays.
        let fresh_tombstones = tombstones && header.delete_horizon_ms().is_none();
        if all && !fresh_tombstones {
            return Some(Cow::Borrowed(batch));
        }
        let mut builder = BatchBuilder::like(header);
        if fresh_tombstones {
            builder =
                builder.delete_horizon(self.now_ms.saturating_add(self.config.delete_retention_ms));
        }
        for record in records().filter(|record| self.keeps(header, record)) {
            builder.append_record(record.offset(header), record.timestamp(header), &record);
        }
        let (_, level) =
            header.codec().map_or_else(Default::default, |codec| written_with(codec, self.config));
        Some(builder.build(level).map_or(Cow::Borrowed(batch), |bytes| Cow::Owned(bytes.to_vec())))
    }

    /// Returns what remains of a marker whose transaction has no records left. As with tombstones,
    /// the marker stays until `delete.retention.ms` has passed (`Cleaner.checkBatchRetention`).
    fn filter_marker<'b>(&self, header: &BatchHeader, batch: &'b [u8]) -> Option<Cow<'b, [u8]>> {
        let is_emptied = header.has_producer() && header.records_count == 0;
        if is_emptied && header.base_offset < self.map.end_offset() {
            return self.keeps_header(header).then_some(Cow::Borrowed(batch));
        }
        let is_marker =
            Marker::read(header, batch).is_some() && header.base_offset < self.map.end_offset();
        let Some(section) = readable(header, batch, self.config).filter(|_| is_marker) else {
            return Some(Cow::Borrowed(batch));
        };
        match header.delete_horizon_ms() {
            Some(horizon) if horizon <= self.now_ms => self
                .keeps_header(header)
                .then(|| Cow::Owned(BatchBuilder::emptied(header).to_vec())),
            Some(_) => Some(Cow::Borrowed(batch)),
            None => {
                let mut builder = BatchBuilder::like(header)
                    .delete_horizon(self.now_ms.saturating_add(self.config.delete_retention_ms));
                for record in Records::new(&section, header.records_count).filter_map(Result::ok) {
                    builder.append_record(record.offset(header), record.timestamp(header), &record);
                }
                Some(
                    builder
                        .build(0)
                        .map_or(Cow::Borrowed(batch), |bytes| Cow::Owned(bytes.to_vec())),
                )
            }
        }
    }

    fn keeps(&self, header: &BatchHeader, record: &Record<'_>) -> bool {
        let offset = record.offset(header);
        if offset >= self.map.end_offset() {
            return true;
        }
        // A record without a key dates from before the topic was compacted. No reader can look it
        // up by key.
        let Some(key) = record.key else { return false };
        let is_newest = self.map.newest(key).is_none_or(|newest| offset >= newest);
        let is_due = record.value.is_none()
            && self.unread.is_none()
            && header.delete_horizon_ms().is_some_and(|horizon| horizon <= self.now_ms);
        is_newest && !is_due
    }

    /// Returns whether a batch without records stays. It stays if its producer's sequence continues
    /// from it, or if no other batch would show where the cleaned part ends.
    fn keeps_header(&self, header: &BatchHeader) -> bool {
        let is_last_of_producer = match self.last_records.get(&header.producer_id) {
            Some(LastRecord::Data(offset)) => *offset == header.last_offset(),
            Some(LastRecord::Marker(epoch)) => {
                header.is_control() && *epoch == header.producer_epoch
            }
            None => false,
        };
        is_last_of_producer || header.next_offset() == self.map.end_offset()
    }
}
