//! The end of a log: its topic is deleted, or its partition moves to other brokers.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::dir::DELETED;
use super::super::recovery::aside;
use super::super::segment::file_name;
use super::LogWriter;

impl LogWriter {
    /// Deletes the log. Its directory is renamed at once, so that its name is free; the files go after `file.delete.delay.ms`. Who still reads it reads on. Nothing may be done with
    /// the writer any more: the directory of that name is another log's from now on.
    ///
    /// # Errors
    /// When the directory cannot be renamed: then it is set aside by the next start.
    pub fn delete(&mut self) -> io::Result<()> {
        let (shared, reader) = (&self.shared, &self.reader);
        self.active = None;
        // A flush that comes later must not look for the files.
        let _turn = shared.flusher().turn();
        reader.is_deleted.store(true, Ordering::Release);
        let segments = reader.segments.load();
        if segments.is_empty() {
            // Nothing was ever appended: what has the name is another log's.
            shared.logs.forget(reader);
            return Ok(());
        }
        let to = shared.root().join(aside(&reader.topic, reader.id.index, DELETED));
        let renamed = shared.storage().rename(&reader.path(), &to);
        if renamed.is_ok() {
            for segment in segments.iter() {
                segment.records().moved(to.join(file_name(segment.base_offset(), "log")));
            }
        }
        // Only now may the next log have the name: who reads this one does not find that one's files.
        shared.logs.forget(reader);
        renamed?;
        let now = Instant::now();
        // A time beyond what the clock can tell never comes.
        if let Some(at) = now.checked_add(Duration::from_millis(self.config.delete_delay_ms)) {
            shared.logs.throw_away(to, at);
        }
        Ok(())
    }
}
