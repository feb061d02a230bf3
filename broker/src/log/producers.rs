//! What a partition knows of its idempotent producers (KIP-98): Kafka's `ProducerStateManager`, `ProducerAppendInfo` and `ProducerStateEntry`.
//!
//! The writer of a log holds one [`Producers`]: it asks [`Producers::admit`] before it appends what a client sent and calls [`Producers::appended`] for
//! what it then does append, in log order. Followers and recovery call [`Producers::replay`], which checks nothing: the leader has. The state is derived
//! from the log and may be thrown away: a snapshot and the batches behind it give it again. It knows no file and no clock.
//!
//! Transactions are kept only as far as snapshots and foreign logs contain them; nothing is decided by them here.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::cmp::Ordering;
use std::collections::BTreeMap;

use thiserror::Error;
use weir_protocol::batch::BatchHeader;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{ProducerEpoch, ProducerId};

use entry::{Entry, LastBatch};

mod entry;
mod snapshot;

pub use snapshot::{SNAPSHOT_BYTES_MAX, SnapshotError};

/// A partition remembers at most this many producers (some 16 MiB). Beyond it those are forgotten that have not written for longest, as if they had expired:
/// a retry of theirs is then no longer recognised, nothing else is lost.
const PRODUCERS_MAX: usize = 100_000;

/// How many are kept when there are too many: far enough below the limit that choosing them is rare.
const PRODUCERS_KEPT: usize = PRODUCERS_MAX / 8 * 7;

/// What became of a batch when it was appended before: the answer that its producer missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The offset that its first record got.
    pub first_offset: i64,
    /// The offset of its last record.
    pub last_offset: i64,
    /// Its largest timestamp, which is the time of its append on a topic that sets that.
    pub max_timestamp: i64,
}

/// Why a batch may not follow what its producer wrote before.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProducerError {
    /// A producer with this id and a newer epoch has written meanwhile.
    #[error("Epoch of producer {producer} is {epoch}, which is < the last seen epoch {current}")]
    Epoch {
        /// The producer.
        producer: ProducerId,
        /// The batch's epoch.
        epoch: ProducerEpoch,
        /// The newest epoch.
        current: ProducerEpoch,
    },
    /// Batches are missing before it, or it is older than those that are remembered.
    #[error("Out of order sequence number for producer {producer}: {sequence} (incoming seq. number), {last} (current end sequence number)")]
    OutOfOrder {
        /// The producer.
        producer: ProducerId,
        /// The batch's first sequence number.
        sequence: i32,
        /// The last one that was appended, -1 for none.
        last: i32,
    },
    /// The first batch of a new epoch does not begin at 0.
    #[error(
        "Invalid sequence number for new epoch of producer {producer}: {epoch} (request epoch), {sequence} (seq. number), {current} (current producer epoch)"
    )]
    NewEpoch {
        /// The producer.
        producer: ProducerId,
        /// The batch's epoch.
        epoch: ProducerEpoch,
        /// Its first sequence number.
        sequence: i32,
        /// The epoch before.
        current: ProducerEpoch,
    },
}

impl ProducerError {
    /// The code that Kafka answers with. There is no `DUPLICATE_SEQUENCE_NUMBER`, as in Kafka since 1.1: that a batch older than the five remembered ones
    /// was appended is not known for sure, and the client would take it for a success.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Epoch { .. } => ErrorCode::InvalidProducerEpoch,
            Self::OutOfOrder { .. } | Self::NewEpoch { .. } => ErrorCode::OutOfOrderSequenceNumber,
        }
    }
}

/// The last batch of a producer that compaction must keep, if only its header, since it says how far the producer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastRecord {
    /// The batch that ends with this offset.
    Data(i64),
    /// No data is remembered: the control batches of this epoch.
    Marker(ProducerEpoch),
}

/// The state of the producers of one partition. Takes no memory for a partition that none writes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    entries: BTreeMap<i64, Entry>,
}

impl Producers {
    /// How many producers are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no producer is remembered: then there is nothing to write a snapshot of.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Decides about what a client sent: it may be appended, or was before (`UnifiedLog.analyzeAndValidateProducerState`).
    ///
    /// # Errors
    /// Why it may not be appended.
    pub fn admit(&self, headers: &[BatchHeader]) -> Result<Option<Duplicate>, ProducerError> {
        for header in headers.iter().filter(|header| header.has_producer()) {
            // Retention or DeleteRecords may have removed all that an unknown producer wrote: any sequence is accepted from it.
            let Some(entry) = self.entries.get(&header.producer_id.0) else {
                continue;
            };
            if let Some(batch) = entry.duplicate_of(header) {
                return Ok(Some(Duplicate {
                    first_offset: batch.base_offset(),
                    last_offset: batch.last_offset,
                    max_timestamp: batch.timestamp,
                }));
            }
            check(entry, header)?;
        }
        Ok(None)
    }

    /// Remembers a batch that is appended with these offsets, at `now_ms`.
    pub fn appended(&mut self, header: &BatchHeader, now_ms: i64) {
        if !header.has_producer() || header.is_control() {
            return;
        }
        let entry = self.entries.entry(header.producer_id.0).or_insert_with(|| Entry::new(now_ms));
        entry.push(header.producer_epoch, LastBatch::of(header));
        entry.used_ms = now_ms;
        if header.is_transactional() && entry.transaction_first_offset < 0 {
            entry.transaction_first_offset = header.base_offset;
        }
        self.bound();
    }

    /// Remembers a batch of a log that is read again, or that came from the leader. `batch` is all of it, for the marker that ends a transaction.
    ///
    /// The producer counts as used at `now_ms`: what its batches say of the time is the client's word, and it may be about to retry.
    pub fn replay(&mut self, header: &BatchHeader, batch: &[u8], now_ms: i64) {
        if !header.is_control() {
            self.appended(header, now_ms);
        } else if header.has_producer()
            && let Some(coordinator_epoch) = entry::marker_coordinator_epoch(header, batch)
        {
            let entry = self.entries.entry(header.producer_id.0).or_insert_with(|| Entry::new(now_ms));
            entry.end_transaction(header.producer_epoch, coordinator_epoch, header.max_timestamp);
            entry.used_ms = now_ms;
            self.bound();
        }
    }

    /// Forgets producers that have not written for `expiration_ms` (`producer.id.expiration.ms`) and have no transaction open.
    ///
    /// Unlike in Kafka this counts from the append and not from the batch's timestamp: a producer that writes records of yesterday is not forgotten at once.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.entries
            .retain(|_, entry| entry.transaction_first_offset >= 0 || now_ms.saturating_sub(entry.used_ms) < expiration_ms);
    }

    /// The batches that compaction must keep for the producers' sake (`UnifiedLog.lastRecordsOfActiveProducers`).
    pub fn last_records(&self) -> BTreeMap<ProducerId, LastRecord> {
        let last = |entry: &Entry| {
            entry
                .last()
                .map_or(LastRecord::Marker(entry.epoch), |batch| LastRecord::Data(batch.last_offset))
        };
        self.entries.iter().map(|(id, entry)| (ProducerId(*id), last(entry))).collect()
    }

    /// Keeps the number of producers bounded: those whose last batch lies furthest back go.
    fn bound(&mut self) {
        if self.entries.len() <= PRODUCERS_MAX {
            return;
        }
        let age = |(id, entry): (&i64, &Entry)| (entry.last_offset(), *id);
        let mut ages: Vec<_> = self.entries.iter().map(age).collect();
        let surplus = ages.len() - PRODUCERS_KEPT;
        let (_, oldest_kept, _) = ages.select_nth_unstable(surplus);
        let oldest_kept = *oldest_kept;
        self.entries.retain(|id, entry| age((id, entry)) >= oldest_kept);
    }
}

/// Whether a batch follows what its producer wrote before (`ProducerAppendInfo.checkSequence`).
fn check(entry: &Entry, header: &BatchHeader) -> Result<(), ProducerError> {
    let (producer, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
    let (current, last) = (entry.epoch, entry.last_sequence());
    let follows = i64::from(sequence) == i64::from(last) + 1 || (sequence == 0 && last == i32::MAX);
    match epoch.cmp(&current) {
        Ordering::Less => Err(ProducerError::Epoch { producer, epoch, current }),
        Ordering::Greater if sequence != 0 => Err(ProducerError::NewEpoch {
            producer,
            epoch,
            sequence,
            current,
        }),
        Ordering::Equal if !follows => Err(ProducerError::OutOfOrder { producer, sequence, last }),
        Ordering::Greater | Ordering::Equal => Ok(()),
    }
}

#[cfg(test)]
mod tests;
