//! A model of a replica's log: the records in memory, how many of them are on the disk, and the
//! real cache of leader epochs.
//!
//! Each record is one batch, so an offset is an index. The model has no compaction.

use weir_broker::replica::core::OwnLog;
use weir_log::{EpochEnd, Epochs};
use weir_protocol::types::LeaderEpoch;

use crate::rng::Rng;

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The epoch of the leader that appended it.
    pub epoch: LeaderEpoch,
    /// The producer.
    pub producer: u64,
    /// The producer's sequence number; -1 for a producer that is not idempotent.
    pub sequence: i64,
    /// A unique value.
    pub value: u64,
}

impl Record {
    /// Stands for an unknown record: the records there were deleted before.
    pub const GONE: Self = Self { epoch: LeaderEpoch(-1), producer: 0, sequence: -1, value: 0 };

    /// Whether this equals `other`, or `other` is unknown.
    fn is(&self, other: &Self) -> bool {
        self == other || *other == Self::GONE
    }
}

/// A log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Indexed by offset. Nothing reads those before the start.
    records: Vec<Record>,
    start: i64,
    /// The start that a new process finds on the disk.
    start_on_disk: i64,
    epochs: Epochs,
    flushed: i64,
    /// The last high watermark checkpoint.
    checkpoint: i64,
}

impl Log {
    /// The records from an offset on.
    pub fn records_from(&self, offset: i64) -> &[Record] {
        self.records
            .get(usize::try_from(offset.max(self.start)).unwrap_or_default()..)
            .unwrap_or_default()
    }

    /// The first offset.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// The offset after the last record.
    pub fn end(&self) -> i64 {
        self.records.len() as i64
    }

    /// The end offset of what is on the disk.
    pub fn flushed(&self) -> i64 {
        self.flushed
    }

    /// The record at an offset.
    pub fn get(&self, offset: i64) -> Option<&Record> {
        self.records.get(usize::try_from(offset).ok()?).filter(|_| offset >= self.start)
    }

    /// At most `max` records from an offset on.
    pub fn read(&self, offset: i64, to: i64, max: usize) -> Vec<(i64, Record)> {
        let all = (offset.max(self.start)..)
            .zip(self.records_from(offset))
            .take_while(|(at, _)| *at < to);
        all.take(max).map(|(at, record)| (at, *record)).collect()
    }

    /// Appends a record; returns its offset.
    pub fn append(&mut self, record: Record) -> i64 {
        let offset = self.end();
        self.epochs.assign(record.epoch, offset);
        self.records.push(record);
        offset
    }

    /// Appends a leader's record at its offset; false if that is below the end.
    pub fn append_at(&mut self, offset: i64, record: Record) -> bool {
        let Ok(index) = usize::try_from(offset) else { return false };
        if index < self.records.len() {
            return false;
        }
        self.records.resize(index, Record::GONE);
        self.append(record);
        true
    }

    /// Begins a leader epoch at the end.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) {
        self.epochs.assign(epoch, self.end());
    }

    /// Truncates the log.
    pub fn truncate(&mut self, end: i64) {
        self.records.truncate(usize::try_from(end).unwrap_or_default());
        self.epochs.truncate_from_end(end.max(0));
        let end = self.end();
        for offset in
            [&mut self.start, &mut self.start_on_disk, &mut self.flushed, &mut self.checkpoint]
        {
            *offset = end.min(*offset);
        }
    }

    /// Drops the whole log and continues, empty, at an offset. The new start is on the disk at
    /// once.
    pub fn restart(&mut self, offset: i64) {
        *self = Self {
            records: vec![Record::GONE; usize::try_from(offset).unwrap_or_default()],
            start: offset,
            start_on_disk: offset,
            epochs: Epochs::default(),
            flushed: offset,
            checkpoint: offset,
        };
    }

    /// Deletes the records before an offset; returns whether there were any.
    pub fn delete_before(&mut self, offset: i64) -> bool {
        let offset = offset.min(self.end());
        if offset <= self.start {
            return false;
        }
        self.start = offset;
        self.epochs.truncate_from_start(offset);
        true
    }

    /// Flushes everything.
    pub fn flush(&mut self) {
        self.flushed = self.end();
        self.start_on_disk = self.start;
    }

    /// Writes the high watermark checkpoint.
    pub fn write_down(&mut self, high_watermark: i64) {
        self.checkpoint = high_watermark.min(self.end());
    }

    /// The high watermark that a new process reads.
    pub fn written_down(&self) -> i64 {
        self.checkpoint.clamp(self.start, self.end())
    }

    /// A power failure: a part of the unflushed records remains, and the epoch cache is rebuilt
    /// from the records.
    pub fn lose_power(&mut self, rng: &mut Rng) {
        let kept = rng.between(self.flushed as u64, self.end() as u64);
        self.truncate(kept as i64);
        self.flushed = self.end();
        self.rebuild_epochs();
    }

    /// The process is gone, and with it the log start that was not on the disk.
    pub fn lose_process(&mut self) {
        if self.start != self.start_on_disk {
            self.rebuild_epochs();
        }
    }

    /// Rebuilds the epoch cache, as a process does that finds it damaged.
    pub fn rebuild_epochs(&mut self) {
        self.start = self.start_on_disk;
        let mut epochs = Epochs::default();
        for (offset, record) in (self.start..).zip(self.records_from(self.start)) {
            epochs.assign(record.epoch, offset);
        }
        self.epochs = epochs;
    }

    /// Gives a core access to the log.
    pub fn look<R>(&self, had: i64, at: impl FnOnce(&OwnLog<'_>) -> R) -> R {
        let (start, end) = (self.start, self.end());
        at(&OwnLog {
            start,
            end,
            had,
            latest_epoch: self.epochs.latest(),
            end_of_epoch: &|epoch| self.epochs.end_of(epoch, start, end),
        })
    }

    /// The end of an epoch, as OffsetForLeaderEpoch reports it.
    pub fn end_of(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        self.epochs.end_of(epoch, self.start, self.end())
    }

    /// A producer's last sequence number.
    pub fn last_of(&self, producer: u64) -> Option<i64> {
        let records = self.records_from(self.start).iter().rev();
        records.filter(|record| record.producer == producer).map(|record| record.sequence).next()
    }

    /// The offset of a producer's sequence number.
    pub fn find(&self, producer: u64, sequence: i64) -> Option<i64> {
        let is_it = |record: &Record| record.producer == producer && record.sequence == sequence;
        let index = self.records_from(self.start).iter().rposition(is_it)?;
        Some(self.start + index as i64)
    }

    /// The offset up to which this log has these records, given by their offsets. Records before
    /// the log start or before `from` count as equal.
    pub fn agrees_with(&self, others: &[Record], from: i64) -> usize {
        let from = usize::try_from(from.max(self.start)).unwrap_or_default();
        let (Some(ours), Some(theirs)) = (self.records.get(from..), others.get(from..)) else {
            return others.len().min(self.records.len());
        };
        let mut pairs = ours.iter().zip(theirs);
        from + pairs
            .position(|(ours, theirs)| !ours.is(theirs))
            .unwrap_or(ours.len().min(theirs.len()))
    }
}
