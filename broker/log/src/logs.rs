//! The logs of a directory, and the writes of its catalogue: periodically, and before a log is
//! truncated.
//!
//! `dir` calls it, and so do the writers that truncate. Only one write runs at a time, including
//! the collection of its entries. So an older state never replaces a newer one.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use weir_protocol::types::{LeaderEpoch, TopicPartition};

use super::catalogue::{self, LogCheckpoint};
use super::dir_state::DirState;
use super::directories::{Change, Directories};
use super::flush_queue::FlushQueue;
use super::reader::LogReader;

/// The logs of a directory.
#[derive(Debug)]
pub(super) struct Logs {
    pub(super) dir: Arc<DirState>,
    pub(super) flushes: Arc<FlushQueue<LogReader>>,
    /// Existing logs that no partition has claimed yet.
    pub(super) found: Mutex<HashMap<TopicPartition, LogCheckpoint>>,
    /// Open logs.
    pub(super) open: Mutex<HashMap<TopicPartition, Weak<LogReader>>>,
    /// Held while the catalogue is written.
    catalogue: Mutex<()>,
    /// The log that owns a directory name, from its first append until the directory is renamed.
    names: Mutex<HashMap<PathBuf, Weak<LogReader>>>,
    /// The directories that came and went since the catalogue was written.
    directories: Directories,
    /// The directories of deleted logs, each with the time to remove its files.
    trash: Mutex<Vec<(Instant, PathBuf)>>,
}

impl Logs {
    /// Creates an empty set.
    pub(super) fn new(dir: Arc<DirState>) -> Self {
        Self {
            dir,
            flushes: Arc::new(FlushQueue::new()),
            found: Mutex::default(),
            open: Mutex::default(),
            catalogue: Mutex::default(),
            names: Mutex::default(),
            directories: Directories::default(),
            trash: Mutex::default(),
        }
    }

    /// Adds the logs found in the directory.
    pub(super) fn found(&self, logs: Vec<LogCheckpoint>) {
        let id = |log: &LogCheckpoint| TopicPartition {
            topic: log.topic_id.into(),
            index: log.partition,
        };
        self.found.lock().extend(logs.into_iter().map(|log| (id(&log), log)));
    }

    /// Claims the directory name for a log. Returns `false` while another log has it: one that is
    /// to be deleted and whose writer still works.
    pub(super) fn take_name(&self, log: &Arc<LogReader>) -> bool {
        let mut names = self.names.lock();
        let other = names.get(&log.path()).and_then(Weak::upgrade);
        if other.is_some_and(|other| !Arc::ptr_eq(&other, log)) {
            return false;
        }
        names.insert(log.path(), Arc::downgrade(log));
        true
    }

    /// Notes what happens to a log's directory, for a start after a kill.
    pub(super) fn directory_changes(&self, name: &str, change: Change) {
        self.directories.changes(self.dir.storage(), self.dir.root(), name, change);
    }

    /// Removes a deleted log, which has no directory name any more. A new log of the same id stays.
    pub(super) fn forget(&self, log: &Arc<LogReader>) {
        let is_it = |other: &Weak<LogReader>| std::ptr::eq(other.as_ptr(), Arc::as_ptr(log));
        self.names.lock().retain(|_, other| !is_it(other) && other.strong_count() > 0);
        self.open.lock().retain(|id, other| *id != log.id || !is_it(other));
    }

    /// Schedules a directory for removal at a time. The next start removes it otherwise.
    pub(super) fn schedule_delete(&self, directory: PathBuf, at: Instant) {
        self.trash.lock().push((at, directory));
    }

    /// Takes the directories that are due.
    pub(super) fn take_due_trash(&self, now: Instant) -> Vec<PathBuf> {
        let mut trash = self.trash.lock();
        trash.extract_if(.., |(at, _)| *at <= now).map(|(_, directory)| directory).collect()
    }

    /// The newest leader epoch of each log that has one.
    pub(super) fn latest_epochs(&self) -> Vec<(TopicPartition, LeaderEpoch)> {
        let newest = |log: &LogCheckpoint| log.epochs.last().map(|(epoch, _)| LeaderEpoch(*epoch));
        let found = self.found.lock();
        let found = found.iter().filter_map(|(id, log)| Some((*id, newest(log)?)));
        let open = self.open.lock();
        let open = open.iter().filter_map(|(id, log)| Some((*id, log.upgrade()?.latest_epoch()?)));
        found.chain(open).collect()
    }

    /// The open logs.
    pub(super) fn open(&self) -> Vec<Arc<LogReader>> {
        self.open.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Writes the catalogue.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write_catalogue(&self) -> io::Result<()> {
        let _one = self.catalogue.lock();
        self.write_catalogue_now()
    }

    /// Makes sure that the catalogue on the disk has nothing of `log` from `end` on, neither as
    /// flushed nor as written. The log's own state is already lowered.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn lower_recovery_point(&self, log: &LogReader, end: i64) -> io::Result<()> {
        let _one = self.catalogue.lock();
        match log.checkpointed_end.load(Ordering::Acquire) > end {
            true => self.write_catalogue_now(),
            false => Ok(()),
        }
    }

    fn write_catalogue_now(&self) -> io::Result<()> {
        let remembered = |log: Arc<LogReader>| log.remember().map(|remembered| (log, remembered));
        let (logs, mut remembered): (Vec<_>, Vec<_>) =
            self.open().into_iter().filter_map(remembered).unzip();
        let points: Vec<_> =
            remembered.iter().map(|log| (log.recovery_point, log.log_end_offset)).collect();
        remembered.extend(self.found.lock().values().cloned());
        catalogue::write(self.dir.storage(), self.dir.root(), &remembered)?;
        for (log, (point, end)) in logs.iter().zip(points) {
            log.checkpointed.store(point, Ordering::Release);
            log.checkpointed_end.store(end, Ordering::Release);
        }
        self.directories.are_in(self.dir.storage(), self.dir.root(), &remembered);
        Ok(())
    }
}
