//! Replaces old segments by cleaned ones: all of them or none.
//!
//! What one segment keeps depends on what others remove: a tombstone goes with the values before
//! it, and the entry of an aborted transaction with its records. So a swap is refused if one of the
//! segments has been deleted or truncated since it was read.
//!
//! The swap renames the new segments, one after the other, to names that say which offsets they
//! replace. Only then does it remove the old files. It gives the new segments their final names
//! after the removals are on the disk and the catalogue knows them. After a crash in between,
//! recovery completes the swap from those names ([`finish`]). The oldest segments are renamed
//! first. If a crash leaves only some of them, the newer records still exist, so no older value
//! comes back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::LogWriter;
use super::super::logs::Logs;
use super::super::reader::LogReader;
use super::super::segment::{Segment, file_name};
use super::super::storage::Storage;

/// The files that have no use without their segment. The first replaced segment keeps its snapshot,
/// because the snapshot describes what was before it, and that stays.
const FILES: &[&str] = &["log", "index", "timeindex", "txnindex", "snapshot"];
const FILES_OF_FIRST: &[&str] = &["log", "index", "timeindex", "txnindex"];

/// A cleaned log whose new segments are not in place yet. Drop removes their files.
#[derive(Debug)]
pub struct Cleaned {
    /// The offset at which cleaning ended; the next cleaning begins here.
    pub end_offset: i64,
    /// Bytes of the segments before and after.
    pub bytes: (u64, u64),
    /// The base offset of the first batch that stays as it is because its records cannot be read,
    /// or are too large to be decompressed. Tombstones behind it stay as well.
    pub unread: Option<i64>,
    /// How often the log had been truncated when the plan was made.
    pub(super) truncations: u32,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) groups: Vec<Group>,
}

/// Old segments, and the new one that replaces them.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) old: Vec<Arc<Segment>>,
    pub(super) new: Arc<Segment>,
    /// The end of the replaced offsets.
    pub(super) end_offset: i64,
}

impl Cleaned {
    /// Replaces the old segments by the new ones. Returns false, and changes nothing, if the log
    /// was truncated, emptied or deleted meanwhile, or gave up some of the old segments. A failure
    /// takes the log directory offline.
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

    /// Returns whether the log still begins with the cleaned segments and has more after them.
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
        // From here on the swap will complete, if need be by recovery.
        let groups = std::mem::take(&mut self.groups);
        for old in groups.iter().flat_map(|group| &group.old) {
            // Readers that hold the old segment continue with the open file. If the cache closes
            // it, they must not find the new segment by its name.
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
            // The log does not use these files, and a start removes any that are left.
            let _ = self.storage.remove_file(&group.new.records().path());
        }
    }
}

/// Returns whether a log with this number of truncations still begins with these segments.
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

/// The temporary name of a segment that is about to replace the offsets from `base_offset` to
/// `end_offset`.
fn swap_name(base_offset: i64, end_offset: i64) -> String {
    format!("{base_offset:020}-{end_offset:020}.swap")
}

fn parse_swap_name(name: &str) -> Option<(i64, i64)> {
    let (base, end) = name.strip_suffix(".swap")?.split_once('-')?;
    let (base, end) = (base.parse().ok()?, end.parse().ok()?);
    (0 <= base && base < end && swap_name(base, end) == name).then_some((base, end))
}

/// Completes a swap that a crash interrupted. Returns the base offsets of the new segments: an
/// older description of a segment with that base offset is no longer valid.
///
/// # Errors
/// When files cannot be renamed, removed or synced.
pub(crate) fn finish(storage: &dyn Storage, dir: &Path) -> io::Result<Vec<i64>> {
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
