//! The end of a log: its topic is deleted, or its partition moves to other brokers.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::dir::DELETED;
use super::super::segment::file_name;
use super::LogWriter;

impl LogWriter {
    /// Deletes the log. Its directory is renamed at once, so that its name is free; the files go after `file.delete.delay.ms`. Who still reads it reads on. Nothing may be appended any
    /// more.
    ///
    /// # Errors
    /// When the directory cannot be renamed: then it is set aside by the next start.
    pub fn delete(&mut self) -> io::Result<()> {
        let (shared, reader) = (&self.shared, &self.reader);
        self.active = None;
        // A flush that comes later must not look for the files.
        let _turn = shared.flusher().turn();
        reader.is_deleted.store(true, Ordering::Release);
        shared.logs.open.lock().remove(&reader.id);
        let to = shared
            .root()
            .join(format!("{}-{}.{}{DELETED}", reader.topic, reader.id.index, reader.id.topic.0.simple()));
        match shared.storage().rename(&reader.path(), &to) {
            // Nothing was ever appended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result?,
        }
        for segment in reader.segments.load().iter() {
            segment.records().moved(to.join(file_name(segment.base_offset(), "log")));
        }
        let now = Instant::now();
        // A time beyond what the clock can tell never comes.
        if let Some(at) = now.checked_add(Duration::from_millis(self.config.delete_delay_ms)) {
            shared.logs.throw_away(to, at);
        }
        Ok(())
    }
}
