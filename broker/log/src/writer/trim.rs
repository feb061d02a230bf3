//! Deletions at the start of a log: by retention, by DeleteRecords, and of whole segments.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::{flusher, retention};
use super::LogWriter;

impl LogWriter {
    /// Raises the log start offset, at most to the high watermark, and deletes the segments before
    /// it. A lower offset does nothing.
    ///
    /// # Errors
    /// When the files cannot be removed.
    pub fn advance_log_start_offset(&mut self, offset: i64) -> io::Result<()> {
        let reader = &self.reader;
        let offset = offset.min(reader.high_watermark());
        if reader.log_start.fetch_max(offset, Ordering::AcqRel) >= offset {
            return Ok(());
        }
        reader.epochs.write().truncate_from_start(offset);
        let segments = reader.segments.load();
        let gone = segments.iter().skip(1).take_while(|next| next.base_offset() <= offset).count();
        if gone > 0 {
            // Before the first file goes, the end of the log and the epochs must be on the disk;
            // their file says where the log begins. A crash may bring back any of the removed
            // files. It must not leave a log with a gap, or one that ends before it begins.
            flusher::flush_now(reader)?;
        } else {
            reader.unsynced.epochs.store(true, Ordering::Release);
        }
        self.drop_segments(gone)
    }

    /// Deletes the oldest `count` segments. Readers that hold their files finish reading.
    pub(super) fn drop_segments(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        let segments = self.reader.segments.load_full();
        self.reader.segments.store(Arc::new(segments.get(count..).unwrap_or_default().to_vec()));
        for segment in segments.iter().take(count) {
            for extension in ["log", "index", "timeindex", "txnindex", "snapshot"] {
                match self.dir.storage().remove_file(&segment.path(extension)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Deletes the segments that retention expires (`retention.ms`, `retention.bytes`). Only
    /// segments below the high watermark expire. Returns how many were deleted.
    ///
    /// # Errors
    /// When files cannot be written or removed.
    pub fn apply_retention(&mut self, now_ms: i64) -> io::Result<usize> {
        if !self.config.cleanup.delete {
            return Ok(0);
        }
        let summaries: Vec<_> =
            self.reader.segments.load().iter().map(|segment| segment.summary()).collect();
        let count = retention::expired(
            &summaries,
            &self.config,
            self.reader.high_watermark(),
            self.reader.log_end_offset(),
            now_ms,
        );
        if count == 0 {
            return Ok(0);
        }
        if count == summaries.len() {
            // Everything is old: the log continues, empty, at its end.
            self.roll(now_ms)?;
        }
        let start =
            self.reader.segments.load().get(count).map_or(0, |segment| segment.base_offset());
        self.advance_log_start_offset(start)?;
        Ok(count)
    }
}
