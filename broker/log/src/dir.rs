//! The log directory: its owner, its logs, and whether they can still be written.
//!
//! `replica` opens it once. After a clean stop the catalogue describes the logs, and the start
//! compares it with the names and the ends of their files. After a crash several threads recover
//! the logs. A failed write or flush takes the whole directory offline for good. The next recovery
//! determines what is on the disk.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tracing::{info, warn};
use uuid::Uuid;
use weir_protocol::types::{LeaderEpoch, TopicPartition};

use super::catalogue::{self, LogCheckpoint};
use super::compare;
use super::dir_state::{DirState, LogDirObserver};
use super::directories::{self, Change, dir_name};
use super::flusher;
use super::identity::{self, Identity, OpenError, PreviousShutdown};
use super::kept::{self, Kept, Owner};
use super::logs::Logs;
use super::partition_dir::{DELETED, STRAY, aside};
use super::recovery::{self, Doubt};
use super::storage::Storage;
use super::{LogConfig, LogWriter, Recovery};

/// Limits of a log directory.
#[derive(Clone, Copy, Debug)]
pub struct LogDirOptions {
    /// Files that may be open at a time.
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
    left: PreviousShutdown,
    pub(super) kept: Kept,
    flusher: Mutex<Option<std::thread::JoinHandle<()>>>,
    _lock: Box<dyn Any + Send + Sync>,
}

impl LogDir {
    /// Opens the directory at `root` and recovers its logs. Creates and formats it if it is missing
    /// or empty.
    ///
    /// # Errors
    /// When the directory belongs to another broker, is in use, or cannot be read.
    pub fn open(
        storage: Arc<dyn Storage>,
        root: &Path,
        identity: &Identity,
        options: LogDirOptions,
    ) -> Result<Self, OpenError> {
        Self::open_shown(storage, root, identity, options, &Recovery::default())
    }

    /// Does the same as [`LogDir::open`] and reports its progress meanwhile.
    ///
    /// # Errors
    /// The same as [`LogDir::open`].
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
        let mut remembered = catalogue::read(storage.as_ref(), root);
        let doubt = Doubt::new(storage.as_ref(), root, left);
        let threads = options.recovery_threads;
        let mut is_whole_truth = left.orderly;
        if let Some(remembered) = remembered.as_mut().filter(|_| left.orderly) {
            let differences =
                compare::compare(storage.as_ref(), root, remembered, threads).map_err(failed)?;
            is_whole_truth = differences.is_none();
            if differences.loses() {
                doubt.note().map_err(failed)?;
            }
        }
        let found = match remembered {
            Some(remembered) if is_whole_truth => remembered,
            remembered => {
                let how = (left.disowned, &doubt);
                let recovered = recovery::recover_all(&state, remembered, how, threads, progress)
                    .map_err(failed)?;
                // A crash from here on does not repeat this recovery, and its findings of damage
                // count.
                catalogue::write(storage.as_ref(), root, &recovered).map_err(failed)?;
                recovered
            }
        };
        left.whole &= !doubt.is_noted();
        directories::begin(storage.as_ref(), root).map_err(failed)?;
        identity::begin_run(storage.as_ref(), root, left.broker_epoch, left.whole)
            .map_err(failed)?;
        info!(directory = %path(), logs = found.len(), orderly = left.orderly, whole = left.whole, "opened the log directory");
        let logs = Arc::new(Logs::new(Arc::clone(&state)));
        logs.found(found);
        for entry in storage.list(root).map_err(failed)?.into_iter().filter(|entry| entry.is_dir) {
            if entry.name.ends_with(DELETED) {
                logs.schedule_delete(root.join(entry.name), Instant::now());
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

    /// The directory's own id, assigned when it was formatted.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The broker that owns it.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The state in which the last run left it.
    pub fn left(&self) -> PreviousShutdown {
        self.left
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.state.root()
    }

    /// The reason why it is offline, if it is.
    pub fn failure(&self) -> Option<&str> {
        self.state.failure()
    }

    /// Sets the observer. Only the first call has an effect.
    pub fn observe(&self, observer: impl LogDirObserver + 'static) {
        self.state.observe(Box::new(observer));
    }

    /// Stores the broker epoch of this run for the next one.
    ///
    /// # Errors
    /// When it cannot be written, or the directory is offline.
    pub fn set_broker_epoch(&self, epoch: i64) -> io::Result<()> {
        self.state
            .vouch_for_run(|storage, root| identity::begin_run(storage, root, Some(epoch), true))
    }

    /// Returns the metadata frames that the last run kept. Requires that its logs are whole, and
    /// that this broker kept the frames in this directory under its last registration.
    pub fn left_known(&self) -> Option<Vec<Vec<u8>>> {
        let broker_epoch = self.left.broker_epoch.filter(|_| self.left.whole)?;
        let owner = Owner::new(&self.identity, self.id, broker_epoch);
        kept::read(self.state.storage(), self.state.root(), &owner)
    }

    /// Keeps the whole metadata of this run for the next one, under `broker_epoch`.
    pub fn keep_known(&self, broker_epoch: i64, frames: &[Vec<u8>]) {
        // The next run does not trust a failed directory, so nothing is written.
        if self.failure().is_none() {
            let owner = Owner::new(&self.identity, self.id, broker_epoch);
            let kept = self.kept.replace(self.state.storage(), self.state.root(), &owner, frames);
            self.unless_kept(kept);
        }
    }

    /// Returns whether [`LogDir::keep_known`] would be cheaper by now than the file that it would
    /// replace.
    pub fn has_kept_many_changes(&self) -> bool {
        self.kept.is_overgrown()
    }

    /// Appends one metadata change to the kept frames. Returns false when there is nothing to
    /// append it to.
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

    /// Returns whether this run has ended and keeps nothing more. It must not act on new metadata
    /// any more, nor ask the controller for changes.
    pub fn keeps_nothing_more(&self) -> bool {
        self.kept.is_sealed()
    }

    /// After a failed write, removes the kept frames, so that the next run does not take them for
    /// the latest.
    fn unless_kept(&self, kept: io::Result<()>) {
        let Err(error) = kept else { return };
        warn!(%error, "cannot leave to the next run what is known of the cluster: it will have to wait for a controller");
        if let Err(error) = self.kept.forget(self.state.storage(), self.state.root()) {
            self.state.fail(format!("cannot remove what was known of the cluster: {error}"));
        }
    }

    /// Opens the log of a partition: an existing one, or a new one. A new log writes nothing before
    /// its first append.
    ///
    /// # Errors
    /// When an existing log cannot be opened.
    pub fn open_log(
        &self,
        id: TopicPartition,
        topic: &Arc<str>,
        config: Arc<LogConfig>,
    ) -> io::Result<LogWriter> {
        let is_named = |found: &LogCheckpoint| *found.topic == **topic;
        let found = self.logs.found.lock().get(&id).cloned();
        if found.as_ref().is_some_and(|found| !is_named(found)) {
            // Somebody has exchanged directories, or given this one another name.
            self.set_aside(id)?;
        }
        let writer = match found.filter(is_named) {
            Some(found) => {
                self.logs.found.lock().remove(&id);
                LogWriter::open(&self.logs, id, topic, config, &found)
            }
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

    /// Sets aside a directory with this log's name that belongs to another topic of that name. It
    /// is never deleted: the metadata may be wrong, the data is not.
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
        warn!(topic = log.topic, partition = log.partition, log = %from.display(), to = %to.display(), "this log's topic is not in the metadata any more; it is set aside");
        let name = dir_name(&log.topic, log.partition);
        self.logs.directory_changes(&name, Change::Went);
        match self.state.storage().rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The newest leader epoch of each log here, claimed or not. Omits logs without any epoch.
    pub fn latest_epochs(&self) -> Vec<(TopicPartition, LeaderEpoch)> {
        self.logs.latest_epochs()
    }

    /// Sets aside the logs that no partition has claimed. Called when the metadata is known.
    pub fn set_aside_unclaimed(&self) {
        let unclaimed: Vec<_> = self.logs.found.lock().keys().copied().collect();
        for id in unclaimed {
            if let Err(error) = self.set_aside(id) {
                warn!(topic_id = %id.topic, partition = id.index, %error, "cannot set a log aside; it stays in its place until the next start");
            }
        }
    }

    /// Blocks flush rounds while the guard is held, as a slow disk would.
    #[cfg(any(test, feature = "testing"))]
    pub fn hold_flushes(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.logs.flushes.turn()
    }

    /// Removes the files of deleted logs that are due. May take as long as the file system needs to
    /// free large files.
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

    /// Requests a flush of everything unflushed, waits for it, and writes the catalogue. Recovery
    /// after a crash begins from here.
    ///
    /// # Errors
    /// When a flush or the write of the catalogue fails.
    pub fn checkpoint(&self) -> io::Result<()> {
        let logs = self.logs.open();
        for log in logs.iter().filter(|log| log.flushed_offset() < log.log_end_offset()) {
            log.request_flush();
        }
        self.logs.flushes.wait_until_flushed();
        if self.state.is_offline() {
            return Err(io::Error::other("the log directory is offline"));
        }
        self.logs.write_catalogue()
    }

    /// Closes the directory cleanly: flushes everything and writes indexes and producer snapshots,
    /// then the catalogue, and the mark of a clean stop last. The caller appends nothing any more
    /// and passes the writers of all logs.
    ///
    /// # Errors
    /// When any step fails; then the next start recovers.
    pub fn close(&self, writers: &mut [LogWriter]) -> io::Result<()> {
        let result = self.close_in_order(writers);
        self.end_flusher();
        result
    }

    /// Stops the flusher and waits for it: nothing writes to the directory after its lock is
    /// released.
    fn end_flusher(&self) {
        self.logs.flushes.stop();
        let thread = self.flusher.lock().take();
        // The flusher itself may hold the last reference, through a log whose flush it has just
        // reported.
        if let Some(thread) =
            thread.filter(|thread| thread.thread().id() != std::thread::current().id())
        {
            // A flusher that panicked has reported it already.
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
        // This covers everything that close() has written to all files.
        flusher::flush_everything(&self.state, &self.logs.flushes, &self.logs.open())?;
        self.logs.write_catalogue()?;
        self.state.vouch_for_run(identity::end_run)
    }

    /// Returns the size in bytes of the directory's file system, and its free bytes.
    ///
    /// # Errors
    /// When the file system does not answer.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        self.state.storage().space(self.state.root())
    }
}

impl Drop for LogDir {
    fn drop(&mut self) {
        self.end_flusher();
    }
}
