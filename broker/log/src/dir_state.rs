//! The state of a log directory: its root, its open files, and whether a write or a flush has
//! failed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::error;

use super::identity;
use super::storage::{OpenFiles, Storage};

/// An observer of a log directory. The directory's own threads call it.
pub trait LogDirObserver: Send + Sync {
    /// A round of flushes brought this many logs to the disk in the time `took`.
    fn flushed(&self, logs: usize, took: Duration);
    /// The directory is offline from now on.
    fn offline(&self, reason: &str);
}

/// The state that all logs of a directory share: its files, and whether they can still be written.
pub(super) struct DirState {
    root: PathBuf,
    pub(super) files: OpenFiles,
    failure: OnceLock<String>,
    /// Held while the marks of the run are written or removed. So a writer of a mark does not
    /// restore what a failure is removing.
    run: Mutex<()>,
    observer: OnceLock<Box<dyn LogDirObserver>>,
}

impl DirState {
    /// A directory that can be written.
    pub(super) fn new(root: &Path, storage: Arc<dyn Storage>, open_files_max: usize) -> Self {
        Self {
            root: root.to_owned(),
            files: OpenFiles::new(storage, open_files_max),
            failure: OnceLock::new(),
            run: Mutex::new(()),
            observer: OnceLock::new(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn storage(&self) -> &dyn Storage {
        self.files.storage().as_ref()
    }

    pub(super) fn is_offline(&self) -> bool {
        self.failure.get().is_some()
    }

    /// The reason why it is offline, if it is.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Sets the observer. Only the first call has an effect.
    pub(super) fn observe(&self, observer: Box<dyn LogDirObserver>) {
        let _ = self.observer.set(observer);
    }

    pub(super) fn flushed(&self, logs: usize, took: Duration) {
        if let Some(observer) = self.observer.get() {
            observer.flushed(logs, took);
        }
    }

    /// Takes the directory offline. Only the first reason is kept.
    pub(super) fn fail(&self, reason: String) {
        if self.failure.set(reason).is_ok() {
            let reason = self.failure.get().map_or("", String::as_str);
            error!(directory = %self.root.display(), reason, "the log directory is offline; it is read from, and not written to any more");
            let one = self.run.lock();
            identity::mark_unclean(self.storage(), &self.root);
            drop(one);
            if let Some(observer) = self.observer.get() {
                observer.offline(reason);
            }
        }
    }

    /// Writes a mark of the run, unless the directory is offline.
    pub(super) fn vouch_for_run(
        &self,
        write: impl FnOnce(&dyn Storage, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let _one = self.run.lock();
        match self.failure.get() {
            Some(reason) => Err(io::Error::other(reason.clone())),
            None => write(self.storage(), &self.root),
        }
    }
}

impl std::fmt::Debug for DirState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogDir")
            .field("root", &self.root)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}
