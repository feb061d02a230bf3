//! Compares the catalogue of a clean stop with the logs that are there: with the names of their
//! files, with the end of the newest segment, and with what a directory says of its owner.
//!
//! A start trusts that catalogue and opens no segment. They differ when a person has moved,
//! exchanged or removed something, or when the run that wrote the catalogue did not know a log.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use parking_lot::Mutex;

use super::catalogue::LogCheckpoint;
use super::directories::dir_name;
use super::partition_dir::{parse_dir_name, said_in};
use super::recovery::side_by_side;
use super::segment::file_name;
use super::storage::{Mode, Storage};

/// The differences between a catalogue and the existing directories.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    /// Partition directories for which the catalogue has no records.
    pub(crate) unnamed: Vec<String>,
    /// Directories for which the catalogue has records and which do not exist.
    pub(crate) missing: Vec<String>,
    /// Directories that lack records of the catalogue, or have those of another log.
    pub(crate) other: Vec<String>,
}

impl Differences {
    /// Returns whether there are no differences.
    pub(crate) fn is_none(&self) -> bool {
        self.unnamed.is_empty() && !self.loses()
    }

    /// Returns whether records may be lost.
    pub(crate) fn loses(&self) -> bool {
        !self.missing.is_empty() || !self.other.is_empty()
    }
}

/// Compares the catalogue with the disk, on `threads` threads, and logs each difference. A log
/// without one of its files of aborted transactions gets them from its records when they are first
/// needed.
///
/// # Errors
/// When the log directory cannot be listed.
pub(super) fn compare(
    storage: &dyn Storage,
    root: &Path,
    logs: &mut [LogCheckpoint],
    threads: usize,
) -> io::Result<Differences> {
    let entries = storage.list(root)?.into_iter().filter(|entry| entry.is_dir);
    let there: BTreeSet<String> =
        entries.map(|entry| entry.name).filter(|name| parse_dir_name(name).is_some()).collect();
    // A log that never had an append has no directory.
    let named: BTreeSet<String> = logs
        .iter()
        .filter(|log| !log.segments.is_empty())
        .map(|log| dir_name(&log.topic, log.partition))
        .collect();
    let mut differences = Differences {
        unnamed: there.difference(&named).cloned().collect(),
        missing: named.difference(&there).cloned().collect(),
        other: Vec::new(),
    };
    let (other, lacking) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let all: Vec<(usize, &LogCheckpoint)> = logs
        .iter()
        .enumerate()
        .filter(|(_, log)| there.contains(&dir_name(&log.topic, log.partition)))
        .filter(|(_, log)| !log.segments.is_empty())
        .collect();
    side_by_side(threads, &all, |(index, log)| {
        let name = dir_name(&log.topic, log.partition);
        match compare_one(storage, &root.join(&name), log) {
            Ok(Found::Same) => {}
            Ok(Found::LacksAborted) => lacking.lock().push(*index),
            Ok(Found::Other(why)) => {
                tracing::error!(
                    directory = name,
                    why,
                    "this log is not as it was when the broker was stopped; all logs are looked at, and the controller is told that records may be lost"
                );
                other.lock().push(name);
            }
            Err(error) => {
                tracing::error!(directory = name, %error, "cannot look at this log; all logs are looked at");
                other.lock().push(name);
            }
        }
    });
    differences.other = other.into_inner();
    for index in lacking.into_inner() {
        if let Some(log) = logs.get_mut(index) {
            tracing::warn!(
                directory = dir_name(&log.topic, log.partition),
                "a file of aborted transactions is gone; they are taken from the log"
            );
            log.lacks_transaction_index = true;
        }
    }
    for directory in &differences.unnamed {
        tracing::warn!(
            directory,
            "the catalogue of a clean stop does not know this log; all logs are looked at"
        );
    }
    for directory in &differences.missing {
        tracing::error!(
            directory,
            "this log was here when the broker was stopped, and is gone; the controller is told that records may be lost"
        );
    }
    Ok(differences)
}

/// What there is of a log.
enum Found {
    Same,
    /// A file of aborted transactions is gone.
    LacksAborted,
    /// Records are gone, or there are those of another log.
    Other(String),
}

fn compare_one(storage: &dyn Storage, dir: &Path, log: &LogCheckpoint) -> io::Result<Found> {
    if said_in(storage, dir)?.contradicts(log.topic_id, log.partition) {
        return Ok(Found::Other("it is the directory of another log".to_owned()));
    }
    let there: BTreeSet<String> = storage.list(dir)?.into_iter().map(|entry| entry.name).collect();
    let lacks = |base: i64, extension| !there.contains(&file_name(base, extension));
    if let Some(gone) = log.segments.iter().find(|it| lacks(it.base_offset, "log")) {
        return Ok(Found::Other(format!("the segment at offset {} is gone", gone.base_offset)));
    }
    if let Some(last) = log.segments.last() {
        let path = dir.join(file_name(last.base_offset, "log"));
        let length = storage.open(&path, Mode::Existing)?.length()?;
        if length != last.size_bytes {
            let (base, size) = (last.base_offset, last.size_bytes);
            return Ok(Found::Other(format!(
                "the segment at offset {base} has {length} bytes and had {size}"
            )));
        }
    }
    let mut segments = log.segments.iter();
    match segments.any(|segment| segment.has_aborted && lacks(segment.base_offset, "txnindex")) {
        true => Ok(Found::LacksAborted),
        false => Ok(Found::Same),
    }
}
