//! The write side of a log: every change of the log goes through one [`LogWriter`].
//!
//! `replica` ensures that it has one user at a time. Every change is written first and published
//! afterwards, so readers never see data that does not exist.

mod delete;
mod epoch;
mod follow;
mod producing;
mod roll;
mod trim;
mod truncate;

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use weir_protocol::batch::{self, BatchHeader};
use weir_protocol::types::{LeaderEpoch, TopicPartition};

use super::catalogue::LogCheckpoint;
use super::damage::Damaged;
use super::dir_state::DirState;
use super::epochs::Epochs;
use super::logs::Logs;
use super::producers::{Producers, Verifications};
use super::reader::{LogReader, Tail, Unsynced};
use super::segment::{Segment, SegmentError};
use super::storage::File;
use super::transactions::Transactions;
use super::validate::Prepared;
use super::{AppendError, LogConfig};

pub use follow::FollowError;

/// The unflushed bytes at which the writer requests a flush, whatever `flush.mode` is. They bound
/// what recovery reads of a partition after a crash.
const UNFLUSHED_BYTES_MAX: u64 = 64 << 20;

/// Blocks are allocated ahead in steps of the segment's current size, within these bounds.
const ALLOCATE_BYTES_MIN: u64 = 1 << 20;
const ALLOCATE_BYTES_MAX: u64 = 64 << 20;

/// The active segment.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    file: Arc<dyn File>,
    since_index_bytes: u64,
    allocated_bytes: u64,
    created_ms: i64,
    /// The timestamp of its first batch, if there is one. `segment.ms` counts from it.
    first_timestamp: Option<i64>,
    jitter_ms: i64,
}

/// The result of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendInfo {
    /// The offset of the first record.
    pub first_offset: i64,
    /// The offset of the last record.
    pub last_offset: i64,
    /// The largest timestamp of the batch. With `LogAppendTime`, this is the time of the append.
    pub max_timestamp: i64,
    /// The log start offset at the time of the append.
    pub log_start_offset: i64,
}

/// The writer of one partition's log.
#[derive(Debug)]
pub struct LogWriter {
    dir: Arc<DirState>,
    pub(super) logs: Arc<Logs>,
    reader: Arc<LogReader>,
    config: Arc<LogConfig>,
    active: Option<Active>,
    /// Loaded when a producer first needs it, because most logs have none.
    producers: Option<Box<Producers>>,
    verifications: Verifications,
    unflushed_bytes: u64,
    unflushed_records: i64,
}

/// Returns the epochs of a catalogue entry.
fn epochs_of(log: &LogCheckpoint) -> Epochs {
    let mut epochs = Epochs::default();
    for &(epoch, start) in &log.epochs {
        epochs.assign(LeaderEpoch(epoch), start);
    }
    epochs
}

impl LogWriter {
    /// Creates a log; nothing is on the disk yet.
    pub(super) fn create(
        logs: &Arc<Logs>,
        id: TopicPartition,
        topic: &Arc<str>,
        config: Arc<LogConfig>,
    ) -> Self {
        let known = LogCheckpoint {
            topic: topic.to_string(),
            topic_id: id.topic.0,
            partition: id.index,
            ..LogCheckpoint::default()
        };
        let writer = Self {
            producers: Some(Box::default()),
            ..Self::with_segments(logs, id, topic, config, &known, Vec::new())
        };
        *writer.reader.transactions.write() = Transactions::none(0);
        writer
    }

    /// Opens an existing log. Opens no file.
    pub(super) fn open(
        logs: &Arc<Logs>,
        id: TopicPartition,
        topic: &Arc<str>,
        config: Arc<LogConfig>,
        known: &LogCheckpoint,
    ) -> Self {
        let dir = logs.dir.root().join(format!("{topic}-{}", id.index));
        let segments =
            known.segments.iter().map(|summary| Segment::new(&dir, *summary, None)).collect();
        Self::with_segments(logs, id, topic, config, known, segments)
    }

    fn with_segments(
        logs: &Arc<Logs>,
        id: TopicPartition,
        topic: &Arc<str>,
        config: Arc<LogConfig>,
        known: &LogCheckpoint,
        segments: Vec<Arc<Segment>>,
    ) -> Self {
        let last = segments
            .last()
            .map_or((known.log_end_offset, 0), |last| (last.base_offset(), last.size_bytes()));
        let tail = Tail { offset: known.log_end_offset, segment: last.0, position: last.1 };
        let reader = Arc::new(LogReader {
            dir: Arc::clone(&logs.dir),
            flushes: Arc::clone(&logs.flushes),
            id,
            topic: Arc::clone(topic),
            segments: ArcSwap::from_pointee(segments),
            log_start: AtomicI64::new(known.log_start_offset),
            tail: RwLock::new(tail),
            flushed: RwLock::new(tail),
            checkpointed: AtomicI64::new(known.recovery_point),
            checkpointed_end: AtomicI64::new(known.log_end_offset),
            high_watermark: AtomicI64::new(
                known.high_watermark.clamp(known.log_start_offset, known.log_end_offset),
            ),
            cleaned: AtomicI64::new(known.cleaned_offset),
            epochs: RwLock::new(epochs_of(known)),
            transactions: RwLock::default(),
            distrusts_transaction_index: AtomicBool::new(known.lacks_transaction_index),
            lacks_from: AtomicI64::new(known.lacks_from.unwrap_or(-1)),
            damaged: Damaged::default(),
            unsynced: Unsynced::default(),
            flush_requested: AtomicBool::new(false),
            flush_scheduled: AtomicBool::new(false),
            truncations: AtomicU32::new(0),
            is_deleted: AtomicBool::new(false),
            on_flushed: OnceLock::new(),
        });
        Self {
            dir: Arc::clone(&logs.dir),
            logs: Arc::clone(logs),
            reader,
            config,
            active: None,
            producers: None,
            verifications: Verifications::default(),
            unflushed_bytes: 0,
            unflushed_records: 0,
        }
    }

    /// The read side.
    pub fn reader(&self) -> Arc<LogReader> {
        Arc::clone(&self.reader)
    }

    /// The current settings.
    pub fn config(&self) -> &Arc<LogConfig> {
        &self.config
    }

    /// Replaces the settings.
    pub fn update_config(&mut self, config: Arc<LogConfig>) {
        self.config = config;
    }

    /// Appends `appends` in order and in one write. Assigns offsets and the leader's epoch to each
    /// batch, and returns a result for each. A refused append does not affect the others. If the
    /// write fails, all of them fail and the log directory goes offline.
    pub fn append_as_leader(
        &mut self,
        appends: &mut [Prepared],
        epoch: LeaderEpoch,
        now_ms: i64,
    ) -> Vec<Result<AppendInfo, AppendError>> {
        self.open_newest_segment(now_ms);
        let mut results = Vec::with_capacity(appends.len());
        let mut run = Run { next_offset: self.reader.log_end_offset(), ..Run::default() };
        for index in 0..appends.len() {
            if appends
                .get(index)
                .is_some_and(|append| self.must_roll(&Next::of(append, &run), run.bytes, now_ms))
            {
                self.write_and_roll(&mut run, appends, now_ms);
            }
            if let Some(append) = appends.get_mut(index) {
                results.push(self.admit(append, index, &mut run, epoch, now_ms));
            }
        }
        self.write(&mut run, appends, now_ms);
        let end = self.reader.log_end_offset();
        for result in &mut results {
            // The original of a duplicate may be in this failed write too.
            if result.as_ref().is_ok_and(|info| info.last_offset >= end) {
                *result = Err(AppendError::Storage);
            }
        }
        results
    }

    /// Checks one append against the producers and assigns its offsets.
    fn admit(
        &mut self,
        append: &mut Prepared,
        index: usize,
        run: &mut Run,
        epoch: LeaderEpoch,
        now_ms: i64,
    ) -> Result<AppendInfo, AppendError> {
        if self.dir.is_offline() {
            return Err(AppendError::Storage);
        }
        if !self.has_name() {
            return Err(AppendError::Nameless);
        }
        let log_start_offset = self.reader.log_start_offset();
        if append.headers.iter().any(BatchHeader::has_producer) {
            self.producers(now_ms)?;
            if let Some(duplicate) = self.admit_producer(append)? {
                return Ok(AppendInfo {
                    first_offset: duplicate.first_offset,
                    last_offset: duplicate.last_offset,
                    max_timestamp: duplicate.max_timestamp,
                    log_start_offset,
                });
            }
        }
        let first_offset = run.next_offset;
        let mut max_timestamp = -1;
        let mut position = 0;
        for header in &mut append.headers {
            (header.base_offset, header.leader_epoch) = (run.next_offset, epoch);
            let end = position + header.size_bytes();
            if let Some(batch) = append.bytes.get_mut(position..end) {
                batch::set_offset_and_epoch(batch, run.next_offset, epoch);
            }
            position = end;
            run.next_offset = header.next_offset();
            max_timestamp = header.max_timestamp.max(max_timestamp);
        }
        for (header, batch) in append.batches() {
            self.note_producer(&header, batch, now_ms);
        }
        run.bytes += position as u64;
        run.accepted.push(index);
        Ok(AppendInfo {
            first_offset,
            last_offset: run.next_offset - 1,
            max_timestamp,
            log_start_offset,
        })
    }

    /// Returns the producers; loads them first if necessary.
    fn producers(&mut self, now_ms: i64) -> Result<&mut Producers, AppendError> {
        if self.lacks_producers() {
            self.load_producers(now_ms).map_err(|error| {
                self.dir.fail(format!(
                    "cannot read the producers' state of {}: {error}",
                    self.reader.path().display()
                ));
                AppendError::Storage
            })?;
        }
        self.producers.as_deref_mut().ok_or(AppendError::Storage)
    }

    /// Returns whether the active segment must be sealed before `next`, with `waiting_bytes` still
    /// to be written to it (`LogSegment.shouldRoll`).
    fn must_roll(&self, next: &Next, waiting_bytes: u64, now_ms: i64) -> bool {
        let Some(active) = &self.active else { return false };
        let size = active.segment.size_bytes() + waiting_bytes;
        size > 0
            && (size + next.bytes > u64::from(self.config.segment_bytes)
                || next.last_offset - active.segment.base_offset() > i64::from(i32::MAX)
                || active.segment.index_bytes() + 12 > self.config.index_bytes_max as usize
                || self.is_old(active, next.max_timestamp, now_ms))
    }

    /// Returns whether the active segment is older than `segment.ms`: by the records' timestamps if
    /// they have any, else by the clock.
    fn is_old(&self, active: &Active, timestamp: i64, now_ms: i64) -> bool {
        let waited = match active.first_timestamp {
            Some(first) if timestamp >= 0 => timestamp.saturating_sub(first),
            _ => now_ms - active.created_ms,
        };
        waited > self.config.segment_lives_ms() - active.jitter_ms
    }

    fn write_and_roll(&mut self, run: &mut Run, appends: &[Prepared], now_ms: i64) {
        self.write(run, appends, now_ms);
        if let Err(error) = self.roll(now_ms) {
            self.dir.fail(format!(
                "cannot begin a segment in {}: {error}",
                self.reader.path().display()
            ));
        }
    }

    /// Writes the accepted appends, then publishes them.
    fn write(&mut self, run: &mut Run, appends: &[Prepared], now_ms: i64) {
        let accepted = std::mem::take(&mut run.accepted);
        let bytes = std::mem::take(&mut run.bytes);
        if accepted.is_empty() || self.dir.is_offline() {
            return;
        }
        let accepted = || accepted.iter().filter_map(|&index| appends.get(index));
        let slices: Vec<_> = accepted().map(|append| IoSlice::new(&append.bytes)).collect();
        if let Err(error) = self.write_slices(slices, bytes, now_ms) {
            self.dir.fail(format!("cannot write to {}: {error}", self.reader.path().display()));
            return;
        }
        self.publish(accepted().flat_map(|append| &append.headers), bytes, now_ms);
    }

    fn write_slices(
        &mut self,
        mut slices: Vec<IoSlice<'_>>,
        bytes: u64,
        now_ms: i64,
    ) -> io::Result<()> {
        let allocate_all = self.config.preallocate.then_some(u64::from(self.config.segment_bytes));
        let active = self.active(now_ms)?;
        let position = active.segment.size_bytes();
        let end = position + bytes;
        if end > active.allocated_bytes && (end > ALLOCATE_BYTES_MIN || allocate_all.is_some()) {
            active.allocated_bytes = allocate_all
                .unwrap_or(end + end.clamp(ALLOCATE_BYTES_MIN, ALLOCATE_BYTES_MAX))
                .max(end);
            active.file.allocate(active.allocated_bytes);
        }
        active.file.write_all_at(&mut slices, position)
    }

    /// Publishes the bytes after the published end of the file.
    fn publish<'h>(
        &mut self,
        headers: impl Iterator<Item = &'h BatchHeader>,
        bytes: u64,
        now_ms: i64,
    ) {
        let Some(active) = &mut self.active else { return };
        let mut position = active.segment.size_bytes();
        let from = self.reader.log_end_offset();
        let mut end = from;
        for header in headers {
            active.segment.note_timestamp(header);
            active.first_timestamp.get_or_insert(header.max_timestamp);
            if active.since_index_bytes > u64::from(self.config.index_interval_bytes) {
                active.segment.index(header, position);
                active.since_index_bytes = 0;
            }
            self.reader.note_epoch(header);
            active.since_index_bytes += header.size_bytes() as u64;
            position += header.size_bytes() as u64;
            end = header.next_offset();
        }
        active.segment.appended(bytes, now_ms);
        *self.reader.tail.write() =
            Tail { offset: end, segment: active.segment.base_offset(), position };
        self.ask_for_a_flush_in_time(bytes, end - from);
    }

    /// Requests the flushes of `flush.messages` and `flush.ms`, whatever `flush.mode` is, and the
    /// flush that bounds recovery.
    fn ask_for_a_flush_in_time(&mut self, bytes: u64, records: i64) {
        self.unflushed_bytes += bytes;
        self.unflushed_records += records;
        if self.unflushed_bytes >= UNFLUSHED_BYTES_MAX
            || self.unflushed_records >= self.config.flush_records
        {
            (self.unflushed_bytes, self.unflushed_records) = (0, 0);
            self.reader.request_flush();
        } else if self.config.flush_ms < i64::MAX {
            self.reader.request_flush_within(Duration::from_millis(
                u64::try_from(self.config.flush_ms).unwrap_or(0),
            ));
        }
    }

    /// Writes indexes, producers and transactions from memory. The caller appends nothing
    /// afterwards.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.leave_producers()?;
        if let Some(active) = self.active.take() {
            active.segment.seal(&self.dir.files)?;
        }
        Ok(())
    }
}

/// Accepted appends that are not written yet.
#[derive(Debug, Default)]
struct Run {
    accepted: Vec<usize>,
    bytes: u64,
    next_offset: i64,
}

/// The properties of the next append that decide whether to roll.
struct Next {
    bytes: u64,
    last_offset: i64,
    max_timestamp: i64,
}

impl Next {
    fn of(append: &Prepared, run: &Run) -> Self {
        let records: i64 =
            append.headers.iter().map(|header| i64::from(header.last_offset_delta) + 1).sum();
        Self {
            bytes: append.bytes.len() as u64,
            last_offset: run.next_offset + records,
            max_timestamp: append
                .headers
                .iter()
                .map(|header| header.max_timestamp)
                .max()
                .unwrap_or(-1),
        }
    }
}

fn into_io(error: SegmentError) -> io::Error {
    match error {
        SegmentError::Io(error) => error,
        SegmentError::Corrupt { .. } => {
            io::Error::new(io::ErrorKind::InvalidData, error.to_string())
        }
    }
}
