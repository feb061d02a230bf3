//! One producer: its epoch and the last batches that it appended.

use weir_protocol::batch::BatchHeader;
use weir_protocol::types::ProducerEpoch;

/// How many batches are remembered of a producer: as many as a client may have in flight
/// (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
const BATCHES: usize = 5;

/// A remembered batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LastBatch {
    pub(super) last_sequence: i32,
    pub(super) offset_delta: i32,
    pub(super) last_offset: i64,
    pub(super) timestamp: i64,
}

impl LastBatch {
    pub(super) fn of(header: &BatchHeader) -> Self {
        Self {
            last_sequence: header.last_sequence(),
            offset_delta: header.last_offset_delta,
            last_offset: header.last_offset(),
            timestamp: header.max_timestamp,
        }
    }

    pub(super) fn base_offset(&self) -> i64 {
        self.last_offset.saturating_sub(i64::from(self.offset_delta))
    }

    /// The first sequence number. Sequences wrap to 0 after `i32::MAX`
    /// (`DefaultRecordBatch.decrementSequence`).
    fn first_sequence(&self) -> i32 {
        let first = i64::from(self.last_sequence) - i64::from(self.offset_delta);
        i32::try_from(first.rem_euclid(i64::from(i32::MAX) + 1)).unwrap_or(0)
    }
}

/// A remembered producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) epoch: ProducerEpoch,
    /// The epoch of the transaction coordinator that last ended a transaction, -1 for none.
    pub(super) coordinator_epoch: i32,
    /// The first offset of the open transaction, -1 for none.
    pub(super) transaction_first_offset: i64,
    /// The largest timestamp of its last batch.
    pub(super) timestamp: i64,
    /// The time of its last append, by the broker's clock.
    pub(super) used_ms: i64,
    /// Oldest first.
    batches: [LastBatch; BATCHES],
    batches_count: u8,
}

impl Entry {
    pub(super) fn new(used_ms: i64) -> Self {
        Self {
            epoch: ProducerEpoch(-1),
            coordinator_epoch: -1,
            transaction_first_offset: -1,
            timestamp: -1,
            used_ms,
            batches: [LastBatch::default(); BATCHES],
            batches_count: 0,
        }
    }

    fn batches(&self) -> &[LastBatch] {
        self.batches.get(..usize::from(self.batches_count)).unwrap_or_default()
    }

    /// The last batch of its epoch.
    pub(super) fn last(&self) -> Option<&LastBatch> {
        self.batches().last()
    }

    /// The last sequence number of its epoch, -1 for none.
    pub(super) fn last_sequence(&self) -> i32 {
        self.last().map_or(-1, |batch| batch.last_sequence)
    }

    /// The offset of its last record, -1 for none.
    pub(super) fn last_offset(&self) -> i64 {
        self.last().map_or(-1, |batch| batch.last_offset)
    }

    /// Returns the remembered batch with the same epoch and sequence numbers.
    pub(super) fn duplicate_of(&self, header: &BatchHeader) -> Option<&LastBatch> {
        let same = |batch: &&LastBatch| {
            batch.first_sequence() == header.base_sequence
                && batch.last_sequence == header.last_sequence()
        };
        self.batches().iter().filter(|_| self.epoch == header.producer_epoch).find(same)
    }

    pub(super) fn set_epoch(&mut self, epoch: ProducerEpoch) {
        if self.epoch != epoch {
            (self.epoch, self.batches, self.batches_count) = (epoch, Default::default(), 0);
        }
    }

    /// Adds a batch; a full list drops the oldest one.
    pub(super) fn push(&mut self, epoch: ProducerEpoch, batch: LastBatch) {
        self.set_epoch(epoch);
        if usize::from(self.batches_count) == BATCHES {
            self.batches.rotate_left(1);
        } else {
            self.batches_count += 1;
        }
        if let Some(slot) = self.batches.get_mut(usize::from(self.batches_count) - 1) {
            *slot = batch;
        }
        self.timestamp = batch.timestamp;
    }

    /// Applies the marker of a transaction.
    pub(super) fn end_transaction(
        &mut self,
        epoch: ProducerEpoch,
        coordinator_epoch: i32,
        timestamp: i64,
    ) {
        self.set_epoch(epoch);
        self.coordinator_epoch = coordinator_epoch;
        self.transaction_first_offset = -1;
        self.timestamp = timestamp;
    }
}
