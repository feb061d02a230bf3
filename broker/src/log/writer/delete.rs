//! The end of a log: its topic is deleted, or its partition moves to other brokers.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::warn;

use super::super::partition_dir::{DELETED, STRAY, aside};
use super::super::segment::file_name;
use super::LogWriter;

impl LogWriter {
    /// Deletes the log. Its directory is renamed at once, so that its name is free; the files go
    /// after `file.delete.delay.ms`. Who still reads it reads on. Nothing may be done with the
    /// writer any more: the directory of that name is another log's from now on.
    ///
    /// # Errors
    /// When the directory cannot be renamed: then it is set aside by the next start.
    pub fn delete(&mut self) -> io::Result<()> {
        let Some(directory) = self.give_up_name(DELETED)? else {
            return Ok(());
        };
        let now = Instant::now();
        // A time beyond what the clock can tell never comes.
        if let Some(at) = now.checked_add(Duration::from_millis(self.config.delete_delay_ms)) {
            self.logs.throw_away(directory, at);
        }
        Ok(())
    }

    /// As [`LogWriter::delete`], but its files stay, under a name that nobody takes up: the
    /// metadata may be wrong, the data is not.
    ///
    /// # Errors
    /// As there.
    pub fn set_aside(&mut self) -> io::Result<()> {
        if let Some(to) = self.give_up_name(STRAY)? {
            warn!(topic = %self.reader.topic, partition = self.reader.id.index, to = %to.display(), "this log is not in the metadata any more; it is set aside");
        }
        Ok(())
    }

    /// Gives the log's directory another name, if it has one, and returns that.
    fn give_up_name(&mut self, suffix: &str) -> io::Result<Option<PathBuf>> {
        let (dir, logs, reader) = (&self.dir, &self.logs, &self.reader);
        self.active = None;
        // A flush that comes later must not look for the files.
        let _turn = reader.flushes.turn();
        reader.is_deleted.store(true, Ordering::Release);
        let segments = reader.segments.load();
        if segments.is_empty() {
            // Nothing was ever appended: what has the name is another log's.
            logs.forget(reader);
            return Ok(None);
        }
        let to = dir.root().join(aside(&reader.topic, reader.id.index, suffix));
        let renamed = dir.storage().rename(&reader.path(), &to);
        if renamed.is_ok() {
            for segment in segments.iter() {
                segment.records().moved(to.join(file_name(segment.base_offset(), "log")));
            }
        }
        // Only now may the next log have the name: who reads this one does not find that one's
        // files.
        logs.forget(reader);
        renamed.map(|()| Some(to))
    }
}
