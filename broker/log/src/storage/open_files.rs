//! The files of segments: opened on first use, and closed when too many are open.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{File, Mode, Storage};

/// A file that is opened on first use and may be closed in between. This bounds the number of open
/// files, whatever the number of segments.
#[derive(Debug)]
pub(crate) struct Lazy {
    path: parking_lot::Mutex<PathBuf>,
    open: parking_lot::Mutex<Option<Arc<dyn File>>>,
    used: std::sync::atomic::AtomicBool,
}

/// Bounds the number of open files: closes one that was not used lately.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    storage: Arc<dyn Storage>,
    open_max: usize,
    open: parking_lot::Mutex<std::collections::VecDeque<std::sync::Weak<Lazy>>>,
}

impl Lazy {
    /// Creates a closed file at `path`.
    pub(crate) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            path: parking_lot::Mutex::new(path),
            open: parking_lot::Mutex::new(None),
            used: Default::default(),
        })
    }

    /// Its path.
    pub(crate) fn path(&self) -> PathBuf {
        self.path.lock().clone()
    }

    /// Renames it; no thread can open it meanwhile.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub(crate) fn rename(&self, storage: &dyn Storage, to: PathBuf) -> io::Result<()> {
        let _closed = self.open.lock();
        let mut path = self.path.lock();
        storage.rename(&path, &to)?;
        *path = to;
        Ok(())
    }

    /// Sets the path after a rename.
    pub(crate) fn moved(&self, path: PathBuf) {
        *self.path.lock() = path;
    }
}

impl OpenFiles {
    /// Creates a cache of at most `open_max` open files of `storage`.
    pub(crate) fn new(storage: Arc<dyn Storage>, open_max: usize) -> Self {
        Self { storage, open_max, open: parking_lot::Mutex::default() }
    }

    /// The underlying storage.
    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Returns the open file. It stays usable while it is held, even if the cache closes it or the
    /// file is removed meanwhile.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn get(&self, lazy: &Arc<Lazy>, mode: Mode) -> io::Result<Arc<dyn File>> {
        lazy.used.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut slot = lazy.open.lock();
        if let Some(file) = &*slot {
            return Ok(Arc::clone(file));
        }
        let file = self.storage.open(&lazy.path(), mode)?;
        *slot = Some(Arc::clone(&file));
        drop(slot);
        self.opened(lazy);
        Ok(file)
    }

    /// Counts a file as open, and closes others while there are too many. A file that was used
    /// since the last check stays for another turn.
    fn opened(&self, lazy: &Arc<Lazy>) {
        let mut open = self.open.lock();
        open.push_back(Arc::downgrade(lazy));
        let mut turns = 2 * open.len();
        while open.len() > self.open_max && turns > 0 {
            turns -= 1;
            let Some(candidate) = open.pop_front() else { break };
            let Some(file) = candidate.upgrade() else { continue };
            if Arc::ptr_eq(&file, lazy)
                || file.used.swap(false, std::sync::atomic::Ordering::Relaxed)
            {
                open.push_back(candidate);
            } else {
                *file.open.lock() = None;
            }
        }
    }
}
