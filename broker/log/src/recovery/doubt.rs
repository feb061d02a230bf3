//! The note on the disk that a log may lack records.
//!
//! A recovery may be interrupted. What it has cut by then is no longer there to be seen, so the
//! note is on the disk before anything is cut.

use std::io;
use std::path::Path;

use parking_lot::Mutex;

use super::super::identity::{self, PreviousShutdown};
use super::super::storage::Storage;

/// Whether the logs of a directory may lack records that other replicas have.
pub(crate) struct Doubt<'a> {
    storage: &'a dyn Storage,
    root: &'a Path,
    left: PreviousShutdown,
    is_noted: Mutex<bool>,
}

impl<'a> Doubt<'a> {
    /// No doubt but that of the last run.
    pub(crate) fn new(storage: &'a dyn Storage, root: &'a Path, left: PreviousShutdown) -> Self {
        Self { storage, root, left, is_noted: Mutex::new(false) }
    }

    /// Whether the last run left logs that count as whole, so that only this start can find that
    /// they are not.
    pub(super) fn is_first(&self) -> bool {
        self.left.whole
    }

    /// Whether the file of what changed after the catalogue can be believed: it is not synced, so
    /// the kernel must have run on. After a clean stop the catalogue has everything.
    pub(super) fn knows_changes(&self) -> bool {
        self.left.whole && !self.left.orderly
    }

    /// Whether the catalogue has each segment as it was left: it is that of a clean stop.
    pub(super) fn knows_segments(&self) -> bool {
        self.left.orderly
    }

    /// Notes it, synced. A log that does not count as whole anyway needs no note: the files of the
    /// last run say so until this one begins, and they also say whether its writes can be trusted.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn note(&self) -> io::Result<()> {
        let mut is_noted = self.is_noted.lock();
        if !*is_noted && self.left.whole {
            identity::note_doubt(self.storage, self.root, self.left.broker_epoch)?;
        }
        *is_noted = true;
        Ok(())
    }

    /// Whether it is noted.
    pub(crate) fn is_noted(&self) -> bool {
        *self.is_noted.lock()
    }
}
