//! The transactions of a partition, as the writer of its log keeps them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::batch::BatchHeader;
use weir_protocol::error::ErrorCode;

use super::{Aborted, Guard, Marker, Producer};
use crate::log::Prepared as Batch;
use crate::log::producers::{Producers, Verifications};
use crate::log::transactions::Transactions;

/// A partition's producers, the questions about their transactions, and which of those are open.
#[derive(Debug)]
pub struct Partition {
    producers: Producers,
    asked: Verifications,
    transactions: Transactions,
}

impl Default for Partition {
    fn default() -> Self {
        Self {
            producers: Producers::default(),
            asked: Verifications::default(),
            transactions: Transactions::none(0),
        }
    }
}

impl Partition {
    /// Puts down that the transaction's coordinator is asked before its first batch is appended (`LogWriter::ask_to_verify`). `None`: it is open here.
    pub fn ask_to_verify(&mut self, (id, epoch): Producer, sequence: i32, raises_epoch: bool) -> Option<Guard> {
        let is_open = self.producers.has_open_transaction(id, epoch);
        (!is_open).then(|| self.asked.ask(id, epoch, sequence, raises_epoch))
    }

    /// Whether a batch may be appended: its offset if it was before.
    ///
    /// # Errors
    /// What the client is told.
    pub fn admit(&self, header: &BatchHeader, guard: Option<Guard>) -> Result<Option<i64>, ErrorCode> {
        let verified = guard.and_then(|guard| self.asked.answered(header.producer_id, header.producer_epoch, guard));
        let admitted = self.producers.admit(std::slice::from_ref(header), verified);
        admitted
            .map(|duplicate| duplicate.map(|duplicate| duplicate.first_offset))
            .map_err(|error| error.code())
    }

    /// Whether a marker may be appended.
    ///
    /// # Errors
    /// For one that comes late.
    pub fn admit_marker(&self, marker: &Marker) -> Result<(), ErrorCode> {
        self.producers.admit_marker(marker).map_err(|error| error.code())
    }

    /// A batch is appended, or replayed.
    pub fn append(&mut self, header: &BatchHeader, high_watermark: i64, ms: u64) {
        self.note(header, &[], high_watermark, ms);
    }

    /// A marker is appended, or replayed.
    pub fn append_marker(&mut self, marker: Marker, offset: i64, high_watermark: i64, ms: u64) {
        let Ok(batch) = Batch::marker(marker, 0) else { return };
        for (header, bytes) in batch.batches() {
            let header = BatchHeader {
                base_offset: offset,
                ..header
            };
            self.note(&header, bytes, high_watermark, ms);
        }
    }

    /// As `LogWriter::note_producer`.
    fn note(&mut self, header: &BatchHeader, batch: &[u8], high_watermark: i64, ms: u64) {
        let change = self.producers.replay(header, batch, i64::try_from(ms).unwrap_or(i64::MAX));
        if let Some(change) = change {
            self.transactions.changed(change, high_watermark);
        }
        if change.is_some() || header.is_control() {
            self.asked.settle(header.producer_id);
        }
    }

    /// The offset before which every transaction has ended, and that is committed.
    pub fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        self.transactions.last_stable_offset(high_watermark)
    }

    /// Those that were aborted.
    pub fn aborted(&self) -> &[Aborted] {
        self.transactions.aborted()
    }
}
