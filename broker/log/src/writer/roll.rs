//! The active segment: opened again after a start, begun, and sealed when the next one begins.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{debug, error, info};

use super::super::directories::{Change, dir_name};
use super::super::index::Indexes;
use super::super::partition_dir;
use super::super::reader::Tail;
use super::super::segment::{Segment, SegmentError, SegmentSummary};
use super::super::storage::{File, Mode, put_in_place, stage_file};
use super::{Active, LogWriter};

impl LogWriter {
    /// Returns whether the log may be written. A deleted log may not. A log without a directory may
    /// not while a log that is to be deleted still has the name. That log's writer is still
    /// working, and the deletion waits for it.
    pub fn has_name(&self) -> bool {
        if self.reader.is_deleted() {
            return false;
        }
        let has_name = !self.reader.segments.load().is_empty() || self.logs.take_name(&self.reader);
        if !has_name {
            info!(topic = %self.reader.topic, partition = self.reader.id.index, "a log that is being deleted still has this one's name; nothing is appended until it is gone");
        }
        has_name
    }

    /// Returns the active segment: the newest one, or a new one if there is none.
    pub(super) fn active(&mut self, now_ms: i64) -> io::Result<&mut Active> {
        if self.active.is_none() {
            let newest = self.reader.segments.load().last().cloned();
            let taken_up = newest.map(|segment| self.reopen(segment, now_ms)).transpose();
            self.active = Some(match taken_up {
                Ok(Some(active)) => active,
                Ok(None) => self.begin(now_ms)?,
                Err(SegmentError::Corrupt { position, error }) => {
                    error!(topic = %self.reader.topic, partition = self.reader.id.index, log = %self.reader.path().display(), position, %error, "the newest segment is damaged, and cannot be appended to: the log goes on in a new one");
                    self.begin_next(now_ms)?
                }
                // Somebody has removed it. That concerns this log alone.
                Err(SegmentError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    error!(topic = %self.reader.topic, partition = self.reader.id.index, log = %self.reader.path().display(), "the file of the newest segment is gone: the log goes on in a new one");
                    self.begin_instead(now_ms)?
                }
                Err(SegmentError::Io(error)) => return Err(error),
            });
        }
        self.active.as_mut().ok_or_else(|| io::Error::other("there is no segment to write to"))
    }

    /// Opens the newest segment before any append is admitted. If it is damaged, a new segment
    /// begins with a producer snapshot, which must not contain batches that are not in the log. A
    /// failure takes the log directory offline.
    pub(super) fn open_newest_segment(&mut self, now_ms: i64) {
        let reader = &self.reader;
        if self.active.is_none()
            && !(self.dir.is_offline() || reader.is_deleted() || reader.segments.load().is_empty())
            && let Err(error) = self.active(now_ms).map(|_| ())
        {
            self.dir.fail(format!("cannot write to {}: {error}", self.reader.path().display()));
        }
    }

    fn reopen(&self, segment: Arc<Segment>, now_ms: i64) -> Result<Active, SegmentError> {
        let files = &self.dir.files;
        segment.unseal(files, self.config.index_interval_bytes)?;
        let first = segment.scan(files, 0, segment.size_bytes())?.next().transpose()?;
        let file = segment.open(files)?;
        Ok(self.activate(segment, file, first.map(|located| located.header.max_timestamp), now_ms))
    }

    /// Begins a new segment at the end of the log. The first one also creates the directory.
    fn begin(&self, now_ms: i64) -> io::Result<Active> {
        let reader = &self.reader;
        let (dir, base) = (reader.path(), reader.log_end_offset());
        let storage = self.dir.storage();
        let is_first = reader.segments.load().is_empty();
        if is_first {
            partition_dir::set_aside_unknown(storage, &dir, &reader.topic, reader.id.index)?;
            storage.create_dir(&dir)?;
            // Synced with the first flush. Before that, no flushed record needs it.
            let metadata = dir.join(partition_dir::PARTITION_METADATA);
            stage_file(storage, &metadata, partition_dir::metadata_text(reader.id).as_bytes())?;
            put_in_place(storage, &metadata)?;
            reader.unsynced.directory.store(true, Ordering::Release);
        }
        let segment =
            Segment::new(&dir, SegmentSummary::empty(base, now_ms), Some(Indexes::default()));
        let file = self.dir.files.get(segment.records(), Mode::Create)?;
        // An existing file of that name can only be a remnant after the log's end, from an earlier
        // crash.
        file.truncate(0)?;
        // Noted when they are there and before a record is in them: a kill in between is no loss.
        let name = dir_name(&reader.topic, reader.id.index);
        if is_first {
            self.logs.directory_changes(&name, Change::Came(reader.id.topic.0));
        }
        self.logs.directory_changes(&name, Change::Newest(base));
        reader.unsynced.entries.store(true, Ordering::Release);
        let mut segments = reader.segments.load().as_ref().clone();
        segments.push(Arc::clone(&segment));
        reader.segments.store(Arc::new(segments));
        *reader.tail.write() = Tail { offset: base, segment: base, position: 0 };
        Ok(self.activate(segment, file, None, now_ms))
    }

    fn activate(
        &self,
        segment: Arc<Segment>,
        file: Arc<dyn File>,
        first_timestamp: Option<i64>,
        now_ms: i64,
    ) -> Active {
        // At most as long as the segment lives (`LogConfig.randomSegmentJitter`): otherwise each
        // batch would begin another one.
        let jitter_ms = match self.config.segment_jitter_ms.min(self.config.segment_lives_ms()) {
            // Any number works that differs between partitions and stays the same for one.
            jitter @ 1.. => {
                i64::from(crc32c::crc32c(self.reader.path().as_os_str().as_encoded_bytes()))
                    % jitter
            }
            _ => 0,
        };
        Active {
            segment,
            file,
            // The first batch gets an entry, so only an empty segment has an empty index.
            since_index_bytes: u64::MAX,
            allocated_bytes: 0,
            created_ms: now_ms,
            first_timestamp,
            jitter_ms,
        }
    }

    /// Seals the active segment and begins the next one. Does nothing if the active segment is
    /// empty.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn roll(&mut self, now_ms: i64) -> io::Result<()> {
        if self.active(now_ms)?.segment.size_bytes() == 0 {
            return Ok(());
        }
        if let Some(active) = self.active.take() {
            active.segment.seal(&self.dir.files)?;
        }
        self.active = Some(self.begin_next(now_ms)?);
        // The sealed segment is flushed in the background, whatever `flush.mode` is.
        self.reader.request_flush();
        debug!(topic = %self.reader.topic, partition = self.reader.id.index, base_offset = self.reader.log_end_offset(), "began a segment");
        Ok(())
    }

    /// Begins a segment after the existing ones, and writes the producers for a later load from
    /// there.
    fn begin_next(&mut self, now_ms: i64) -> io::Result<Active> {
        // Even if no producer was needed so far. A later load would have to read everything since
        // then.
        if self.lacks_producers() {
            self.load_producers(now_ms)?;
        }
        self.leave_producers()?;
        self.reader.transactions.write().sealed_up_to(self.reader.log_end_offset());
        self.begin(now_ms)
    }

    /// Begins a segment in place of the newest one, whose file is gone.
    fn begin_instead(&mut self, now_ms: i64) -> io::Result<Active> {
        let reader = &self.reader;
        let segments = reader.segments.load_full();
        self.dir.storage().create_dir(&reader.path())?;
        // An empty segment begins where the next one would.
        if let Some((last, before)) = segments.split_last()
            && last.base_offset() == reader.log_end_offset()
        {
            reader.segments.store(Arc::new(before.to_vec()));
        }
        self.begin_next(now_ms)
    }

    /// Seals the active segment if it is old, even without an append, so that retention and
    /// compaction can process it.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn roll_if_old(&mut self, now_ms: i64) -> io::Result<()> {
        match &self.active {
            Some(active)
                if active.segment.size_bytes() > 0
                    && now_ms - active.created_ms
                        > self.config.segment_lives_ms() - active.jitter_ms =>
            {
                self.roll(now_ms)
            }
            _ => Ok(()),
        }
    }
}
