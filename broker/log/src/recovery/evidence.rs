//! What the files beside the segments say of the end of a log.
//!
//! A process that dies loses nothing that it wrote. So a log that ends before what one of these
//! files says has lost records to something else.

use std::io;
use std::path::Path;

use super::super::catalogue::LogCheckpoint;
use super::super::epochs::Epochs;
use super::super::segment::file_name;
use super::super::storage::Storage;

/// The files that a segment leaves when it is sealed or closed, and only then.
const OF_SEGMENTS: [&str; 3] = ["index", "timeindex", "txnindex"];

/// What is beside the segments of a log.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// The base offset of its newest segment, where that became the newest after the catalogue.
    pub(super) newest: Option<i64>,
    /// The log had records up to there.
    pub(super) end: i64,
    /// The base offsets of segments that have other files.
    sealed: Vec<i64>,
    /// The base offsets of segments with a file of aborted transactions.
    pub(super) with_aborted: Vec<i64>,
}

impl Evidence {
    /// Reads the names of the files in `dir`. `epochs` are those of the file.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub(super) fn find(
        storage: &dyn Storage,
        dir: &Path,
        known: Option<&LogCheckpoint>,
        epochs: Option<&Epochs>,
    ) -> io::Result<Self> {
        let mut found = Self::default();
        // An epoch is written with its first record.
        let epochs = epochs.map(Epochs::entries).unwrap_or_default();
        let of_epochs = epochs.iter().skip(1).map(|entry| entry.start_offset + 1);
        let of_catalogue = known.map(|known| known.log_end_offset.max(known.recovery_point));
        found.end = of_epochs.chain(of_catalogue).max().unwrap_or_default();
        for entry in storage.list(dir)?.iter().filter(|entry| !entry.is_dir) {
            let Some((offset, extension)) = offset_in(&entry.name) else { continue };
            if extension == "snapshot" {
                found.end = found.end.max(offset);
            } else if OF_SEGMENTS.contains(&extension) {
                found.sealed.push(offset);
                if extension == "txnindex" {
                    found.with_aborted.push(offset);
                }
            }
        }
        Ok(found)
    }

    /// Drops what is said by segments in front of the first that the catalogue knows. It is written
    /// before they are deleted, and a crash may bring back any of their files.
    pub(super) fn forget_before(&mut self, known: Option<&LogCheckpoint>) {
        let Some(first) = known.and_then(|known| known.segments.first()) else { return };
        self.sealed.retain(|base| *base >= first.base_offset);
        self.newest = self.newest.filter(|base| *base >= first.base_offset);
    }

    /// Returns the base offsets of segments behind the one at `last` that have other files.
    pub(super) fn sealed_behind(&self, last: Option<i64>) -> impl Iterator<Item = i64> {
        self.sealed.iter().copied().filter(move |base| last.is_none_or(|last| *base > last))
    }
}

/// Parses the name of a log's file: an offset and an extension.
fn offset_in(name: &str) -> Option<(i64, &str)> {
    let (offset, extension) = name.split_once('.')?;
    let offset = offset.parse().ok().filter(|offset| *offset >= 0)?;
    (file_name(offset, extension) == name).then_some((offset, extension))
}

/// Removes the files of segments that are gone, because they say nothing of the log any more.
///
/// # Errors
/// When they cannot be removed.
pub(super) fn remove_of_segment(storage: &dyn Storage, dir: &Path, base: i64) -> io::Result<()> {
    for extension in OF_SEGMENTS {
        match storage.remove_file(&dir.join(file_name(base, extension))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
