//! The files of segments: opened when they are first needed, and closed while too many are open.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{File, Mode, Storage};

/// A file that is opened when it is first needed and may be closed in between: so the number of
/// open files has a bound, whatever the number of segments.
#[derive(Debug)]
pub(crate) struct Lazy {
    path: parking_lot::Mutex<PathBuf>,
    open: parking_lot::Mutex<Option<Arc<dyn File>>>,
    used: std::sync::atomic::AtomicBool,
}

/// Keeps the number of open files bounded: the one that was not used for longest is closed.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    storage: Arc<dyn Storage>,
    open_max: usize,
    open: parking_lot::Mutex<std::collections::VecDeque<std::sync::Weak<Lazy>>>,
}

impl Lazy {
    /// A file at `path` that is not open.
    pub(crate) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            path: parking_lot::Mutex::new(path),
            open: parking_lot::Mutex::new(None),
            used: Default::default(),
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.path.lock().clone()
    }

    /// Renames it; nobody opens it meanwhile.
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

    /// Says that it was renamed.
    pub(crate) fn moved(&self, path: PathBuf) {
        *self.path.lock() = path;
    }
}

impl OpenFiles {
    /// At most `open_max` files of `storage` are open.
    pub(crate) fn new(storage: Arc<dyn Storage>, open_max: usize) -> Self {
        Self { storage, open_max, open: parking_lot::Mutex::default() }
    }

    /// The storage below.
    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The open file; it stays usable while it is held, also when it is closed here or removed
    /// meanwhile.
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

    /// Counts a file as open and closes others while there are too many: those that were used since
    /// they were last looked at get another turn.
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
