//! One segment: a file of batches, its indexes, and a summary that needs no open file.
//!
//! The writer appends and publishes; readers use the published part. A segment is sealed when the
//! next one begins, and never changes after that.

mod scan;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::RwLock;
use weir_protocol::batch::BatchHeader;

pub(crate) use self::scan::{Located, Scan, SegmentError};
use super::index::{self, Indexes, OffsetEntry};
use super::partition_dir::named;
use super::storage::{File, Lazy, Mode, OpenFiles};
use super::transactions::{self, Aborted};

/// The summary of a segment, which needs no open file. The catalogue stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct SegmentSummary {
    /// The offset in the file's name.
    pub base_offset: i64,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The largest timestamp in it; -1 when there is none.
    pub max_timestamp: i64,
    /// The base offset of the batch with that timestamp.
    pub max_timestamp_offset: i64,
    /// The time of the last append, in milliseconds since 1970.
    pub modified_ms: i64,
    /// It has a file of aborted transactions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_aborted: bool,
}

impl SegmentSummary {
    /// An empty segment.
    pub(crate) fn empty(base_offset: i64, now_ms: i64) -> Self {
        Self {
            base_offset,
            size_bytes: 0,
            max_timestamp: -1,
            max_timestamp_offset: base_offset,
            modified_ms: now_ms,
            has_aborted: false,
        }
    }
}

/// A segment.
#[derive(Debug)]
pub(crate) struct Segment {
    base_offset: i64,
    records: Arc<Lazy>,
    size_bytes: AtomicU64,
    max_timestamp: AtomicI64,
    max_timestamp_offset: AtomicI64,
    modified_ms: AtomicI64,
    /// Its file of aborted transactions was written, and has some.
    has_aborted: AtomicBool,
    /// Set when it is sealed and has no aborted transaction, so that no reader looks for its file.
    none_aborted: AtomicBool,
    /// The file has all of its bytes.
    is_as_long: AtomicBool,
    /// `None` when they are in their files.
    indexes: RwLock<Option<Box<Indexes>>>,
}

/// The name of a segment's file.
pub(crate) fn file_name(base_offset: i64, extension: &str) -> String {
    format!("{base_offset:020}.{extension}")
}

impl Segment {
    /// Creates a segment in `dir`. A new one keeps its indexes in memory from the start.
    pub(crate) fn new(dir: &Path, summary: SegmentSummary, indexes: Option<Indexes>) -> Arc<Self> {
        Arc::new(Self {
            base_offset: summary.base_offset,
            records: Lazy::new(dir.join(file_name(summary.base_offset, "log"))),
            size_bytes: AtomicU64::new(summary.size_bytes),
            max_timestamp: AtomicI64::new(summary.max_timestamp),
            max_timestamp_offset: AtomicI64::new(summary.max_timestamp_offset),
            modified_ms: AtomicI64::new(summary.modified_ms),
            has_aborted: AtomicBool::new(summary.has_aborted),
            none_aborted: AtomicBool::new(false),
            is_as_long: AtomicBool::new(false),
            indexes: RwLock::new(indexes.map(Box::new)),
        })
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.base_offset
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn max_timestamp(&self) -> i64 {
        self.max_timestamp.load(Ordering::Acquire)
    }

    pub(crate) fn summary(&self) -> SegmentSummary {
        SegmentSummary {
            base_offset: self.base_offset,
            size_bytes: self.size_bytes(),
            max_timestamp: self.max_timestamp(),
            max_timestamp_offset: self.max_timestamp_offset.load(Ordering::Acquire),
            modified_ms: self.modified_ms.load(Ordering::Relaxed),
            has_aborted: self.has_aborted.load(Ordering::Relaxed),
        }
    }

    /// Writes its file of aborted transactions; removes it if there are none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write_aborted(&self, files: &OpenFiles, aborted: &[Aborted]) -> io::Result<()> {
        transactions::write_index(files.storage().as_ref(), &self.path("txnindex"), aborted)?;
        self.has_aborted.store(!aborted.is_empty(), Ordering::Relaxed);
        self.none_aborted.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the aborted transactions of a sealed segment, from its file.
    ///
    /// # Errors
    /// When it cannot be read; [`transactions::is_damage`] when the file is damaged.
    pub(crate) fn aborted(&self, files: &OpenFiles) -> io::Result<Vec<Aborted>> {
        if self.none_aborted.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        let path = self.path("txnindex");
        let found = transactions::read_index(files.storage().as_ref(), &path, self.base_offset)?;
        self.none_aborted.store(found.is_empty(), Ordering::Relaxed);
        Ok(found)
    }

    /// How many of its bytes `file` has. These are fewer where somebody has cut it off while no
    /// process ran; that is looked at until all were there once.
    ///
    /// # Errors
    /// When the length cannot be read.
    pub(crate) fn bytes_there(&self, file: &dyn File) -> io::Result<u64> {
        let size = self.size_bytes();
        if self.is_as_long.load(Ordering::Relaxed) {
            return Ok(size);
        }
        let there = file.length()?;
        self.is_as_long.store(there >= size, Ordering::Relaxed);
        Ok(there.min(size))
    }

    /// The file that holds the records.
    pub(crate) fn records(&self) -> &Arc<Lazy> {
        &self.records
    }

    /// Returns the path of one of its files.
    pub(crate) fn path(&self, extension: &str) -> PathBuf {
        self.records.path().with_extension(extension)
    }

    pub(crate) fn open(&self, files: &OpenFiles) -> io::Result<Arc<dyn File>> {
        files.get(&self.records, Mode::Existing)
    }

    /// Publishes bytes appended at the end.
    pub(crate) fn appended(&self, bytes: u64, now_ms: i64) {
        self.modified_ms.store(now_ms, Ordering::Relaxed);
        self.size_bytes.fetch_add(bytes, Ordering::Release);
    }

    /// Records a batch's largest timestamp.
    pub(crate) fn note_timestamp(&self, header: &BatchHeader) {
        if header.max_timestamp > self.max_timestamp.load(Ordering::Relaxed) {
            self.max_timestamp_offset.store(header.base_offset, Ordering::Release);
            self.max_timestamp.store(header.max_timestamp, Ordering::Release);
        }
    }

    /// Adds an index entry for a batch at `position`.
    pub(crate) fn index(&self, header: &BatchHeader, position: u64) {
        let (Ok(last_offset), Ok(position)) =
            (u32::try_from(header.last_offset() - self.base_offset), u32::try_from(position))
        else {
            return;
        };
        if let Some(indexes) = &mut *self.indexes.write() {
            indexes.add(OffsetEntry { last_offset, position }, self.max_timestamp());
        }
    }

    /// Returns the bytes of the larger index; 0 when the indexes are in their files.
    pub(crate) fn index_bytes(&self) -> usize {
        self.indexes.read().as_ref().map_or(0, |indexes| indexes.bytes())
    }

    /// Writes the indexes to their files and drops them from memory. Frees the blocks allocated
    /// beyond the records.
    pub(crate) fn seal(&self, files: &OpenFiles) -> io::Result<()> {
        let mut indexes = self.indexes.write();
        if let Some(held) = &*indexes {
            self.write_indexes(files, held)?;
            *indexes = None;
            drop(indexes);
            self.open(files)?.truncate(self.size_bytes())?;
        }
        Ok(())
    }

    fn write_indexes(&self, files: &OpenFiles, indexes: &Indexes) -> io::Result<()> {
        let (offsets, times) = (self.path("index"), self.path("timeindex"));
        indexes.write(files.storage().as_ref(), (&offsets, &times), self.base_offset)
    }

    /// Loads the indexes into memory, because the segment will be written again.
    ///
    /// # Errors
    /// Also when the segment ends in damage, because batches after it would be hard to find.
    pub(crate) fn unseal(
        &self,
        files: &OpenFiles,
        interval_bytes: u32,
    ) -> Result<(), SegmentError> {
        if self.indexes.read().is_none() {
            let (built, damage) = self.build_indexes(files, interval_bytes)?;
            if let Some(damage) = damage {
                return Err(damage);
            }
            *self.indexes.write() = Some(Box::new(built));
        }
        Ok(())
    }

    /// Builds the indexes. Also returns the damage that the segment ends with, if any.
    fn build_indexes(
        &self,
        files: &OpenFiles,
        interval_bytes: u32,
    ) -> Result<(Indexes, Option<SegmentError>), SegmentError> {
        let mut indexes = Indexes::default();
        let (mut since, mut newest) = (u64::from(interval_bytes) + 1, -1);
        for located in self.scan(files, 0, self.size_bytes())? {
            let Located { position, header } = match located {
                Ok(located) => located,
                // The damage reaches the end; reads will report it.
                Err(damage @ SegmentError::Corrupt { .. }) => return Ok((indexes, Some(damage))),
                Err(error) => return Err(error),
            };
            newest = header.max_timestamp.max(newest);
            if since > u64::from(interval_bytes)
                && let (Ok(last_offset), Ok(position)) = (
                    u32::try_from(header.last_offset() - self.base_offset),
                    u32::try_from(position),
                )
            {
                indexes.add(OffsetEntry { last_offset, position }, newest);
                since = 0;
            }
            since += header.size_bytes() as u64;
        }
        Ok((indexes, None))
    }

    /// Returns the first batch before position `end` whose last offset is at least `offset`.
    pub(crate) fn find(
        &self,
        files: &OpenFiles,
        offset: i64,
        end: u64,
    ) -> Result<Option<Located>, SegmentError> {
        let relative = u32::try_from(offset - self.base_offset).unwrap_or(0);
        let entry = self.position_before(files, relative)?;
        let mut scan = self.scan(files, u64::from(entry.position), end)?;
        while let Some(located) = scan.next() {
            let located = located?;
            if located.header.last_offset() < offset {
                continue;
            }
            if located.header.base_offset == offset && !scan.leaves_gap() {
                return Ok(Some(located));
            }
            // Reads go on where the last one ended. So this is rare, unless an offset is wrong.
            if scan.is_refuted()? {
                scan.step_back()?;
                continue;
            }
            return match scan.take_damage() {
                Some(damage) if located.header.base_offset > offset => Err(damage),
                _ => Ok(Some(located)),
            };
        }
        Ok(None)
    }

    /// Returns the base offset of the first batch that can be read and begins behind `offset`;
    /// `None` when there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn next_readable(&self, files: &OpenFiles, offset: i64) -> io::Result<Option<i64>> {
        let mut scan = Scan::new(self.open(files)?, self.base_offset, 0, self.size_bytes());
        while let Some(located) = scan.next() {
            let skipped = match located {
                Ok(located) if located.header.base_offset <= offset => Ok(()),
                Ok(_) if scan.is_refuted()? => scan.step_back(),
                Ok(located) => return Ok(Some(located.header.base_offset)),
                Err(error) => Err(error),
            };
            match skipped {
                Ok(()) => {}
                Err(SegmentError::Corrupt { .. }) => break,
                Err(SegmentError::Io(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Returns the entry from which to search, checked against the records. An index that disagrees
    /// with them is rebuilt.
    fn position_before(
        &self,
        files: &OpenFiles,
        relative: u32,
    ) -> Result<OffsetEntry, SegmentError> {
        if let Some(indexes) = &*self.indexes.read() {
            return Ok(indexes.position_before(relative));
        }
        let found = index::search_position(files.storage().as_ref(), &self.path("index"), relative)
            .ok()
            .filter(|entry| self.agrees(files, *entry));
        if let Some(entry) = found {
            return Ok(entry);
        }
        self.rebuild(files, "index")?;
        Ok(self
            .indexes
            .read()
            .as_ref()
            .map(|indexes| indexes.position_before(relative))
            .unwrap_or_default())
    }

    fn agrees(&self, files: &OpenFiles, entry: OffsetEntry) -> bool {
        if entry == OffsetEntry::default() {
            return true;
        }
        let Ok(mut scan) = self.scan(files, u64::from(entry.position), self.size_bytes()) else {
            return false;
        };
        scan.header().is_ok_and(|header| {
            header.last_offset() - self.base_offset == i64::from(entry.last_offset)
        })
    }

    /// Builds the indexes from the records and keeps them in memory. Tries to write their files
    /// too. The file of one of them, with this extension, has failed.
    fn rebuild(&self, files: &OpenFiles, failed: &str) -> Result<(), SegmentError> {
        let path = self.path(failed);
        let file = files.storage().open(&path, Mode::Existing);
        let had_entries = file.and_then(|file| file.length()).is_ok_and(|bytes| bytes > 0);
        let (built, _) = self.build_indexes(files, 4096)?;
        let records = self.records.path();
        let (topic, partition) = named(&records);
        let segment = records.display();
        if had_entries {
            tracing::warn!(topic, partition, %segment, file = failed, "an index was damaged or of an older version, and is built anew");
        } else {
            // A killed process leaves none. An older version left empty ones for small segments.
            tracing::debug!(topic, partition, %segment, file = failed, "an index was missing, and is built anew");
        }
        // If the files cannot be written, the indexes in memory serve as well.
        let _ = self.write_indexes(files, &built);
        *self.indexes.write() = Some(Box::new(built));
        Ok(())
    }

    /// Returns the relative offset from which to search for a time. A missing or damaged index is
    /// rebuilt.
    fn offset_before(&self, files: &OpenFiles, timestamp: i64) -> Result<u32, SegmentError> {
        if let Some(indexes) = &*self.indexes.read() {
            return Ok(indexes.offset_before(timestamp));
        }
        let path = self.path("timeindex");
        match index::search_offset(files.storage().as_ref(), &path, timestamp, self.base_offset) {
            Ok(relative) => return Ok(relative),
            Err(_) => self.rebuild(files, "timeindex")?,
        }
        let indexes = self.indexes.read();
        Ok(indexes.as_ref().map_or(0, |indexes| indexes.offset_before(timestamp)))
    }

    /// Returns the first batch before position `end` and not before offset `from` whose largest
    /// timestamp is at least `timestamp`.
    pub(crate) fn find_time(
        &self,
        files: &OpenFiles,
        timestamp: i64,
        from: i64,
        end: u64,
    ) -> Result<Option<Located>, SegmentError> {
        let relative = self.offset_before(files, timestamp)?;
        let begin = (self.base_offset + i64::from(relative)).max(from);
        let Some(first) = self.find(files, begin, end)? else { return Ok(None) };
        let found = self.scan(files, first.position, end)?.find(
            |located| !matches!(located, Ok(located) if located.header.max_timestamp < timestamp),
        );
        found.transpose()
    }

    /// The base offset of the batch with the largest timestamp.
    pub(crate) fn max_timestamp_offset(&self) -> i64 {
        self.max_timestamp_offset.load(Ordering::Acquire)
    }

    /// Reads all bytes of a batch.
    pub(crate) fn read_batch(
        &self,
        files: &OpenFiles,
        located: &Located,
    ) -> Result<Vec<u8>, SegmentError> {
        let mut bytes = vec![0; located.header.size_bytes()];
        self.open(files)?.read_exact_at(&mut bytes, located.position)?;
        Ok(bytes)
    }

    /// Iterates over the batch headers between two positions.
    pub(crate) fn scan(
        &self,
        files: &OpenFiles,
        position: u64,
        end: u64,
    ) -> Result<Scan, SegmentError> {
        Ok(Scan::new(self.open(files)?, self.base_offset, position, end))
    }
}
