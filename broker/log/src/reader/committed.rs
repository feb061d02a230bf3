//! The view of a `read_committed` consumer: the last stable offset and the aborted transactions.
//!
//! The files of sealed segments hold their aborted transactions. If such a file is damaged, all
//! transactions count as unknown. The writer then reads them from the log and rewrites every file.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::warn;
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::super::transactions::{Aborted, is_damage};
use super::{LogReader, ReadError, ReadSlice};

impl LogReader {
    /// The last stable offset: every transaction before it has ended, and it is at most the high
    /// watermark. `None` while the transactions are not loaded
    /// ([`LogWriter::load_transactions`](crate::LogWriter::load_transactions)).
    pub fn last_stable_offset(&self) -> Option<i64> {
        let transactions = self.transactions.read();
        // The deleted part of an open transaction holds nothing back.
        let stable =
            || transactions.last_stable_offset(self.high_watermark()).max(self.log_start_offset());
        transactions.is_known.then(stable)
    }

    /// Returns whether a producer is known to have an open transaction here in this epoch.
    pub fn has_open_transaction(&self, producer: ProducerId, epoch: ProducerEpoch) -> bool {
        self.transactions.read().is_open(producer, epoch)
    }

    /// The aborted transactions with records in `from..bound`, in the order of their markers
    /// (`UnifiedLog.collectAbortedTransactions`).
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn aborted_transactions(&self, from: i64, bound: i64) -> io::Result<Vec<Aborted>> {
        let mut found = Vec::new();
        let segments = self.segments.load();
        let first =
            segments.partition_point(|segment| segment.base_offset() <= from).saturating_sub(1);
        let in_memory_from = self.transactions.read().in_memory_from();
        // Adds a transaction that matches. Returns whether no later one can match.
        let mut take = |aborted: &Aborted| {
            if aborted.last_offset >= from && aborted.first_offset < bound {
                found.push(*aborted);
            }
            aborted.last_stable_offset >= bound
        };
        for segment in
            segments.iter().skip(first).filter(|segment| segment.base_offset() < in_memory_from)
        {
            let complete = segment.aborted(&self.dir.files)?.iter().any(&mut take);
            if complete {
                return Ok(found);
            }
        }
        // A segment was sealed meanwhile, so its transactions moved to a file that was not read.
        let transactions = self.transactions.read();
        if transactions.in_memory_from() != in_memory_from {
            drop(transactions);
            return self.aborted_transactions(from, bound);
        }
        let _ = transactions.aborted().iter().any(take);
        Ok(found)
    }

    /// Does the same as [`LogReader::aborted_transactions`]. Returns `None` when the transactions
    /// are not loaded ([`LogWriter::load_transactions`](crate::LogWriter::load_transactions)).
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn known_aborted_transactions(
        &self,
        from: i64,
        bound: i64,
    ) -> io::Result<Option<Vec<Aborted>>> {
        let truncations = self.truncations.load(Ordering::Acquire);
        let is_known = || self.transactions.read().is_known;
        let before = is_known();
        let found = match self.aborted_transactions(from, bound) {
            Err(error) if is_damage(&error) => {
                self.distrust_transaction_index(&error);
                return Ok(None);
            }
            found => found?,
        };
        // A truncation drops them, and a writer may have reloaded them meanwhile.
        let is_whole =
            before && is_known() && self.truncations.load(Ordering::Acquire) == truncations;
        Ok(is_whole.then_some(found))
    }

    fn distrust_transaction_index(&self, error: &io::Error) {
        warn!(topic = %self.topic, partition = self.id.index, log = %self.path().display(), %error, "a file of aborted transactions is damaged; read_committed waits until it is written anew");
        let mut transactions = self.transactions.write();
        self.distrusts_transaction_index.store(true, Ordering::Release);
        transactions.is_known = false;
    }

    /// Returns whether a file of aborted transactions was found damaged and is not rewritten yet.
    pub(crate) fn distrusts_transaction_index(&self) -> bool {
        self.distrusts_transaction_index.load(Ordering::Acquire)
    }

    /// Called when all files of aborted transactions are rewritten.
    pub(crate) fn trust_transaction_index(&self) {
        self.distrusts_transaction_index.store(false, Ordering::Release);
    }

    /// Returns a slice as [`LogReader::read`] does, and the aborted transactions with records from
    /// `from` to `bound`. Both are from before a compaction, or both from after it. The
    /// transactions are `None` when they are unknown.
    ///
    /// # Errors
    /// The same as [`LogReader::read`].
    pub fn read_committed(
        &self,
        from: i64,
        bound: i64,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<(Option<ReadSlice>, Option<Vec<Aborted>>), ReadError> {
        loop {
            let segments = self.segments.load_full();
            let slice = self.read(from, bound, bytes_max, at_least_one)?;
            let aborted = match slice {
                Some(_) => self.known_aborted_transactions(from, bound)?,
                None => Some(Vec::new()),
            };
            if Arc::ptr_eq(&segments, &self.segments.load_full()) {
                return Ok((slice, aborted));
            }
        }
    }
}
