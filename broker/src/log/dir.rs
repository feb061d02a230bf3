//! The log directory: whose it is, what is in it, and whether it can still be written to.
//!
//! Opened once, by `replica`. After a clean stop the catalogue says what is there and nothing else
//! is opened; after a crash the logs are recovered side by side. A failed write or flush takes the
//! whole directory offline for good: what is on the disk then is for recovery to say.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tracing::{info, warn};
use uuid::Uuid;
use weir_protocol::types::{LeaderEpoch, TopicPartition};

use super::catalogue;
use super::dir_state::{DirState, LogDirObserver};
use super::flusher;
use super::identity::{self, Identity, Left, OpenError};
use super::kept::{self, Kept, Owner};
use super::logs::Logs;
use super::partition_dir::{DELETED, STRAY, aside};
use super::storage::Storage;
use super::{LogConfig, LogWriter, Recovery, recovery};

/// What a log directory goes by.
#[derive(Clone, Copy, Debug)]
pub struct LogDirOptions {
    /// Files that are kept open at a time.
    pub open_files_max: usize,
    /// Threads that recover logs.
    pub recovery_threads: usize,
}

/// An open log directory.
#[derive(Debug)]
pub struct LogDir {
    pub(super) state: Arc<DirState>,
    pub(super) logs: Arc<Logs>,
    id: Uuid,
    pub(super) identity: Identity,
    left: Left,
    pub(super) kept: Kept,
    flusher: Mutex<Option<std::thread::JoinHandle<()>>>,
    _lock: Box<dyn Any + Send + Sync>,
}

impl LogDir {
    /// Takes the directory at `root`, which is made and formatted if it is empty or not there, and
    /// recovers what is in it.
    ///
    /// # Errors
    /// When the directory is somebody else's, in use, or cannot be read.
    pub fn open(
        storage: Arc<dyn Storage>,
        root: &Path,
        identity: &Identity,
        options: LogDirOptions,
    ) -> Result<Self, OpenError> {
        Self::open_shown(storage, root, identity, options, &Recovery::default())
    }

    /// As [`LogDir::open`], and says meanwhile how far recovery is.
    ///
    /// # Errors
    /// As [`LogDir::open`].
    pub fn open_shown(
        storage: Arc<dyn Storage>,
        root: &Path,
        identity: &Identity,
        options: LogDirOptions,
        progress: &Recovery,
    ) -> Result<Self, OpenError> {
        let path = || root.display().to_string();
        let failed = |error| OpenError::Io { path: path(), error };
        storage.create_dir(root).map_err(failed)?;
        let lock =
            storage.lock(&root.join(identity::LOCK)).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => OpenError::Locked { path: path() },
                _ => failed(error),
            })?;
        let id = identity::check_or_format(storage.as_ref(), root, identity)?;
        let mut left = identity::how_left(storage.as_ref(), root);
        let state = Arc::new(DirState::new(root, Arc::clone(&storage), options.open_files_max));
        let remembered = catalogue::read(storage.as_ref(), root);
        let mut is_whole_truth = left.orderly;
        if let Some(remembered) = remembered.as_deref().filter(|_| left.orderly) {
            let differences =
                catalogue::compare(storage.as_ref(), root, remembered).map_err(failed)?;
            is_whole_truth = differences.is_none();
            left.whole &= differences.missing.is_empty();
        }
        let found = match remembered {
            Some(remembered) if is_whole_truth => remembered,
            remembered => {
                let threads = options.recovery_threads;
                let recovered =
                    recovery::recover_all(&state, remembered, left.disowned, threads, progress)
                        .map_err(failed)?;
                // What was recovered is not looked at again, and it counts from here on whether it
                // is damaged.
                catalogue::write(storage.as_ref(), root, &recovered).map_err(failed)?;
                recovered
            }
        };
        identity::begin_run(storage.as_ref(), root, left.broker_epoch, left.whole)
            .map_err(failed)?;
        info!(directory = %path(), logs = found.len(), orderly = left.orderly, whole = left.whole, "opened the log directory");
        let logs = Arc::new(Logs::new(Arc::clone(&state)));
        logs.found(found);
        for entry in storage.list(root).map_err(failed)?.into_iter().filter(|entry| entry.is_dir) {
            if entry.name.ends_with(DELETED) {
                logs.throw_away(root.join(entry.name), Instant::now());
            }
        }
        let flusher = {
            let (state, flushes) = (Arc::clone(&state), Arc::clone(&logs.flushes));
            std::thread::Builder::new()
                .name("flusher".into())
                .spawn(move || flusher::run(&state, &flushes))
                .map_err(failed)?
        };
        Ok(Self {
            state,
            logs,
            id,
            identity: identity.clone(),
            left,
            kept: Kept::default(),
            flusher: Mutex::new(Some(flusher)),
            _lock: lock,
        })
    }

    /// The directory's own id, made when it was formatted.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How the last run left it.
    pub fn left(&self) -> Left {
        self.left
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.state.root()
    }

    /// Why it is offline, if it is.
    pub fn failure(&self) -> Option<&str> {
        self.state.failure()
    }

    /// Sets who is told of what happens. The first call counts.
    pub fn observe(&self, observer: impl LogDirObserver + 'static) {
        self.state.observe(Box::new(observer));
    }

    /// Remembers the broker epoch of this run for the next one.
    ///
    /// # Errors
    /// When it cannot be written, or the directory is offline.
    pub fn set_broker_epoch(&self, epoch: i64) -> io::Result<()> {
        self.state
            .vouch_for_run(|storage, root| identity::begin_run(storage, root, Some(epoch), true))
    }

    /// What the last run left of what it knew, if that can be believed: its logs are whole, and it
    /// was written by it, here, under the registration that it had last.
    pub fn left_known(&self) -> Option<Vec<Vec<u8>>> {
        let broker_epoch = self.left.broker_epoch.filter(|_| self.left.whole)?;
        let owner = Owner::new(&self.identity, self.id, broker_epoch);
        kept::read(self.state.storage(), self.state.root(), &owner)
    }

    /// Leaves to the next run what this one knows, under its registration: all of it.
    pub fn keep_known(&self, broker_epoch: i64, frames: &[Vec<u8>]) {
        // Nothing vouches for what a failed directory holds: the next run does not ask for it.
        if self.failure().is_none() {
            let owner = Owner::new(&self.identity, self.id, broker_epoch);
            let kept = self.kept.replace(self.state.storage(), self.state.root(), &owner, frames);
            self.unless_kept(kept);
        }
    }

    /// Whether [`LogDir::keep_known`] is cheaper by now than what it would replace.
    pub fn has_kept_many_changes(&self) -> bool {
        self.kept.is_overgrown()
    }

    /// Leaves to the next run what has changed since. False when nothing was kept that it would be
    /// a change of.
    pub fn keep_change(&self, frame: &[u8]) -> bool {
        if self.failure().is_some() {
            return true;
        }
        match self.kept.append(frame) {
            Ok(appended) => appended,
            Err(error) => {
                self.unless_kept(Err(error));
                true
            }
        }
    }

    /// Whether nothing is left to the next run any more, because this one is over: it may act on
    /// nothing new, nor ask for it.
    pub fn keeps_nothing_more(&self) -> bool {
        self.kept.is_sealed()
    }

    /// What the next run must not take for the last that was known is removed.
    fn unless_kept(&self, kept: io::Result<()>) {
        let Err(error) = kept else { return };
        warn!(%error, "cannot leave to the next run what is known of the cluster: it will have to wait for a controller");
        if let Err(error) = self.kept.forget(self.state.storage(), self.state.root()) {
            self.state.fail(format!("cannot remove what was known of the cluster: {error}"));
        }
    }

    /// The log of a partition: the one that was found, or a new one, for which nothing is written
    /// before its first append.
    ///
    /// # Errors
    /// When what was found cannot be opened.
    pub fn open_log(
        &self,
        id: TopicPartition,
        topic: &Arc<str>,
        config: Arc<LogConfig>,
    ) -> io::Result<LogWriter> {
        let found = self.logs.found.lock().remove(&id);
        let writer = match found {
            Some(found) => LogWriter::open(&self.logs, id, topic, config, &found),
            None => {
                self.set_aside_other(id, topic)?;
                LogWriter::create(&self.logs, id, topic, config)
            }
        };
        self.logs.open.lock().insert(id, Arc::downgrade(&writer.reader()));
        if !writer.reader().segments.load().is_empty() {
            self.logs.take_name(&writer.reader());
        }
        Ok(writer)
    }

    /// A directory with this log's name that belongs to another topic of the same name is set
    /// aside, never deleted: the metadata may be wrong, the data is not.
    fn set_aside_other(&self, id: TopicPartition, topic: &str) -> io::Result<()> {
        let other = self
            .logs
            .found
            .lock()
            .iter()
            .find(|(key, log)| key.index == id.index && log.topic == topic)
            .map(|(key, _)| *key);
        other.map_or(Ok(()), |other| self.set_aside(other))
    }

    fn set_aside(&self, id: TopicPartition) -> io::Result<()> {
        let Some(log) = self.logs.found.lock().remove(&id) else {
            return Ok(());
        };
        let from = self.state.root().join(format!("{}-{}", log.topic, log.partition));
        let to = self.state.root().join(aside(&log.topic, log.partition, STRAY));
        warn!(log = %from.display(), to = %to.display(), "this log's topic is not in the metadata any more; it is set aside");
        match self.state.storage().rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The newest leader epoch in each log that is here, claimed or not. Logs in which nothing was
    /// ever led have none.
    pub fn latest_epochs(&self) -> Vec<(TopicPartition, LeaderEpoch)> {
        self.logs.latest_epochs()
    }

    /// Sets aside the logs that were found and that nobody has claimed, now that the metadata is
    /// known.
    pub fn set_aside_unclaimed(&self) {
        let unclaimed: Vec<_> = self.logs.found.lock().keys().copied().collect();
        for id in unclaimed {
            if let Err(error) = self.set_aside(id) {
                warn!(%error, %id, "cannot set a log aside");
            }
        }
    }

    /// Keeps rounds of flushes away for as long as this is held: to a test what a slow disk is.
    #[cfg(test)]
    pub(crate) fn hold_flushes(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.logs.flushes.turn()
    }

    /// Removes the files of deleted logs whose time has come. May take as long as a file system
    /// needs to free large files.
    pub fn empty_trash(&self) {
        for directory in self.logs.take_due_trash(Instant::now()) {
            match self.state.storage().remove_dir_all(&directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(directory = %directory.display(), %error, "cannot remove what is left of a deleted log; the next start tries again");
                }
                _ => info!(directory = %directory.display(), "removed a deleted log"),
            }
        }
    }

    /// Flushes what is not flushed, waits for it, and writes the catalogue: recovery after a crash
    /// begins from here.
    ///
    /// # Errors
    /// When that fails.
    pub fn checkpoint(&self) -> io::Result<()> {
        let logs = self.logs.open();
        for log in logs.iter().filter(|log| log.flushed_offset() < log.log_end_offset()) {
            log.request_flush();
        }
        self.logs.flushes.settle();
        if self.state.is_offline() {
            return Err(io::Error::other("the log directory is offline"));
        }
        self.logs.write_catalogue()
    }

    /// Leaves the directory in order: everything flushed, indexes and producer snapshots written,
    /// the catalogue and the mark of a clean stop last. Nothing may be appended any more; `writers`
    /// are those of all logs.
    ///
    /// # Errors
    /// When that fails: then the next start recovers.
    pub fn close(&self, writers: &mut [LogWriter]) -> io::Result<()> {
        let result = self.close_in_order(writers);
        self.end_flusher();
        result
    }

    /// Ends the flusher and waits for it: nothing is written to the directory any more once its
    /// lock is given up.
    fn end_flusher(&self) {
        self.logs.flushes.stop();
        let thread = self.flusher.lock().take();
        // The last owner may be the flusher itself, by way of a log that it has told of a flush.
        if let Some(thread) =
            thread.filter(|thread| thread.thread().id() != std::thread::current().id())
        {
            // A flusher that panicked has told so itself.
            let _ = thread.join();
        }
    }

    fn close_in_order(&self, writers: &mut [LogWriter]) -> io::Result<()> {
        if let Some(reason) = self.failure() {
            return Err(io::Error::other(reason.to_owned()));
        }
        for writer in writers {
            writer.close()?;
        }
        self.kept.seal();
        // One sync for all: what close() has written, in however many files.
        self.state.storage().sync_all(self.state.root())?;
        let logs = self.logs.open();
        for log in &logs {
            flusher::flush_now(log, false)?;
        }
        self.logs.write_catalogue()?;
        self.state.vouch_for_run(identity::end_run)
    }

    /// Bytes of the file system that the directory is in, and those of them that are free.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        self.state.storage().space(self.state.root())
    }
}

impl Drop for LogDir {
    fn drop(&mut self) {
        self.end_flusher();
    }
}
