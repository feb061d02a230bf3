//! What a partition knows of its idempotent producers (KIP-98): Kafka's `ProducerStateManager`,
//! `ProducerAppendInfo` and `ProducerStateEntry`.
//!
//! The writer of a log holds one [`Producers`]: it asks [`Producers::admit`] before it appends what
//! a client sent and calls [`Producers::appended`] for what it then does append, in log order.
//! Followers and recovery call [`Producers::replay`], which checks nothing: the leader has. The
//! state is derived from the log and may be thrown away: a snapshot and the batches behind it give
//! it again. It knows no file and no clock.
//!
//! What it says of transactions ([`Change`]) the log's `Transactions` remember.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::cmp::Ordering;
use std::collections::BTreeMap;

use thiserror::Error;
use weir_protocol::batch::BatchHeader;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{ProducerEpoch, ProducerId};

use entry::{Entry, LastBatch};

mod entry;
mod marker;
mod snapshot;
mod verification;

pub use marker::{Marker, marker_batch};
pub(crate) use verification::Verifications;
pub use verification::{Guard, Verification};

pub use snapshot::SnapshotError;

/// A partition remembers at most this many producers (some 16 MiB). Beyond it those are forgotten
/// that have not written for longest, as if they had expired: a retry of theirs is then no longer
/// recognised, nothing else is lost.
const PRODUCERS_MAX: usize = 100_000;

/// How many are kept when there are too many: far enough below the limit that choosing them is
/// rare.
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
    #[error(
        "Out of order sequence number for producer {producer}: {sequence} (incoming seq. number), {last} (current end sequence number)"
    )]
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
    /// A batch outside of any transaction, while one is open.
    #[error("Expected transactional write from producer {0}")]
    NotTransactional(ProducerId),
    /// The coordinator has not said that the partition is part of the transaction.
    #[error("Record was not part of an ongoing transaction of producer {0}")]
    NotVerified(ProducerId),
    /// The marker of a coordinator that is not the coordinator any more.
    #[error(
        "Invalid coordinator epoch for producer {producer}: {epoch} (zombie), {current} (current)"
    )]
    CoordinatorFenced {
        /// The producer.
        producer: ProducerId,
        /// The marker's coordinator epoch.
        epoch: i32,
        /// The newest.
        current: i32,
    },
}

impl ProducerError {
    /// The code that Kafka answers with. There is no `DUPLICATE_SEQUENCE_NUMBER`, as in Kafka since
    /// 1.1: that a batch older than the five remembered ones was appended is not known for sure,
    /// and the client would take it for a success.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Epoch { .. } => ErrorCode::InvalidProducerEpoch,
            Self::OutOfOrder { .. } | Self::NewEpoch { .. } => ErrorCode::OutOfOrderSequenceNumber,
            Self::NotTransactional(_) | Self::NotVerified(_) => ErrorCode::InvalidTxnState,
            Self::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
        }
    }
}

/// The last batch of a producer that compaction must keep, if only its header, since it says how
/// far the producer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastRecord {
    /// The batch that ends with this offset.
    Data(i64),
    /// No data is remembered: the control batches of this epoch.
    Marker(ProducerEpoch),
}

/// What a batch changes about the transactions of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A transaction begins with it.
    Began {
        /// Whose.
        producer: ProducerId,
        /// Under which epoch.
        epoch: ProducerEpoch,
        /// Its first offset here.
        first_offset: i64,
    },
    /// It is the marker of a transaction that had records here.
    Ended {
        /// Whose.
        producer: ProducerId,
        /// Its first offset here.
        first_offset: i64,
        /// The marker's offset.
        last_offset: i64,
        /// Whether it was aborted.
        aborted: bool,
    },
}

/// A producer as DescribeProducers tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The last sequence number, -1 for none.
    pub last_sequence: i32,
    /// The largest timestamp of what it wrote last, -1 for none.
    pub last_timestamp: i64,
    /// The epoch of the coordinator that last ended a transaction, -1 for none.
    pub coordinator_epoch: i32,
    /// The first offset of its open transaction, -1 for none.
    pub transaction_first_offset: i64,
}

/// The state of the producers of one partition. Takes no memory for a partition that none writes
/// to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    entries: BTreeMap<i64, Entry>,
    /// From how many on some are forgotten, where more than [`PRODUCERS_MAX`] have a transaction
    /// open.
    bound_from: usize,
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

    /// Decides about what a client sent: it may be appended, or was before
    /// (`UnifiedLog.analyzeAndValidateProducerState`).
    ///
    /// `verified` is what the coordinator said of the transaction that the client's batch is to
    /// begin here.
    ///
    /// # Errors
    /// Why it may not be appended.
    pub fn admit(
        &self,
        headers: &[BatchHeader],
        verified: Option<&Verification>,
    ) -> Result<Option<Duplicate>, ProducerError> {
        for header in headers.iter().filter(|header| header.has_producer()) {
            // Retention or DeleteRecords may have removed all that an unknown producer wrote: any
            // sequence is accepted from it.
            let entry = self.entries.get(&header.producer_id.0);
            if let Some(batch) = entry.and_then(|entry| entry.duplicate_of(header)) {
                return Ok(Some(Duplicate {
                    first_offset: batch.base_offset(),
                    last_offset: batch.last_offset,
                    max_timestamp: batch.timestamp,
                }));
            }
            if header.is_transactional()
                && verified.is_none()
                && !self.has_open_transaction(header.producer_id, header.producer_epoch)
            {
                return Err(ProducerError::NotVerified(header.producer_id));
            }
            if let Some(entry) = entry {
                check(entry, header)?;
            }
            check_verified(entry, header, verified)?;
        }
        Ok(None)
    }

    /// Decides about what a coordinator on this broker writes for a producer: it counts no
    /// sequences.
    ///
    /// # Errors
    /// Why it may not be appended.
    pub fn admit_from_coordinator(&self, headers: &[BatchHeader]) -> Result<(), ProducerError> {
        for header in headers.iter().filter(|header| header.has_producer()) {
            let Some(entry) = self.entries.get(&header.producer_id.0) else {
                continue;
            };
            check_epoch(entry, header.producer_id, header.producer_epoch)?;
            check_kind(entry, header)?;
        }
        Ok(())
    }

    /// Decides about the end of a transaction (`ProducerAppendInfo.appendEndTxnMarker`).
    ///
    /// # Errors
    /// Why it may not be appended.
    pub fn admit_marker(&self, marker: &Marker) -> Result<(), ProducerError> {
        let Some(entry) = self.entries.get(&marker.producer.0) else {
            return Ok(());
        };
        let (producer, epoch, current) = (marker.producer, marker.epoch, entry.epoch);
        // With transactions v2 a marker raises the epoch. The same one again is a coordinator that
        // tries once more (KAFKA-19999); the last epoch cannot be raised, and who has come to write
        // in it has its transaction ended all the same (KAFKA-20090).
        let is_last = epoch.0 == i16::MAX;
        let is_late = match marker.transaction_version {
            2.. => {
                epoch < current
                    || (epoch == current && entry.transaction_first_offset >= 0 && !is_last)
            }
            _ => epoch < current,
        };
        if is_late {
            return Err(ProducerError::Epoch { producer, epoch, current });
        }
        if marker.coordinator_epoch < entry.coordinator_epoch {
            return Err(ProducerError::CoordinatorFenced {
                producer,
                epoch: marker.coordinator_epoch,
                current: entry.coordinator_epoch,
            });
        }
        Ok(())
    }

    /// Whether nobody has written under this id in a newer epoch.
    ///
    /// # Errors
    /// That somebody has.
    pub(crate) fn admit_epoch(
        &self,
        producer: ProducerId,
        epoch: ProducerEpoch,
    ) -> Result<(), ProducerError> {
        self.entries.get(&producer.0).map_or(Ok(()), |entry| check_epoch(entry, producer, epoch))
    }

    /// Whether the producer has a transaction open here, in this epoch.
    pub fn has_open_transaction(&self, producer: ProducerId, epoch: ProducerEpoch) -> bool {
        let entry = self.entries.get(&producer.0);
        entry.is_some_and(|entry| entry.epoch == epoch && entry.transaction_first_offset >= 0)
    }

    /// The first offsets of all open transactions, and whose they are.
    pub fn open_transactions(&self) -> impl Iterator<Item = (i64, (ProducerId, ProducerEpoch))> {
        let open = self.entries.iter().filter(|(_, entry)| entry.transaction_first_offset >= 0);
        open.map(|(id, entry)| (entry.transaction_first_offset, (ProducerId(*id), entry.epoch)))
    }

    /// All of them, for DescribeProducers. Those are no longer active whose last batch has expired.
    pub fn described(&self) -> Vec<Described> {
        let describe = |(id, entry): (&i64, &Entry)| Described {
            id: ProducerId(*id),
            epoch: entry.epoch,
            last_sequence: entry.last_sequence(),
            last_timestamp: entry.timestamp,
            coordinator_epoch: entry.coordinator_epoch,
            transaction_first_offset: entry.transaction_first_offset,
        };
        self.entries.iter().map(describe).collect()
    }

    /// Remembers a batch that is appended with these offsets, at `now_ms`. Returns whether a
    /// transaction begins with it.
    pub fn appended(&mut self, header: &BatchHeader, now_ms: i64) -> Option<Change> {
        if !header.has_producer() || header.is_control() {
            return None;
        }
        let entry = self.entries.entry(header.producer_id.0).or_insert_with(|| Entry::new(now_ms));
        entry.push(header.producer_epoch, LastBatch::of(header));
        entry.used_ms = now_ms;
        let begins = header.is_transactional() && entry.transaction_first_offset < 0;
        if begins {
            entry.transaction_first_offset = header.base_offset;
        }
        self.bound();
        begins.then_some(Change::Began {
            producer: header.producer_id,
            epoch: header.producer_epoch,
            first_offset: header.base_offset,
        })
    }

    /// Remembers a batch of a log that is read again, or that came from the leader. `batch` is all
    /// of it, for the marker that ends a transaction.
    ///
    /// The producer counts as used at `now_ms`: what its batches say of the time is the client's
    /// word, and it may be about to retry.
    pub fn replay(&mut self, header: &BatchHeader, batch: &[u8], now_ms: i64) -> Option<Change> {
        if !header.is_control() {
            return self.appended(header, now_ms);
        }
        let marker = Marker::read(header, batch)?;
        let entry = self.entries.entry(header.producer_id.0).or_insert_with(|| Entry::new(now_ms));
        let first_offset = entry.transaction_first_offset;
        entry.end_transaction(
            header.producer_epoch,
            marker.coordinator_epoch,
            header.max_timestamp,
        );
        entry.used_ms = now_ms;
        self.bound();
        (first_offset >= 0).then_some(Change::Ended {
            producer: header.producer_id,
            first_offset,
            last_offset: header.base_offset,
            aborted: !marker.commit,
        })
    }

    /// Forgets producers that have not written for `expiration_ms` (`producer.id.expiration.ms`)
    /// and have no transaction open.
    ///
    /// Unlike in Kafka this counts from the append and not from the batch's timestamp: a producer
    /// that writes records of yesterday is not forgotten at once.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.entries.retain(|_, entry| {
            entry.transaction_first_offset >= 0
                || now_ms.saturating_sub(entry.used_ms) < expiration_ms
        });
    }

    /// The batches that compaction must keep for the producers' sake
    /// (`UnifiedLog.lastRecordsOfActiveProducers`).
    pub fn last_records(&self) -> BTreeMap<ProducerId, LastRecord> {
        let last = |entry: &Entry| {
            entry.last().map_or(LastRecord::Marker(entry.epoch), |batch| {
                LastRecord::Data(batch.last_offset)
            })
        };
        self.entries.iter().map(|(id, entry)| (ProducerId(*id), last(entry))).collect()
    }

    /// Keeps the number of producers bounded: those whose last batch lies furthest back go.
    fn bound(&mut self) {
        if self.entries.len() <= PRODUCERS_MAX.max(self.bound_from) {
            return;
        }
        // Who has a transaction open is not forgotten: nobody would know that it is.
        let age = |(id, entry): (&i64, &Entry)| {
            (entry.transaction_first_offset >= 0, entry.last_offset(), *id)
        };
        let mut ages: Vec<_> = self.entries.iter().map(age).collect();
        let surplus = ages.len() - PRODUCERS_KEPT;
        let (_, oldest_kept, _) = ages.select_nth_unstable(surplus);
        let oldest_kept = *oldest_kept;
        self.entries.retain(|id, entry| {
            entry.transaction_first_offset >= 0 || age((id, entry)) >= oldest_kept
        });
        // Choosing stays rare, also where hardly any can be forgotten.
        self.bound_from = self.entries.len() + PRODUCERS_MAX / 8;
    }
}

/// `ProducerAppendInfo.checkProducerEpoch`.
fn check_epoch(
    entry: &Entry,
    producer: ProducerId,
    epoch: ProducerEpoch,
) -> Result<(), ProducerError> {
    let current = entry.epoch;
    if epoch < current {
        return Err(ProducerError::Epoch { producer, epoch, current });
    }
    Ok(())
}

/// While a transaction is open, everything belongs to it.
fn check_kind(entry: &Entry, header: &BatchHeader) -> Result<(), ProducerError> {
    if entry.transaction_first_offset >= 0 && !header.is_transactional() {
        return Err(ProducerError::NotTransactional(header.producer_id));
    }
    Ok(())
}

/// What is asked of the first batch of a transaction, since its coordinator was asked while earlier
/// ones may have been under way (KIP-890).
fn check_verified(
    entry: Option<&Entry>,
    header: &BatchHeader,
    verified: Option<&Verification>,
) -> Result<(), ProducerError> {
    let Some(verified) = verified else { return Ok(()) };
    let sequence = header.base_sequence;
    // With transactions v2 the epoch was raised at the end of the last transaction, so that numbers
    // begin at 0 where nothing is known of the producer.
    let begins_late = verified.raises_epoch && entry.is_none() && sequence != 0;
    if begins_late || sequence > verified.lowest_sequence {
        return Err(ProducerError::OutOfOrder {
            producer: header.producer_id,
            sequence,
            last: entry.map_or(-1, Entry::last_sequence),
        });
    }
    Ok(())
}

/// Whether a batch follows what its producer wrote before (`ProducerAppendInfo.appendDataBatch`).
fn check(entry: &Entry, header: &BatchHeader) -> Result<(), ProducerError> {
    check_sequence(entry, header)?;
    check_kind(entry, header)
}

/// `ProducerAppendInfo.checkSequence`.
fn check_sequence(entry: &Entry, header: &BatchHeader) -> Result<(), ProducerError> {
    let (producer, epoch, sequence) =
        (header.producer_id, header.producer_epoch, header.base_sequence);
    let (current, last) = (entry.epoch, entry.last_sequence());
    let follows = i64::from(sequence) == i64::from(last) + 1 || (sequence == 0 && last == i32::MAX);
    match epoch.cmp(&current) {
        Ordering::Less => Err(ProducerError::Epoch { producer, epoch, current }),
        Ordering::Greater if sequence != 0 => {
            Err(ProducerError::NewEpoch { producer, epoch, sequence, current })
        }
        Ordering::Equal if !follows => Err(ProducerError::OutOfOrder { producer, sequence, last }),
        Ordering::Greater | Ordering::Equal => Ok(()),
    }
}

#[cfg(test)]
mod tests;
