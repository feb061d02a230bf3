//! Putting what was cleaned in the place of what was there: all of it or nothing.
//!
//! What stays of one segment rests on what goes of others: a tombstone goes with the values before
//! it, the entry of an aborted transaction with its records. So nothing is put in place where a
//! segment has been deleted or cut since it was read.
//!
//! The new segments are on the disk under names of their own that say which offsets they replace,
//! one after the other, before an old file goes; they get their places after the old ones are gone
//! for good and the catalogue knows them. A crash in between leaves names from which recovery does
//! the rest ([`finish`]). Those of the oldest segments come first: where only they are there, newer
//! records still are, and nothing older comes back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::LogWriter;
use super::super::logs::Logs;
use super::super::reader::LogReader;
use super::super::segment::{Segment, file_name};
use super::super::storage::Storage;

/// The files of a segment that are worth nothing without it. The snapshot of the first one that is
/// replaced says what was before it, which stays so.
const FILES: &[&str] = &["log", "index", "timeindex", "txnindex", "snapshot"];
const FILES_OF_FIRST: &[&str] = &["log", "index", "timeindex", "txnindex"];

/// A cleaned log, of which the new segments are not in place yet. Dropped, it leaves nothing
/// behind.
#[derive(Debug)]
pub struct Cleaned {
    /// Where cleaning ended: the next one begins here.
    pub end_offset: i64,
    /// Bytes of the segments before, and after.
    pub bytes: (u64, u64),
    /// How often the log had been cut when it was read.
    pub(super) truncations: u32,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) groups: Vec<Group>,
}

/// Segments, and the one that takes their place.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) old: Vec<Arc<Segment>>,
    pub(super) new: Arc<Segment>,
    /// Where what is replaced ends.
    pub(super) end_offset: i64,
}

impl Cleaned {
    /// Puts the new segments in the place of the old ones; returns false, and changes nothing,
    /// where the log was cut, emptied or deleted meanwhile, or has given up some of the old ones.
    /// When it fails the log directory is offline.
    ///
    /// # Errors
    /// When files cannot be renamed, removed or synced.
    pub fn swap_in(mut self, writer: &mut LogWriter) -> io::Result<bool> {
        let reader = writer.reader();
        if !self.is_of(&reader) {
            return Ok(false);
        }
        let swapped = self.put_in_place(&reader, &writer.logs);
        if let Err(error) = &swapped {
            let reason = format!("cannot swap segments in {}: {error}", reader.path().display());
            reader.dir.fail(reason);
        }
        swapped.map(|()| true)
    }

    /// Whether the log still begins with what was cleaned, and goes on behind it.
    fn is_of(&self, reader: &LogReader) -> bool {
        let old = || self.groups.iter().flat_map(|group| &group.old);
        reader.segments.load().len() > old().count() && begins_with(reader, self.truncations, old())
    }

    fn put_in_place(&mut self, reader: &LogReader, logs: &Logs) -> io::Result<()> {
        let (files, dir) = (&reader.dir.files, reader.path());
        let storage = files.storage().as_ref();
        for group in &self.groups {
            let name = swap_name(group.new.base_offset(), group.end_offset);
            group.new.records().rename(storage, dir.join(name))?;
            storage.sync_dir(&dir)?;
        }
        // From here on it will be in place, by recovery if need be.
        let groups = std::mem::take(&mut self.groups);
        for old in groups.iter().flat_map(|group| &group.old) {
            // Readers that hold the old segment go on with the open file. Should that be closed
            // under them they must not find the new one by its name.
            old.open(files)?;
        }
        let segments = reader.segments.load_full();
        let replaced: usize = groups.iter().map(|group| group.old.len()).sum();
        let rest = segments.get(replaced..).unwrap_or_default();
        let now: Vec<_> = groups.iter().map(|group| &group.new).chain(rest).cloned().collect();
        reader.segments.store(Arc::new(now));
        let end_offset = groups.last().map_or(0, |group| group.end_offset);
        reader.transactions.write().cleaned_up_to(end_offset);
        reader.cleaned.fetch_max(self.end_offset, Ordering::AcqRel);

        for group in &groups {
            for (index, old) in group.old.iter().enumerate() {
                let base = old.base_offset();
                old.records().moved(dir.join(file_name(base, "log.replaced")));
                remove_files(storage, &dir, base, if index == 0 { FILES_OF_FIRST } else { FILES })?;
            }
        }
        storage.sync_dir(&dir)?;
        logs.write_catalogue()?;
        for group in &groups {
            group
                .new
                .records()
                .rename(storage, dir.join(file_name(group.new.base_offset(), "log")))?;
            group.new.seal(files)?;
        }
        storage.sync_dir(&dir)
    }
}

impl Drop for Cleaned {
    fn drop(&mut self) {
        for group in &self.groups {
            // They count for nothing, and a start removes what is left of them.
            let _ = self.storage.remove_file(&group.new.records().path());
        }
    }
}

/// Whether a log that had been cut so often still begins with these segments.
pub(super) fn begins_with<'s>(
    reader: &LogReader,
    truncations: u32,
    segments: impl Iterator<Item = &'s Arc<Segment>>,
) -> bool {
    let now = reader.segments.load();
    let mut now = now.iter();
    let mut same = segments.map(|then| now.next().is_some_and(|now| Arc::ptr_eq(now, then)));
    same.all(|same| same)
        && reader.truncations.load(Ordering::Acquire) == truncations
        && !reader.is_deleted.load(Ordering::Acquire)
}

fn remove_files(
    storage: &dyn Storage,
    dir: &Path,
    base_offset: i64,
    extensions: &[&str],
) -> io::Result<()> {
    for extension in extensions {
        match storage.remove_file(&dir.join(file_name(base_offset, extension))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The name of a segment that is about to replace those from one offset to another.
fn swap_name(base_offset: i64, end_offset: i64) -> String {
    format!("{base_offset:020}-{end_offset:020}.swap")
}

fn parse_swap_name(name: &str) -> Option<(i64, i64)> {
    let (base, end) = name.strip_suffix(".swap")?.split_once('-')?;
    let (base, end) = (base.parse().ok()?, end.parse().ok()?);
    (0 <= base && base < end && swap_name(base, end) == name).then_some((base, end))
}

/// Puts what a crash has left on its way in its place. Returns the base offsets of those segments:
/// nothing that was known of a segment of that name is true of them.
///
/// # Errors
/// When files cannot be renamed, removed or synced.
pub(in crate::log) fn finish(storage: &dyn Storage, dir: &Path) -> io::Result<Vec<i64>> {
    let names: Vec<String> = storage
        .list(dir)?
        .into_iter()
        .filter(|entry| !entry.is_dir)
        .map(|entry| entry.name)
        .collect();
    let waiting: Vec<(i64, i64, PathBuf)> = names
        .iter()
        .filter_map(|name| parse_swap_name(name).map(|(base, end)| (base, end, dir.join(name))))
        .collect();
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    let bases = names.iter().filter_map(|name| name.strip_suffix(".log")?.parse::<i64>().ok());
    for base in bases.chain(waiting.iter().map(|(base, ..)| *base)) {
        match waiting.iter().find(|(from, end, _)| (*from..*end).contains(&base)) {
            Some((from, ..)) if *from == base => remove_files(storage, dir, base, FILES_OF_FIRST)?,
            Some(_) => remove_files(storage, dir, base, FILES)?,
            None => {}
        }
    }
    storage.sync_dir(dir)?;
    for (base, _, path) in &waiting {
        storage.rename(path, &dir.join(file_name(*base, "log")))?;
    }
    storage.sync_dir(dir)?;
    Ok(waiting.into_iter().map(|(base, ..)| base).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_is_replaced() {
        assert_eq!(parse_swap_name(&swap_name(7, 40)), Some((7, 40)));
        assert_eq!(swap_name(7, 40), "00000000000000000007-00000000000000000040.swap");
        for name in [
            "7-40.swap",
            "00000000000000000040-00000000000000000007.swap",
            "00000000000000000007.swap",
            "00000000000000000007.log",
        ] {
            assert_eq!(parse_swap_name(name), None, "{name}");
        }
    }
}
