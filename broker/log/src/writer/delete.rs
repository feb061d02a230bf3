//! The end of a log: its topic is deleted, or its partition moves to other brokers.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::warn;

use super::super::directories::{Change, dir_name};
use super::super::partition_dir::{DELETED, STRAY, aside};
use super::super::segment::file_name;
use super::LogWriter;

impl LogWriter {
    /// Deletes the log. Renames its directory at once, which frees the name. The files are removed
    /// after `file.delete.delay.ms`, and current readers finish. The caller must not use the writer
    /// any more, because the directory's name may now belong to another log.
    ///
    /// # Errors
    /// When the directory cannot be renamed. The next start then sets it aside.
    pub fn delete(&mut self) -> io::Result<()> {
        let Some(directory) = self.give_up_name(DELETED)? else {
            return Ok(());
        };
        let now = Instant::now();
        // A time beyond the clock's range never comes.
        if let Some(at) = now.checked_add(Duration::from_millis(self.config.delete_delay_ms)) {
            self.logs.schedule_delete(directory, at);
        }
        Ok(())
    }

    /// Does the same as [`LogWriter::delete`], but keeps the files under a name that no log uses.
    /// The metadata may be wrong, the data is not.
    ///
    /// # Errors
    /// The same as [`LogWriter::delete`].
    pub fn set_aside(&mut self) -> io::Result<()> {
        if let Some(to) = self.give_up_name(STRAY)? {
            warn!(topic = %self.reader.topic, partition = self.reader.id.index, to = %to.display(), "this log is not in the metadata any more; it is set aside");
        }
        Ok(())
    }

    /// Renames the log's directory and returns the new path; `None` if it has no directory.
    fn give_up_name(&mut self, suffix: &str) -> io::Result<Option<PathBuf>> {
        let (dir, logs, reader) = (&self.dir, &self.logs, &self.reader);
        self.active = None;
        // A later flush must not look for the files.
        let _turn = reader.flushes.turn();
        reader.is_deleted.store(true, Ordering::Release);
        let segments = reader.segments.load();
        if segments.is_empty() {
            // Nothing was ever appended, so a directory of that name belongs to another log.
            logs.forget(reader);
            return Ok(None);
        }
        logs.directory_changes(&dir_name(&reader.topic, reader.id.index), Change::Went);
        let to = dir.root().join(aside(&reader.topic, reader.id.index, suffix));
        let renamed = dir.storage().rename(&reader.path(), &to);
        if renamed.is_ok() {
            for segment in segments.iter() {
                segment.records().moved(to.join(file_name(segment.base_offset(), "log")));
            }
        }
        // Only now may the next log take the name. A reader of this log then cannot open that log's
        // files.
        logs.forget(reader);
        renamed.map(|()| Some(to))
    }
}
