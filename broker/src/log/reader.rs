//! The reading side of a log: what is published of it, usable from any thread, without a lock that
//! a writer would hold for long.

mod committed;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use weir_protocol::batch::{BatchError, BatchHeader, HEADER_BYTES};
use weir_protocol::types::{LeaderEpoch, TopicPartition};

use super::catalogue::Remembered;
use super::dir_state::DirState;
use super::epochs::{EpochEnd, Epochs};
use super::flush_queue::{FlushQueue, Flushable};
use super::segment::{Segment, SegmentError};
use super::storage::File;
use super::transactions::Transactions;

/// The published part of one partition's log.
pub struct LogReader {
    pub(super) dir: Arc<DirState>,
    /// Where its flushes are asked for.
    pub(super) flushes: Arc<FlushQueue<LogReader>>,
    pub(super) id: TopicPartition,
    pub(super) topic: Arc<str>,
    /// Oldest first. Empty until the first append.
    pub(super) segments: ArcSwap<Vec<Arc<Segment>>>,
    pub(super) log_start: AtomicI64,
    /// Where the log ends, and where that is in the newest segment: published together.
    pub(super) tail: RwLock<Tail>,
    /// As above, for what is on the disk. Everything below has been checked and synced: recovery
    /// begins here.
    pub(super) flushed: RwLock<Tail>,
    /// The recovery point that the catalogue on the disk has.
    pub(super) checkpointed: AtomicI64,
    pub(super) high_watermark: AtomicI64,
    /// Everything before it is compacted.
    pub(super) cleaned: AtomicI64,
    pub(super) epochs: RwLock<Epochs>,
    pub(super) transactions: RwLock<Transactions>,
    /// A file of aborted transactions is not what was written: until the writer has written it anew,
    /// they are not known.
    pub(super) distrusts_transaction_index: AtomicBool,
    /// What a flush must sync besides records.
    pub(super) unsynced: Unsynced,
    pub(super) flush_requested: AtomicBool,
    /// A flush is due at some time, by `flush.ms`.
    pub(super) flush_scheduled: AtomicBool,
    /// How often the log was cut at its end: a flush that ran meanwhile flushed something else.
    pub(super) truncations: AtomicU32,
    /// Its directory has another name, and soon there is none: it is not flushed any more.
    pub(super) is_deleted: AtomicBool,
    pub(super) on_flushed: std::sync::OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// An offset, and where the batch that will have it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) offset: i64,
    /// The base offset of the segment that `position` lies in.
    pub(super) segment: i64,
    pub(super) position: u64,
}

/// What besides records has changed since the last flush.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// Files were made or renamed in the log's directory.
    pub(super) entries: AtomicBool,
    /// The log's directory itself is new.
    pub(super) directory: AtomicBool,
    /// An epoch was added.
    pub(super) epochs: AtomicBool,
}

/// A run of whole batches in a segment. The last one may be cut off by the size that was asked for,
/// as Kafka allows.
#[derive(Clone, Debug)]
pub struct ReadSlice {
    /// The segment's file: readable as long as it is held, also when the segment is deleted
    /// meanwhile.
    pub file: Arc<dyn File>,
    /// Where the first batch begins.
    pub position: u64,
    /// Bytes.
    pub length: usize,
    /// The base offset of the first batch, which may lie before the offset that was asked for.
    pub base_offset: i64,
}

/// A record's place and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// Its timestamp in milliseconds; -1 where the question was not about one.
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
        /// What was asked for.
        asked: i64,
        /// The log start offset.
        start: i64,
        /// The log end offset.
        end: i64,
    },
    /// The bytes on the disk are not what was written.
    #[error("segment {segment} is damaged at byte {position}: {error}")]
    Corrupt {
        /// The segment's base offset.
        segment: i64,
        /// Where.
        position: u64,
        /// What is wrong.
        error: BatchError,
    },
    /// The file system failed.
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

    /// The offset that the next record gets.
    pub fn log_end_offset(&self) -> i64 {
        self.tail.read().offset
    }

    /// Everything before this offset is on the disk.
    pub fn flushed_offset(&self) -> i64 {
        self.flushed.read().offset
    }

    /// Everything before this offset was flushed when the catalogue was last written. Only that may
    /// be compacted: behind it, recovery takes segments that do not join for ones that were never
    /// flushed.
    pub fn checkpointed_offset(&self) -> i64 {
        self.checkpointed.load(Ordering::Acquire)
    }

    /// Where compaction begins next: what lies before it is clean.
    pub fn cleaned_offset(&self) -> i64 {
        self.cleaned.load(Ordering::Acquire)
    }

    /// The offset after the last committed record. Kept here so that it is checkpointed with the
    /// log; what it is, is decided by `replica`.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.load(Ordering::Acquire)
    }

    /// Raises the high watermark; returns whether that changed it.
    pub fn advance_high_watermark(&self, to: i64) -> bool {
        self.high_watermark.fetch_max(to, Ordering::AcqRel) < to
    }

    /// The offset after the last batch in a run that was read, as far as it is whole.
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

    /// The epochs that the disk is to know.
    pub(super) fn epochs_of_records(&self) -> Epochs {
        let epochs = self.epochs.read();
        epochs.with_records(self.log_end_offset())
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_of(&self, offset: i64) -> Option<LeaderEpoch> {
        self.epochs.read().epoch_of(offset)
    }

    /// Where the largest epoch ends that is not after `asked`; `None` when the log knows nothing of
    /// it.
    pub fn end_offset_for_epoch(&self, asked: LeaderEpoch) -> Option<EpochEnd> {
        self.epochs.read().end_of(asked, self.log_start_offset(), self.log_end_offset())
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.segments.load().iter().map(|segment| segment.size_bytes()).sum()
    }

    /// Whether the log directory is offline: nothing more is written.
    pub fn is_offline(&self) -> bool {
        self.dir.is_offline()
    }

    /// Whether the log was deleted: it is not flushed any more, and nothing may be done to it.
    pub fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Acquire)
    }

    /// The directory that the segments lie in. It is made with the first append.
    pub fn path(&self) -> PathBuf {
        self.dir.root().join(format!("{}-{}", self.topic, self.id.index))
    }

    /// What the catalogue remembers of it; nothing of a log that has never been written to.
    pub(super) fn remember(&self) -> Option<Remembered> {
        // The recovery point is read before the segments: what they hold beyond it is looked at
        // again, what they lack cannot be.
        let recovery_point = self.flushed_offset();
        let segments: Vec<_> =
            self.segments.load().iter().map(|segment| segment.summary()).collect();
        let epochs = self
            .epochs_of_records()
            .entries()
            .iter()
            .map(|entry| (entry.epoch.0, entry.start_offset))
            .collect();
        (!segments.is_empty()).then(|| Remembered {
            topic: self.topic.to_string(),
            topic_id: self.id.topic.0,
            partition: self.id.index,
            log_start_offset: self.log_start_offset(),
            log_end_offset: self.log_end_offset(),
            high_watermark: self.high_watermark(),
            cleaned_offset: self.cleaned_offset(),
            recovery_point,
            segments,
            epochs,
        })
    }

    /// Asks for a flush; several requests make one. What is to be told when one is done is said
    /// once, by [`LogReader::notify_flushed`].
    pub fn request_flush(self: &Arc<Self>) {
        if !self.flush_requested.swap(true, Ordering::AcqRel) {
            self.flushes.push(Arc::clone(self));
        }
    }

    /// Asks for a flush by then at the latest; what is asked while one is due already does not put
    /// it off.
    pub(super) fn request_flush_within(self: &Arc<Self>, time: Duration) {
        if !self.flush_scheduled.swap(true, Ordering::AcqRel) {
            self.flushes.push_later(Arc::clone(self), time);
        }
    }

    /// Sets what is called after each flush, from the flusher's thread, and when the log directory
    /// goes offline. The first call counts.
    pub fn notify_flushed(&self, hook: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_flushed.set(Box::new(hook));
    }

    /// Whole batches from the one that holds `from`, up to `bound`, at most `bytes_max` of them;
    /// `None` when there are none. The first batch may be larger than `bytes_max` if there is to be
    /// `at_least_one`. Never reaches over the end of a segment.
    ///
    /// # Errors
    /// When `from` lies outside of the log, or the file cannot be read.
    pub fn read(
        &self,
        from: i64,
        bound: i64,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Option<ReadSlice>, ReadError> {
        self.undisturbed(|| self.read_once(from, bound, bytes_max, at_least_one))
    }

    /// What `look` finds in the log, once nothing was cut, deleted or compacted under it: what
    /// looks like damage then is none.
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
            // A segment that compaction has emptied from here on is passed over.
            let Some(located) = segment
                .find(&self.dir.files, from, limit)
                .map_err(|error| ReadError::of(segment, error))?
            else {
                continue;
            };
            let size = located.header.size_bytes();
            if size > bytes_max && !at_least_one {
                return Ok(None);
            }
            let available = usize::try_from(limit - located.position).unwrap_or(usize::MAX);
            return Ok(Some(ReadSlice {
                file: segment.open(&self.dir.files)?,
                position: located.position,
                length: available.min(bytes_max.max(size)),
                base_offset: located.header.base_offset,
            }));
        }
        Ok(None)
    }

    /// Where the batch that begins with `offset` begins in `segment`, or would begin.
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
