//! The read side of a log: its published part. Any thread may use it, and no writer holds a lock on
//! it for long.

mod committed;
mod damaged;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use weir_protocol::batch::{BatchError, BatchHeader, HEADER_BYTES};
use weir_protocol::types::{LeaderEpoch, TopicPartition};

use super::catalogue::LogCheckpoint;
use super::damage::Damaged;
use super::dir_state::DirState;
use super::epochs::{EpochEnd, Epochs};
use super::flush_queue::{FlushQueue, Flushable};
use super::segment::{Segment, SegmentError};
use super::storage::File;
use super::transactions::Transactions;

/// The published part of one partition's log.
pub struct LogReader {
    pub(super) dir: Arc<DirState>,
    /// The queue that takes its flush requests.
    pub(super) flushes: Arc<FlushQueue<LogReader>>,
    pub(super) id: TopicPartition,
    pub(super) topic: Arc<str>,
    /// Oldest first. Empty until the first append.
    pub(super) segments: ArcSwap<Vec<Arc<Segment>>>,
    pub(super) log_start: AtomicI64,
    /// The log end offset and its position in the newest segment, published together.
    pub(super) tail: RwLock<Tail>,
    /// The same for the flushed part. Everything before it has been checked and synced, so recovery
    /// begins here.
    pub(super) flushed: RwLock<Tail>,
    /// The recovery point in the catalogue on the disk.
    pub(super) checkpointed: AtomicI64,
    /// The log end offset in the catalogue on the disk.
    pub(super) checkpointed_end: AtomicI64,
    pub(super) high_watermark: AtomicI64,
    /// The log is compacted before this offset.
    pub(super) cleaned: AtomicI64,
    pub(super) epochs: RwLock<Epochs>,
    pub(super) transactions: RwLock<Transactions>,
    /// A file of aborted transactions was found damaged. They are unknown until the writer has
    /// rewritten the files.
    pub(super) distrusts_transaction_index: AtomicBool,
    /// Where records are missing that were at the end of the log; -1 if none are. The log goes on
    /// behind them, unless it follows a leader that has them.
    pub(super) lacks_from: AtomicI64,
    /// The damage that reads have met.
    pub(super) damaged: Damaged,
    /// What a flush must sync besides the records.
    pub(super) unsynced: Unsynced,
    pub(super) flush_requested: AtomicBool,
    /// A flush is scheduled by `flush.ms`.
    pub(super) flush_scheduled: AtomicBool,
    /// How often the log was truncated at its end. A flush that ran meanwhile flushed other
    /// records.
    pub(super) truncations: AtomicU32,
    /// Its directory was renamed and will be removed. It is not flushed any more.
    pub(super) is_deleted: AtomicBool,
    pub(super) on_flushed: std::sync::OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// An offset, and the position at which its batch begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) offset: i64,
    /// The base offset of the segment that contains `position`.
    pub(super) segment: i64,
    pub(super) position: u64,
}

/// The changes since the last flush, besides records.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// Files were created or renamed in the log's directory.
    pub(super) entries: AtomicBool,
    /// The log's directory itself is new.
    pub(super) directory: AtomicBool,
    /// An epoch was added.
    pub(super) epochs: AtomicBool,
}

/// A run of whole batches in a segment. As Kafka allows, the requested size may cut off the last
/// one.
#[derive(Clone, Debug)]
pub struct ReadSlice {
    /// The segment's file. It stays readable while it is held, even if the segment is deleted
    /// meanwhile.
    pub file: Arc<dyn File>,
    /// The position of the first batch.
    pub position: u64,
    /// The length in bytes.
    pub length: usize,
    /// The base offset of the first batch, which may be before the requested offset.
    pub base_offset: i64,
}

/// The offset and the time of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// Its timestamp in milliseconds; -1 if the lookup was not by timestamp.
    pub timestamp: i64,
    /// Its offset.
    pub offset: i64,
    /// The epoch in which it was appended.
    pub leader_epoch: LeaderEpoch,
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is before the log start offset or after the log end offset.
    #[error("offset {asked} is not within {start}..={end}")]
    OutOfRange {
        /// The requested offset.
        asked: i64,
        /// The log start offset.
        start: i64,
        /// The log end offset.
        end: i64,
    },
    /// The bytes on the disk are no valid batch, or fewer than there were.
    #[error("segment {segment} is damaged at byte {position}: {error}")]
    Corrupt {
        /// The segment's base offset.
        segment: i64,
        /// The position in bytes.
        position: u64,
        /// The error of the batch.
        error: BatchError,
    },
    /// An I/O error.
    #[error("cannot read the log: {0}")]
    Storage(#[from] io::Error),
}

impl ReadError {
    pub(super) fn of(segment: &Segment, error: SegmentError) -> Self {
        match error {
            SegmentError::Io(error) => Self::Storage(error),
            SegmentError::Corrupt { position, error } => {
                Self::Corrupt { segment: segment.base_offset(), position, error }
            }
        }
    }
}

impl LogReader {
    /// The partition.
    pub fn id(&self) -> TopicPartition {
        self.id
    }

    /// The topic's name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The first offset that can be read.
    pub fn log_start_offset(&self) -> i64 {
        self.log_start.load(Ordering::Acquire)
    }

    /// The offset of the next record.
    pub fn log_end_offset(&self) -> i64 {
        self.tail.read().offset
    }

    /// Everything before this offset is flushed.
    pub fn flushed_offset(&self) -> i64 {
        self.flushed.read().offset
    }

    /// Everything before this offset was flushed when the catalogue was last written. Only that
    /// part may be compacted. After it, recovery takes a gap between segments for a segment that
    /// was never flushed.
    pub fn checkpointed_offset(&self) -> i64 {
        self.checkpointed.load(Ordering::Acquire)
    }

    /// The log is compacted before this offset; the next compaction begins here.
    pub fn cleaned_offset(&self) -> i64 {
        self.cleaned.load(Ordering::Acquire)
    }

    /// The offset after the last committed record. `replica` decides it; the log keeps it for the
    /// checkpoint.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.load(Ordering::Acquire)
    }

    /// Raises the high watermark. Returns whether it changed.
    pub fn advance_high_watermark(&self, to: i64) -> bool {
        self.high_watermark.fetch_max(to, Ordering::AcqRel) < to
    }

    /// Returns the offset after the last batch in a slice, as far as its headers are whole.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn end_of(&self, slice: &ReadSlice) -> io::Result<i64> {
        let mut end = slice.base_offset;
        let mut position = slice.position;
        let limit = slice.position + slice.length as u64;
        let mut bytes = [0; HEADER_BYTES];
        while position + HEADER_BYTES as u64 <= limit {
            slice.file.read_exact_at(&mut bytes, position)?;
            let Ok(header) = BatchHeader::parse(&bytes) else { break };
            end = header.next_offset();
            position += header.size_bytes() as u64;
        }
        Ok(end)
    }

    /// The newest epoch in the log.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.read().latest()
    }

    /// The epochs to write to the disk.
    pub(super) fn epochs_of_records(&self) -> Epochs {
        let epochs = self.epochs.read();
        epochs.with_records(self.log_end_offset())
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_of(&self, offset: i64) -> Option<LeaderEpoch> {
        self.epochs.read().epoch_of(offset)
    }

    /// Returns the end of the largest epoch that is at most `asked`; `None` when the log does not
    /// know it.
    pub fn end_offset_for_epoch(&self, asked: LeaderEpoch) -> Option<EpochEnd> {
        self.epochs.read().end_of(asked, self.log_start_offset(), self.log_end_offset())
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.segments.load().iter().map(|segment| segment.size_bytes()).sum()
    }

    /// Returns whether the log directory is offline, so that nothing is written any more.
    pub fn is_offline(&self) -> bool {
        self.dir.is_offline()
    }

    /// Returns whether the log was deleted. It is then not flushed any more, and nothing may be
    /// done to it.
    pub fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Acquire)
    }

    /// The directory of the segments. The first append creates it.
    pub fn path(&self) -> PathBuf {
        self.dir.root().join(format!("{}-{}", self.topic, self.id.index))
    }

    /// The log's entry for the catalogue; `None` if nothing was ever appended.
    pub(super) fn remember(&self) -> Option<LogCheckpoint> {
        // The recovery point is read before the segments. Recovery can check segments beyond it,
        // but it cannot restore segments that are missing from the entry.
        let recovery_point = self.flushed_offset();
        let segments: Vec<_> =
            self.segments.load().iter().map(|segment| segment.summary()).collect();
        let epochs = self
            .epochs_of_records()
            .entries()
            .iter()
            .map(|entry| (entry.epoch.0, entry.start_offset))
            .collect();
        (!segments.is_empty()).then(|| LogCheckpoint {
            topic: self.topic.to_string(),
            topic_id: self.id.topic.0,
            partition: self.id.index,
            log_start_offset: self.log_start_offset(),
            log_end_offset: self.log_end_offset(),
            high_watermark: self.high_watermark(),
            cleaned_offset: self.cleaned_offset(),
            recovery_point,
            lacks_from: Some(self.lacks_from.load(Ordering::Acquire)).filter(|from| *from >= 0),
            lacks_transaction_index: self.distrusts_transaction_index(),
            segments,
            epochs,
        })
    }

    /// Requests a flush; several requests share one. [`LogReader::notify_flushed`] sets the hook
    /// that reports its end.
    pub fn request_flush(self: &Arc<Self>) {
        if !self.flush_requested.swap(true, Ordering::AcqRel) {
            self.flushes.push(Arc::clone(self));
        }
    }

    /// Requests a flush within `time`. A request while one is scheduled does not postpone it.
    pub(super) fn request_flush_within(self: &Arc<Self>, time: Duration) {
        if !self.flush_scheduled.swap(true, Ordering::AcqRel) {
            self.flushes.push_later(Arc::clone(self), time);
        }
    }

    /// Sets the hook that the flusher thread calls after each flush, and when the log directory
    /// goes offline. Only the first call has an effect.
    pub fn notify_flushed(&self, hook: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_flushed.set(Box::new(hook));
    }

    /// Returns whole batches from the one that contains `from` up to `bound`, at most `bytes_max`
    /// bytes; `None` when there are none. With `at_least_one`, the first batch may be larger than
    /// `bytes_max`. A slice never crosses the end of a segment.
    ///
    /// # Errors
    /// When `from` is outside the log, or the file cannot be read.
    pub fn read(
        &self,
        from: i64,
        bound: i64,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Option<ReadSlice>, ReadError> {
        let read = self.undisturbed(|| self.read_once(from, bound, bytes_max, at_least_one));
        read.inspect_err(|error| self.tell_of_damage(from, error))
    }

    /// Runs `look`, and repeats it if it fails while the log is truncated, deleted or compacted:
    /// what looks like damage may then be none.
    pub(super) fn undisturbed<T>(
        &self,
        look: impl Fn() -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        loop {
            let (truncations, segments) =
                (self.truncations.load(Ordering::Acquire), self.segments.load_full());
            let is_same = || {
                self.truncations.load(Ordering::Acquire) == truncations
                    && Arc::ptr_eq(&segments, &self.segments.load_full())
            };
            match look() {
                Err(ReadError::Corrupt { .. } | ReadError::Storage(_)) if !is_same() => {}
                result => return result,
            }
        }
    }

    fn read_once(
        &self,
        from: i64,
        bound: i64,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Option<ReadSlice>, ReadError> {
        let (start, tail) = (self.log_start_offset(), *self.tail.read());
        if from < start || from > tail.offset {
            return Err(ReadError::OutOfRange { asked: from, start, end: tail.offset });
        }
        let bound = bound.min(tail.offset);
        if from >= bound || (bytes_max == 0 && !at_least_one) {
            return Ok(None);
        }
        let segments = self.segments.load();
        let first =
            segments.partition_point(|segment| segment.base_offset() <= from).saturating_sub(1);
        for (index, segment) in segments.iter().enumerate().skip(first) {
            if segment.base_offset() >= bound {
                break;
            }
            let sealed = segments.get(index + 1).is_some_and(|next| next.base_offset() <= bound);
            let limit = if sealed {
                segment.size_bytes()
            } else {
                self.position_of(segment, bound, tail)
                    .map_err(|error| ReadError::of(segment, error))?
            };
            // Skips a segment that compaction has emptied from here on.
            let Some(located) = segment
                .find(&self.dir.files, from, limit)
                .map_err(|error| ReadError::of(segment, error))?
            else {
                continue;
            };
            let segment_end =
                segments.get(index + 1).map_or(tail.offset, |next| next.base_offset());
            if located.header.next_offset() > segment_end {
                return Err(ReadError::Corrupt {
                    segment: segment.base_offset(),
                    position: located.position,
                    error: BatchError::Invalid("its offsets are beyond the end of the log"),
                });
            }
            let size = located.header.size_bytes();
            if size > bytes_max && !at_least_one {
                return Ok(None);
            }
            let file = segment.open(&self.dir.files)?;
            // What is not there cannot be sent, and would end the connection in the middle of an
            // answer.
            let limit = limit.min(segment.bytes_there(file.as_ref())?);
            let available =
                usize::try_from(limit.saturating_sub(located.position)).unwrap_or(usize::MAX);
            if available < size {
                return Err(ReadError::Corrupt {
                    segment: segment.base_offset(),
                    position: located.position,
                    error: BatchError::Incomplete { needed: size, available },
                });
            }
            return Ok(Some(ReadSlice {
                file,
                position: located.position,
                length: available.min(bytes_max.max(size)),
                base_offset: located.header.base_offset,
            }));
        }
        Ok(None)
    }

    /// Returns the position in `segment` at which the batch with `offset` begins, or would begin.
    fn position_of(&self, segment: &Segment, offset: i64, tail: Tail) -> Result<u64, SegmentError> {
        for known in [tail, *self.flushed.read()] {
            if known.offset == offset && known.segment == segment.base_offset() {
                return Ok(known.position);
            }
        }
        Ok(segment
            .find(&self.dir.files, offset, segment.size_bytes())?
            .map_or(segment.size_bytes(), |located| located.position))
    }
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let offsets = (self.log_start_offset(), self.high_watermark(), self.log_end_offset());
        f.debug_struct("LogReader")
            .field("topic", &self.topic)
            .field("id", &self.id)
            .field("offsets", &offsets)
            .finish()
    }
}

impl Flushable for LogReader {
    fn id(&self) -> TopicPartition {
        self.id
    }

    fn is_due(&self) -> bool {
        self.flush_scheduled.store(false, Ordering::Release);
        self.flushed_offset() < self.log_end_offset()
            && !self.flush_requested.swap(true, Ordering::AcqRel)
    }
}
