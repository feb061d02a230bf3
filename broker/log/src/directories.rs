//! The directories of logs, and the segments, that came and went since the catalogue was written.
//!
//! The catalogue names the logs of a directory and their segments, and is written every half
//! minute. This file has a line for each log that was made, deleted or set aside since, and for
//! each segment that became the newest of its log. So after a kill a start knows which there were,
//! and a missing one is noticed. Nothing is synced: a start believes the file of its own boot only,
//! whose writes the kernel still has.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::catalogue::LogCheckpoint;
use super::storage::{File, Mode, Storage, put_in_place, read_file, stage_file};

const FILE: &str = "directories";

/// The largest file that is read: some million changes between two catalogues.
const BYTES_MAX: u64 = 256 << 20;

/// What happened to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It was made for the log of this topic.
    Came(Uuid),
    /// It was renamed, because its log is deleted or set aside.
    Went,
    /// The newest segment of its log begins at this offset.
    Newest(i64),
}

/// The last change of each directory, and the newest segment of each, by the name of the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    directories: BTreeMap<String, Change>,
    newest: BTreeMap<String, i64>,
}

impl Changes {
    /// The base offset of the newest segment that the log in this directory had.
    pub(super) fn newest(&self, name: &str) -> Option<i64> {
        self.newest.get(name).copied()
    }

    fn take(&mut self, name: &str, change: Change) {
        match change {
            Change::Newest(base) => drop(self.newest.insert(name.to_owned(), base)),
            change => {
                self.newest.remove(name);
                self.directories.insert(name.to_owned(), change);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.directories.is_empty() && self.newest.is_empty()
    }

    /// Drops what a catalogue knows.
    fn drop_known(&mut self, catalogue: &[LogCheckpoint]) {
        let named: BTreeMap<_, _> = catalogue
            .iter()
            .filter(|log| !log.segments.is_empty())
            .map(|log| {
                let newest = log.segments.last().map(|last| last.base_offset);
                (dir_name(&log.topic, log.partition), (log.topic_id, newest))
            })
            .collect();
        self.directories.retain(|name, change| match change {
            Change::Came(id) => named.get(name).is_none_or(|(known, _)| known != id),
            Change::Went => named.contains_key(name),
            Change::Newest(_) => false,
        });
        self.newest
            .retain(|name, base| named.get(name).is_none_or(|(_, newest)| *newest != Some(*base)));
    }

    fn to_text(&self) -> String {
        let directories = self.directories.iter().map(|(name, change)| line(name, *change));
        let newest = self.newest.iter().map(|(name, base)| line(name, Change::Newest(*base)));
        directories.chain(newest).collect()
    }
}

/// The changes of this run.
#[derive(Debug, Default)]
pub(super) struct Directories(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    changes: Changes,
    /// The file, once it was written to.
    file: Option<Arc<dyn File>>,
    length: u64,
    /// Lines that could not be written.
    pending: String,
}

/// The name of a log's directory.
pub(super) fn dir_name(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// Reads what changed after the last catalogue of the last run. A line that is not whole is none:
/// the process died before it acted.
pub(super) fn read(storage: &dyn Storage, root: &Path) -> Changes {
    let bytes = match read_file(storage, &root.join(FILE), BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(directory = %root.display(), %error, "cannot read which logs came and went; those of the catalogue are looked for");
            }
            return Changes::default();
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    let mut changes = Changes::default();
    for (name, change) in whole.lines().filter_map(parse) {
        changes.take(&name, change);
    }
    changes
}

fn parse(line: &str) -> Option<(String, Change)> {
    if let Some(name) = line.strip_prefix('-') {
        return Some((name.to_owned(), Change::Went));
    }
    if let Some(rest) = line.strip_prefix('=') {
        let (name, base) = rest.rsplit_once(' ')?;
        return Some((name.to_owned(), Change::Newest(base.parse().ok()?)));
    }
    let (name, id) = line.strip_prefix('+')?.rsplit_once(' ')?;
    Some((name.to_owned(), Change::Came(id.parse().ok()?)))
}

fn line(name: &str, change: Change) -> String {
    match change {
        Change::Came(id) => format!("+{name} {id}\n"),
        Change::Went => format!("-{name}\n"),
        Change::Newest(base) => format!("={name} {base}\n"),
    }
}

impl Directories {
    /// Notes a change. A line that cannot be written is written with the next one. A start that
    /// lacks it may not miss a log, or may miss one that went, which costs this replica its place
    /// in the ISR: no reason to take the log directory offline.
    pub(super) fn changes(&self, storage: &dyn Storage, root: &Path, name: &str, change: Change) {
        let mut state = self.0.lock();
        state.changes.take(name, change);
        state.pending.push_str(&line(name, change));
        if let Err(error) = state.append(storage, root) {
            warn_of(root, &error);
        }
    }

    /// Drops the changes that the catalogue knows, which was just written with these logs.
    pub(super) fn are_in(&self, storage: &dyn Storage, root: &Path, catalogue: &[LogCheckpoint]) {
        let mut state = self.0.lock();
        if state.changes.is_empty() {
            return;
        }
        state.changes.drop_known(catalogue);
        let text = state.changes.to_text();
        // At each moment the file has all changes that the catalogue may lack.
        let path = root.join(FILE);
        let replaced = stage_file(storage, &path, text.as_bytes())
            .and_then(|file| put_in_place(storage, &path).map(|()| file));
        match replaced {
            Ok(file) => {
                (state.file, state.length) = (Some(file), text.len() as u64);
                state.pending.clear();
            }
            // The old file stays: it has more than it needs.
            Err(error) => warn_of(root, &error),
        }
    }
}

impl State {
    /// Writes the lines that are not in the file yet.
    fn append(&mut self, storage: &dyn Storage, root: &Path) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = storage.open(&root.join(FILE), Mode::Create)?;
                file.truncate(0)?;
                self.file = Some(Arc::clone(&file));
                file
            }
        };
        file.write_all_at(&mut [IoSlice::new(self.pending.as_bytes())], self.length)?;
        self.length += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

fn warn_of(root: &Path, error: &io::Error) {
    tracing::warn!(file = %root.join(FILE).display(), %error, "cannot note which logs came and went; it is tried again with the next one and with the next catalogue");
}

/// Removes the file: the catalogue knows everything.
///
/// # Errors
/// When it cannot be removed.
pub(super) fn begin(storage: &dyn Storage, root: &Path) -> io::Result<()> {
    match storage.remove_file(&root.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns the logs with records that the last run had, by the name of their directory.
pub(super) fn expected(catalogue: &[LogCheckpoint], changes: &Changes) -> BTreeMap<String, Uuid> {
    let with_records = catalogue.iter().filter(|log| !log.segments.is_empty());
    let mut expected: BTreeMap<_, _> =
        with_records.map(|log| (dir_name(&log.topic, log.partition), log.topic_id)).collect();
    for (name, change) in &changes.directories {
        match change {
            Change::Came(id) => drop(expected.insert(name.clone(), *id)),
            Change::Went => drop(expected.remove(name)),
            Change::Newest(_) => {}
        }
    }
    expected
}

#[cfg(test)]
mod tests {
    use super::super::segment::SegmentSummary;
    use super::super::storage::Disk;
    use super::*;

    fn log(topic: &str, id: u128) -> LogCheckpoint {
        LogCheckpoint {
            topic: topic.to_owned(),
            topic_id: Uuid::from_u128(id),
            segments: vec![SegmentSummary::empty(0, 1)],
            ..LogCheckpoint::default()
        }
    }

    #[test]
    fn what_came_and_went_is_known_until_the_catalogue_knows_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let came = |id| Change::Came(Uuid::from_u128(id));
        let directories = Directories::default();
        let note = |name: &str, change| directories.changes(&Disk, root, name, change);
        let left = || std::fs::read_to_string(root.join(FILE)).unwrap();
        assert_eq!(read(&Disk, root), Changes::default());
        note("a-0", came(1));
        note("b-0", came(2));
        note("a-0", Change::Newest(7));
        note("a-0", Change::Went);
        note("a-0", came(3));
        note("b-0", Change::Newest(0));
        note("b-0", Change::Newest(50));
        let found = read(&Disk, root);
        assert_eq!((found.newest("a-0"), found.newest("b-0")), (None, Some(50)));
        let names: Vec<_> = expected(&[log("c", 4), log("b", 9)], &found)
            .into_iter()
            .map(|(name, id)| (name, id.as_u128()))
            .collect();
        let all = [("a-0".to_owned(), 3), ("b-0".to_owned(), 2), ("c-0".to_owned(), 4)];
        assert_eq!(names, all);
        // A catalogue that was collected before the second log of that name came, and before the
        // last roll of the other.
        directories.are_in(&Disk, root, &[log("a", 1), log("b", 2)]);
        assert_eq!(left(), format!("+a-0 {}\n=b-0 50\n", Uuid::from_u128(3)));
        note("b-0", Change::Newest(0));
        note("b-0", Change::Went);
        directories.are_in(&Disk, root, &[log("a", 3), log("b", 2)]);
        assert_eq!(left(), "-b-0\n");
        directories.are_in(&Disk, root, &[log("a", 3)]);
        assert_eq!(left(), "");
        begin(&Disk, root).unwrap();
        assert!(!root.join(FILE).exists());
    }

    #[test]
    fn a_line_that_is_not_whole_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let id = Uuid::from_u128(1);
        let text = format!("+a-0 {id}\n-b-0\nnonsense\n=a-0 7\n=a-0 x\n=a-0 70");
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let changes = [("a-0".to_owned(), Change::Came(id)), ("b-0".to_owned(), Change::Went)];
        let newest = BTreeMap::from([("a-0".to_owned(), 7)]);
        let expected = Changes { directories: BTreeMap::from(changes), newest };
        assert_eq!(read(&Disk, dir.path()), expected);
    }
}
