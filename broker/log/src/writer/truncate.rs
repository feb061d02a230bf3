//! Truncation of a follower's log: at its end, where it diverged from the leader's, or of all of it
//! if the two have nothing in common.
//!
//! Each function returns after its truncation is durable. So recovery never finds a later append
//! beside removed records. Before it removes the first byte, it makes sure that the catalogue on
//! the disk counts nothing after the cut as flushed. If the broker crashes in between, the log ends
//! at or after the cut, and recovery does not take it for damaged.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{debug, info};

use super::super::directories::{Change, dir_name};
use super::super::epochs::Epochs;
use super::super::index::Indexes;
use super::super::reader::Tail;
use super::super::segment::{Segment, SegmentError, SegmentSummary};
use super::super::storage::Mode;
use super::super::{flusher, snapshots};
use super::{LogWriter, into_io};

/// The files of a segment, and those that its records can rebuild. The entries of a `.txnindex`
/// after a cut are not used, because no snapshot vouches for them. The records go last: a start
/// takes a segment that has other files and no records for one that somebody removed.
const FILES: &[&str] = &["index", "timeindex", "txnindex", "snapshot", "log"];
const DERIVED: &[&str] = &["index", "timeindex", "snapshot"];

impl LogWriter {
    /// Truncates the log to `offset` at most. A batch that spans the offset is removed as a whole.
    /// Returns the log end offset.
    ///
    /// The high watermark and the log start offset are lowered with the end. As in Kafka, a reader
    /// of removed records finds a wrong checksum.
    ///
    /// # Errors
    /// When the files cannot be read or written; the log directory is then offline.
    pub fn truncate_to(&mut self, offset: i64) -> io::Result<i64> {
        if self.reader.is_deleted() {
            return Err(io::Error::other("the log is deleted"));
        }
        if offset >= self.reader.log_end_offset() {
            let result = self.forget_epoch_without_records().map(|()| self.reader.log_end_offset());
            return self.vouch(result);
        }
        let segments = self.reader.segments.load_full();
        let kept = segments.partition_point(|segment| segment.base_offset() < offset);
        let (before, gone) = segments.split_at(kept);
        let Some((cut, before)) = before.split_last() else {
            return self.truncate_fully_and_start_at(offset);
        };
        let flushes = Arc::clone(&self.reader.flushes);
        let _turn = flushes.turn();
        if self.dir.is_offline() {
            return Err(io::Error::other("the log directory is offline"));
        }
        let result = self.cut(before, cut, gone, offset);
        self.vouch(result)
    }

    /// Truncates the log to where records are missing, if some are missing at what was its end. A
    /// follower that is not in sync gets them again from its leader. Behind them it would never ask
    /// for them.
    ///
    /// # Errors
    /// The same as [`LogWriter::truncate_to`].
    pub fn cut_missing(&mut self) -> io::Result<()> {
        let from = self.reader.lacks_from.swap(-1, Ordering::AcqRel);
        let there = self.reader.log_start_offset()..self.reader.log_end_offset();
        if there.contains(&from) {
            let end_offset = self.truncate_to(from)?;
            info!(topic = %self.reader.topic, partition = self.reader.id.index, end_offset, "cut the log to where records are missing, to get them from the leader");
        }
        Ok(())
    }

    /// Goes on behind missing records, because no leader has them.
    pub fn accept_missing(&self) {
        self.reader.lacks_from.store(-1, Ordering::Release);
    }

    /// Removes the whole log, which continues, empty, at `offset`
    /// (`LocalLog.truncateFullyAndStartAt`). Returns that offset.
    ///
    /// # Errors
    /// The same as [`LogWriter::truncate_to`].
    pub fn truncate_fully_and_start_at(&mut self, offset: i64) -> io::Result<i64> {
        if !self.has_name() {
            return Err(io::Error::other(
                "the log is deleted, or one that is being deleted still has its name",
            ));
        }
        let flushes = Arc::clone(&self.reader.flushes);
        let _turn = flushes.turn();
        if self.dir.is_offline() {
            return Err(io::Error::other("the log directory is offline"));
        }
        let result = self.start_anew(offset);
        self.vouch(result)
    }

    /// Takes the log directory offline after a failed truncation.
    fn vouch(&self, result: io::Result<i64>) -> io::Result<i64> {
        match &result {
            Err(error) => {
                self.dir.fail(format!("cannot truncate {}: {error}", self.reader.path().display()))
            }
            Ok(end_offset) => {
                debug!(topic = %self.reader.topic, partition = self.reader.id.index, end_offset, "truncated")
            }
        }
        result
    }

    fn cut(
        &mut self,
        before: &[Arc<Segment>],
        cut: &Arc<Segment>,
        gone: &[Arc<Segment>],
        offset: i64,
    ) -> io::Result<i64> {
        let (shorter, end) = self.copy_up_to(cut, offset)?;
        let mut segments = before.to_vec();
        segments.push(Arc::clone(&shorter));
        self.forget_producers();
        let changed =
            self.publish_cut(segments, end, &shorter, |epochs| epochs.truncate_from_end(end));
        let reader = &self.reader;
        reader.log_start.fetch_min(end, Ordering::AcqRel);
        reader.high_watermark.fetch_min(end, Ordering::AcqRel);

        if reader.latest_epoch().is_some() {
            self.logs.lower_recovery_point(reader, end)?;
        } else {
            // No epoch is left whose start offset says where the log begins. Only the catalogue
            // does.
            self.logs.write_catalogue()?;
        }
        if !gone.is_empty() {
            self.newest_is(&shorter);
        }
        let storage = self.dir.storage();
        if changed {
            // Without this write, recovery after a crash would assign the removed epochs to records
            // that are appended after the cut.
            flusher::write_epochs(storage, reader)?;
        }
        self.remove_snapshots_beyond(end)?;
        for segment in gone.iter().rev() {
            self.remove_files(segment, FILES)?;
        }
        self.remove_files(cut, DERIVED)?;
        storage.sync_dir(&reader.path())?;
        let file = shorter.open(&self.dir.files)?;
        file.truncate(shorter.size_bytes())?;
        file.sync_data()?;
        Ok(end)
    }

    fn start_anew(&mut self, offset: i64) -> io::Result<i64> {
        let reader = Arc::clone(&self.reader);
        let old = reader.segments.load_full();
        let fresh = Segment::new(
            &reader.path(),
            SegmentSummary::empty(offset, 0),
            Some(Indexes::default()),
        );
        // A log without any append has nothing on the disk yet.
        let segments = if old.is_empty() { Vec::new() } else { vec![Arc::clone(&fresh)] };
        self.begin_without_producers(offset);
        reader.cleaned.store(0, Ordering::Release);
        reader.lacks_from.store(-1, Ordering::Release);
        self.publish_cut(segments, offset, &fresh, |epochs| {
            std::mem::take(epochs) != Epochs::default()
        });
        reader.log_start.store(offset, Ordering::Release);
        reader.high_watermark.store(offset, Ordering::Release);
        if old.is_empty() {
            // After a crash, only the name of a segment file tells the offset, and this replica may
            // be the only one left.
            self.active(0)?;
            self.active = None;
        }
        self.logs.write_catalogue()?;
        let storage = self.dir.storage();
        self.remove_snapshots_beyond(-1)?;
        let (before, behind) =
            old.split_at(old.partition_point(|segment| segment.base_offset() <= offset));
        if !old.is_empty() {
            self.newest_is(before.last().unwrap_or(&fresh));
        }
        // Segments after the new end go first, and durably. A gap in the middle of what a crash
        // brings back would count as damage.
        for segment in behind.iter().rev() {
            self.remove_files(segment, FILES)?;
        }
        // The new segment is there, durably, before those in front of it go. Otherwise a start
        // after a crash takes it for one that somebody removed.
        if !old.is_empty() {
            self.dir.files.get(fresh.records(), Mode::Create)?;
            storage.sync_dir(&reader.path())?;
            self.newest_is(&fresh);
        }
        for segment in before.iter().rev() {
            let is_taken = segment.base_offset() == offset;
            self.remove_files(segment, if is_taken { DERIVED } else { FILES })?;
        }
        flusher::write_epochs(storage, &reader)?;
        let file = self.dir.files.get(fresh.records(), Mode::Create)?;
        file.truncate(0)?;
        file.sync_data()?;
        storage.sync_dir(&reader.path())?;
        if reader.unsynced.directory.swap(false, Ordering::AcqRel) {
            flusher::sync_metadata(storage, &reader)?;
            storage.sync_dir(self.dir.root())?;
        }
        *reader.flushed.write() = *reader.tail.read();
        Ok(offset)
    }

    /// Removes, durably, the producer snapshots beyond the cut before any file that they vouch for.
    /// A crash may bring back some of the removed files: a segment and a snapshot, but not the
    /// `.txnindex` file between them.
    fn remove_snapshots_beyond(&self, end: i64) -> io::Result<()> {
        let (storage, dir) = (self.dir.storage(), self.reader.path());
        snapshots::remove_beyond(storage, &dir, end)?;
        storage.sync_dir(&dir)
    }

    /// Publishes `end` and `last` as the end of the log, and counts nothing after them as flushed.
    /// Returns whether the epochs changed.
    fn publish_cut(
        &mut self,
        segments: Vec<Arc<Segment>>,
        end: i64,
        last: &Segment,
        epochs: impl FnOnce(&mut Epochs) -> bool,
    ) -> bool {
        self.active = None;
        (self.unflushed_bytes, self.unflushed_records) = (0, 0);
        let tail = Tail { offset: end, segment: last.base_offset(), position: last.size_bytes() };
        let reader = &self.reader;
        *reader.tail.write() = tail;
        reader.truncations.fetch_add(1, Ordering::AcqRel);
        if reader.lacks_from.load(Ordering::Acquire) >= end {
            reader.lacks_from.store(-1, Ordering::Release);
        }
        // Compaction has not cleaned the records that are appended after the cut.
        reader.cleaned.fetch_min(end, Ordering::AcqRel);
        let mut flushed = reader.flushed.write();
        if flushed.offset >= end {
            *flushed = tail;
        }
        drop(flushed);
        reader.segments.store(Arc::new(segments));
        epochs(&mut reader.epochs.write())
    }

    /// Notes which segment is the newest, before those behind it are removed.
    fn newest_is(&self, segment: &Segment) {
        let name = dir_name(&self.reader.topic, self.reader.id.index);
        self.logs.directory_changes(&name, Change::Newest(segment.base_offset()));
    }

    /// Copies a segment's state up to the batch that contains `offset` into a new segment of the
    /// same file. Also returns where it ends. Reads all of that part once, because only this finds
    /// the batch with the largest timestamp.
    fn copy_up_to(&self, segment: &Segment, offset: i64) -> io::Result<(Arc<Segment>, i64)> {
        let (files, interval) = (&self.dir.files, u64::from(self.config.index_interval_bytes));
        let summary = SegmentSummary::empty(segment.base_offset(), segment.summary().modified_ms);
        let shorter = Segment::new(&self.reader.path(), summary, Some(Indexes::default()));
        let (mut since, mut end, mut size) = (interval + 1, segment.base_offset(), 0);
        for located in segment.scan(files, 0, segment.size_bytes()).map_err(into_io)? {
            let located = match located {
                Ok(located) => located,
                // The rest is damaged: the log is cut there, and fetches it again from the leader.
                Err(SegmentError::Corrupt { .. }) => break,
                Err(error) => return Err(into_io(error)),
            };
            if located.header.last_offset() >= offset {
                break;
            }
            shorter.note_timestamp(&located.header);
            if since > interval {
                shorter.index(&located.header, located.position);
                since = 0;
            }
            since += located.header.size_bytes() as u64;
            (end, size) = (
                located.header.next_offset(),
                located.position + located.header.size_bytes() as u64,
            );
        }
        shorter.appended(size, summary.modified_ms);
        Ok((shorter, end))
    }

    fn remove_files(&self, segment: &Segment, extensions: &[&str]) -> io::Result<()> {
        for extension in extensions {
            match self.dir.storage().remove_file(&segment.path(extension)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
