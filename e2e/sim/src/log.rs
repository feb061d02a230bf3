//! A replica's log as a model: records in memory, what of them is on the disk, and the real cache of leader epochs beside them.
//!
//! One record is one batch, so that an offset is an index. Retention and compaction are not part of the model.

use weir_broker::log::Epochs;
use weir_broker::replica::core::OwnLog;
use weir_protocol::types::LeaderEpoch;

use crate::rng::Rng;

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The epoch of the leader that appended it.
    pub epoch: LeaderEpoch,
    /// Who sent it.
    pub producer: u64,
    /// Its place among what the producer sent; -1 for a producer that is not idempotent.
    pub sequence: i64,
    /// What tells it from all others.
    pub value: u64,
}

/// A log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    records: Vec<Record>,
    epochs: Epochs,
    flushed: i64,
    /// The high watermark as it was written down last.
    checkpoint: i64,
}

impl Log {
    /// The records.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The offset after the last record.
    pub fn end(&self) -> i64 {
        self.records.len() as i64
    }

    /// The offset up to which it is on the disk.
    pub fn flushed(&self) -> i64 {
        self.flushed
    }

    /// The record at an offset.
    pub fn get(&self, offset: i64) -> Option<&Record> {
        self.records.get(usize::try_from(offset).ok()?)
    }

    /// The records from an offset on, at most so many.
    pub fn read(&self, offset: i64, to: i64, max: usize) -> Vec<Record> {
        let from = usize::try_from(offset).unwrap_or_default().min(self.records.len());
        let to = usize::try_from(to).unwrap_or_default().clamp(from, self.records.len());
        self.records[from..to].iter().take(max).copied().collect()
    }

    /// Appends.
    pub fn append(&mut self, record: Record) -> i64 {
        let offset = self.end();
        self.epochs.assign(record.epoch, offset);
        self.records.push(record);
        offset
    }

    /// A leader epoch begins here.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) {
        self.epochs.assign(epoch, self.end());
    }

    /// Cuts the log.
    pub fn truncate(&mut self, end: i64) {
        self.records.truncate(usize::try_from(end).unwrap_or_default());
        self.epochs.truncate_from_end(end.max(0));
        self.flushed = self.flushed.min(self.end());
        self.checkpoint = self.checkpoint.min(self.end());
    }

    /// All is on the disk.
    pub fn flush(&mut self) {
        self.flushed = self.end();
    }

    /// The high watermark is written down.
    pub fn write_down(&mut self, high_watermark: i64) {
        self.checkpoint = high_watermark.min(self.end());
    }

    /// The high watermark that a new process finds.
    pub fn written_down(&self) -> i64 {
        self.checkpoint
    }

    /// The power fails: what was not on the disk is there in part, and the epochs are what the records say.
    pub fn lose_power(&mut self, rng: &mut Rng) {
        let kept = rng.between(self.flushed as u64, self.end() as u64);
        self.truncate(kept as i64);
        self.flushed = self.end();
        self.rebuild_epochs();
    }

    /// What a process that finds the cache damaged does.
    pub fn rebuild_epochs(&mut self) {
        self.epochs = Epochs::default();
        for (offset, record) in (0..).zip(&self.records) {
            self.epochs.assign(record.epoch, offset);
        }
    }

    /// Lets a core look at it.
    pub fn look<R>(&self, had: i64, at: impl FnOnce(&OwnLog<'_>) -> R) -> R {
        let end = self.end();
        at(&OwnLog {
            start: 0,
            end,
            had,
            latest_epoch: self.epochs.latest(),
            end_of_epoch: &|epoch| self.epochs.end_of(epoch, 0, end),
        })
    }

    /// The last sequence of a producer, and where it is.
    pub fn last_of(&self, producer: u64) -> Option<i64> {
        self.records
            .iter()
            .rev()
            .find(|record| record.producer == producer)
            .map(|record| record.sequence)
    }

    /// Where a producer's sequence is.
    pub fn find(&self, producer: u64, sequence: i64) -> Option<i64> {
        let is_it = |record: &Record| record.producer == producer && record.sequence == sequence;
        self.records.iter().rposition(is_it).map(|offset| offset as i64)
    }

    /// How many records from the first on are the same as these.
    pub fn agrees_with(&self, others: &[Record]) -> usize {
        // Two logs with the same record at an offset have the same records before it: mostly one look is enough.
        match others.last() {
            None => 0,
            Some(last) if self.records.get(others.len() - 1) == Some(last) && self.records[..others.len()] == *others => others.len(),
            Some(_) => self.records.iter().zip(others).take_while(|(ours, theirs)| ours == theirs).count(),
        }
    }
}
