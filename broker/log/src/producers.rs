//! The state of a partition's idempotent producers (KIP-98): Kafka's `ProducerStateManager`,
//! `ProducerAppendInfo` and `ProducerStateEntry`.
//!
//! The writer of a log holds one [`Producers`]. It calls [`Producers::admit`] before it appends a
//! client's batches, and [`Producers::appended`] for each batch that it appends, in log order.
//! Followers and recovery call [`Producers::replay`], which checks nothing because the leader
//! already has. The state is derived from the log: a snapshot and the batches after it restore it.
//! It uses no file and no clock.
//!
//! The log's `Transactions` record the changes of transactions ([`Change`]).
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
pub use verification::Verifications;
pub use verification::{Guard, Standing, Verification};

pub use snapshot::{Ended, Snapshot, SnapshotError};

/// The most producers that a partition remembers (some 16 MiB). Beyond it, the partition forgets
/// those that have not written for the longest time, as if they had expired. It then no longer
/// recognises their retries; nothing else is lost.
const PRODUCERS_MAX: usize = 100_000;

/// How many producers stay when there are too many. It is far enough below the limit to make the
/// selection rare.
const PRODUCERS_KEPT: usize = PRODUCERS_MAX / 8 * 7;

/// The earlier append of a repeated batch: the answer that its producer missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The offset of its first record.
    pub first_offset: i64,
    /// The offset of its last record.
    pub last_offset: i64,
    /// Its largest timestamp. With `LogAppendTime`, this is the time of the append.
    pub max_timestamp: i64,
}

/// Why a batch may not follow its producer's last batch.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProducerError {
    /// A producer with this id has written in a newer epoch.
    #[error("Epoch of producer {producer} is {epoch}, which is < the last seen epoch {current}")]
    Epoch {
        /// The producer.
        producer: ProducerId,
        /// The batch's epoch.
        epoch: ProducerEpoch,
        /// The newest epoch.
        current: ProducerEpoch,
    },
    /// Batches before it are missing, or it is older than the remembered ones.
    #[error(
        "Out of order sequence number for producer {producer}: {sequence} (incoming seq. number), {last} (current end sequence number)"
    )]
    OutOfOrder {
        /// The producer.
        producer: ProducerId,
        /// The batch's first sequence number.
        sequence: i32,
        /// The last sequence number appended, -1 for none.
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
        /// The epoch before it.
        current: ProducerEpoch,
    },
    /// A batch outside any transaction while one is open.
    #[error("Expected transactional write from producer {0}")]
    NotTransactional(ProducerId),
    /// The coordinator has not confirmed that the partition is in the transaction.
    #[error("Record was not part of an ongoing transaction of producer {0}")]
    NotVerified(ProducerId),
    /// A marker of a coordinator that has been replaced.
    #[error(
        "Invalid coordinator epoch for producer {producer}: {epoch} (zombie), {current} (current)"
    )]
    CoordinatorFenced {
        /// The producer.
        producer: ProducerId,
        /// The marker's coordinator epoch.
        epoch: i32,
        /// The newest coordinator epoch.
        current: i32,
    },
}

impl ProducerError {
    /// Returns Kafka's error code. As in Kafka since 1.1, `DUPLICATE_SEQUENCE_NUMBER` is not used.
    /// A batch older than the five remembered ones may never have been appended, and the client
    /// would take that error for a success.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Epoch { .. } => ErrorCode::InvalidProducerEpoch,
            Self::OutOfOrder { .. } | Self::NewEpoch { .. } => ErrorCode::OutOfOrderSequenceNumber,
            Self::NotTransactional(_) | Self::NotVerified(_) => ErrorCode::InvalidTxnState,
            Self::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
        }
    }
}

/// The last batch of a producer. Compaction must keep at least its header, because it holds the
/// producer's last sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastRecord {
    /// The batch that ends at this offset.
    Data(i64),
    /// No data batch is remembered: the control batches of this epoch.
    Marker(ProducerEpoch),
}

/// A change that a batch makes to the transactions of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The batch begins a transaction.
    Began {
        /// The producer.
        producer: ProducerId,
        /// The producer's epoch.
        epoch: ProducerEpoch,
        /// The transaction's first offset in this partition.
        first_offset: i64,
    },
    /// The batch is the marker of a transaction with records in this partition.
    Ended {
        /// The producer.
        producer: ProducerId,
        /// The transaction's first offset in this partition.
        first_offset: i64,
        /// The marker's offset.
        last_offset: i64,
        /// Whether it was aborted.
        aborted: bool,
    },
}

/// A producer in the answer to DescribeProducers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The last sequence number, -1 for none.
    pub last_sequence: i32,
    /// The largest timestamp of its last batch, -1 for none.
    pub last_timestamp: i64,
    /// The epoch of the coordinator that last ended a transaction, -1 for none.
    pub coordinator_epoch: i32,
    /// The first offset of its open transaction, -1 for none.
    pub transaction_first_offset: i64,
}

/// The producers of one partition. Allocates nothing while there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    entries: BTreeMap<i64, Entry>,
    /// The number of producers that triggers the next selection, after one that could not forget
    /// enough because their transactions are open.
    bound_from: usize,
}

impl Producers {
    /// Returns the number of remembered producers.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether no producer is remembered, so that no snapshot is needed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Checks batches of a client: they may be appended, or one was appended before
    /// (`UnifiedLog.analyzeAndValidateProducerState`).
    ///
    /// `standing` is what the coordinator's answer about the transaction is worth.
    ///
    /// # Errors
    /// The reason why they may not be appended.
    pub fn admit(
        &self,
        headers: &[BatchHeader],
        standing: Standing<'_>,
    ) -> Result<Option<Duplicate>, ProducerError> {
        for header in headers.iter().filter(|header| header.has_producer()) {
            // Retention or DeleteRecords may have removed everything from an unknown producer, so
            // any sequence is accepted.
            let entry = self.entries.get(&header.producer_id.0);
            if let Some(batch) = entry.and_then(|entry| entry.duplicate_of(header)) {
                return Ok(Some(Duplicate {
                    first_offset: batch.base_offset(),
                    last_offset: batch.last_offset,
                    max_timestamp: batch.timestamp,
                }));
            }
            if header.is_transactional()
                && !standing.permits(|| {
                    self.has_open_transaction(header.producer_id, header.producer_epoch)
                })
            {
                return Err(ProducerError::NotVerified(header.producer_id));
            }
            if let Some(entry) = entry {
                check(entry, header)?;
            }
            check_verified(entry, header, standing)?;
        }
        Ok(None)
    }

    /// Checks batches that a coordinator on this broker writes for a producer. They carry no
    /// sequence numbers.
    ///
    /// # Errors
    /// The reason why they may not be appended.
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

    /// Checks the marker of a transaction (`ProducerAppendInfo.appendEndTxnMarker`).
    ///
    /// # Errors
    /// The reason why it may not be appended.
    pub fn admit_marker(&self, marker: &Marker) -> Result<(), ProducerError> {
        let Some(entry) = self.entries.get(&marker.producer.0) else {
            return Ok(());
        };
        let (producer, epoch, current) = (marker.producer, marker.epoch, entry.epoch);
        // With transactions v2 a marker raises the epoch. The same marker again is a coordinator's
        // retry (KAFKA-19999). The last epoch cannot be raised, so a marker ends an open
        // transaction in it all the same (KAFKA-20090).
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

    /// Checks that no newer epoch of this producer has written.
    ///
    /// # Errors
    /// When one has.
    pub fn admit_epoch(
        &self,
        producer: ProducerId,
        epoch: ProducerEpoch,
    ) -> Result<(), ProducerError> {
        self.entries.get(&producer.0).map_or(Ok(()), |entry| check_epoch(entry, producer, epoch))
    }

    /// Returns whether the producer has an open transaction here in this epoch.
    pub fn has_open_transaction(&self, producer: ProducerId, epoch: ProducerEpoch) -> bool {
        let entry = self.entries.get(&producer.0);
        entry.is_some_and(|entry| entry.epoch == epoch && entry.transaction_first_offset >= 0)
    }

    /// The first offset of each open transaction, with its producer and epoch.
    pub fn open_transactions(&self) -> impl Iterator<Item = (i64, (ProducerId, ProducerEpoch))> {
        let open = self.entries.iter().filter(|(_, entry)| entry.transaction_first_offset >= 0);
        open.map(|(id, entry)| (entry.transaction_first_offset, (ProducerId(*id), entry.epoch)))
    }

    /// All remembered producers, for DescribeProducers; expired ones are not among them.
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

    /// Records a batch that is appended at `now_ms` with these offsets. Returns the transaction
    /// that it begins, if any.
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

    /// Records a batch that is read again from the log, or that came from the leader. `batch` is
    /// the whole batch; a marker's records are read from it.
    ///
    /// The producer counts as used at `now_ms`. Its timestamps come from the client, and the
    /// producer may be about to retry.
    pub fn replay(&mut self, header: &BatchHeader, batch: &[u8], now_ms: i64) -> Option<Change> {
        if !header.is_control() {
            return self.appended(header, now_ms);
        }
        let marker = Marker::read(header, batch);
        if marker.is_none() && header.records_count > 0 {
            return None;
        }
        let entry = self.entries.entry(header.producer_id.0).or_insert_with(|| Entry::new(now_ms));
        let Some(marker) = marker else {
            // Compaction has emptied the marker and kept the batch for the producer's epoch:
            // without it, an older instance of the producer could write again. Kafka learns nothing
            // from it.
            if entry.transaction_first_offset < 0 && entry.epoch.0 < header.producer_epoch.0 {
                entry.set_epoch(header.producer_epoch);
            }
            entry.used_ms = now_ms;
            self.bound();
            return None;
        };
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
    /// and have no open transaction.
    ///
    /// Unlike Kafka, this counts from the append and not from the batch's timestamp. So a producer
    /// of old records is not forgotten at once.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.entries.retain(|_, entry| {
            entry.transaction_first_offset >= 0
                || now_ms.saturating_sub(entry.used_ms) < expiration_ms
        });
    }

    /// The batches that compaction must keep for the producers
    /// (`UnifiedLog.lastRecordsOfActiveProducers`).
    pub fn last_records(&self) -> BTreeMap<ProducerId, LastRecord> {
        let last = |entry: &Entry| {
            entry.last().map_or(LastRecord::Marker(entry.epoch), |batch| {
                LastRecord::Data(batch.last_offset)
            })
        };
        self.entries.iter().map(|(id, entry)| (ProducerId(*id), last(entry))).collect()
    }

    /// Bounds the number of producers: forgets those with the smallest last offsets.
    fn bound(&mut self) {
        if self.entries.len() <= PRODUCERS_MAX.max(self.bound_from) {
            return;
        }
        // A producer with an open transaction stays, because its transaction would be forgotten
        // with it.
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
        // The next selection stays rare even if hardly any producer can be forgotten.
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

/// While a transaction is open, every batch of the producer must belong to it.
fn check_kind(entry: &Entry, header: &BatchHeader) -> Result<(), ProducerError> {
    if entry.transaction_first_offset >= 0 && !header.is_transactional() {
        return Err(ProducerError::NotTransactional(header.producer_id));
    }
    Ok(())
}

/// Checks the first batch of a transaction against the verification: earlier batches may have been
/// under way while the coordinator was asked (KIP-890).
fn check_verified(
    entry: Option<&Entry>,
    header: &BatchHeader,
    standing: Standing<'_>,
) -> Result<(), ProducerError> {
    let Standing::Answered(verified) = standing else { return Ok(()) };
    let sequence = header.base_sequence;
    // With transactions v2 the end of the last transaction raised the epoch. So sequences begin at
    // 0 if the producer is unknown here.
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

/// Checks that a batch follows its producer's last one (`ProducerAppendInfo.appendDataBatch`).
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
