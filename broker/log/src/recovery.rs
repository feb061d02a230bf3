//! Opens logs after a crash. The files on the disk decide, and only the part after the recovery
//! point is in doubt.
//!
//! Recovery cuts off the tail after the last whole batch beyond the recovery point. That tail was
//! never flushed, so under `flush.mode=group` it was never acknowledged. Recovery never cuts before
//! the recovery point, even if there is damage. The log stays readable around the damage and
//! continues after it. Only [`super::LogDir::open`] calls it.

mod doubt;
mod evidence;
mod examine;
#[cfg(any(test, fuzzing))]
mod fuzzed;
mod log;
mod progress;

pub(super) use doubt::Doubt;
#[cfg(any(test, fuzzing))]
pub use fuzzed::recover_bytes;
pub use progress::{Recovered, Recovery};

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tracing::{error, error_span, info, warn};
use uuid::Uuid;
use weir_protocol::types::{TopicId, TopicPartition};

use super::catalogue::LogCheckpoint;
use super::dir_state::DirState;
use super::directories::{self, Changes, dir_name};
use super::partition_dir::{
    PARTITION_METADATA, STRAY, aside, metadata_text, parse_dir_name, said_in,
};
use super::storage::{Mode, Storage, replace_file};
use log::Recovering;
use progress::Share;

/// The logs in the catalogue, by topic, partition and topic id.
type Known = HashMap<(String, i32, Uuid), LogCheckpoint>;

/// Recovers every log in the directory, on `threads` threads. `remembered` is the content of the
/// catalogue, if there is one. With `disowned`, recovery rewrites the data that it checks: after a
/// failed flush the kernel returns it, but would not write it. That a log lacks records is noted in
/// `doubt` before anything is cut. Recovery reports to `progress`.
///
/// # Errors
/// When the directory cannot be read or written. Damage in it is no error.
pub(super) fn recover_all(
    dir: &DirState,
    remembered: Option<Vec<LogCheckpoint>>,
    (disowned, doubt): (bool, &Doubt<'_>),
    threads: usize,
    progress: &Recovery,
) -> io::Result<Vec<LogCheckpoint>> {
    let storage = dir.storage();
    let changes = match doubt.knows_changes() {
        true => directories::read(storage, dir.root()),
        false => Changes::default(),
    };
    let expected = directories::expected(remembered.as_deref().unwrap_or_default(), &changes);
    let how = How { disowned, doubt, changes };
    let key = |log: LogCheckpoint| ((log.topic.clone(), log.partition, log.topic_id), log);
    let known: Option<Known> = remembered.map(|logs| logs.into_iter().map(key).collect());
    let mut dirs = Vec::new();
    for entry in storage.list(dir.root())?.into_iter().filter(|entry| entry.is_dir) {
        if entry.name.ends_with("-delete") {
            info!(directory = entry.name, "finishing a deletion");
            storage.remove_dir_all(&dir.root().join(&entry.name))?;
            progress.steps();
        } else if let Some((topic, partition)) = parse_dir_name(&entry.name) {
            dirs.push((topic.to_owned(), partition));
        } else if !entry.name.ends_with("-stray") && entry.name != "lost+found" {
            warn!(directory = entry.name, "not a partition's directory; it is left alone");
        }
    }
    progress.begins(dirs.len());
    let sizes = Mutex::new(HashMap::with_capacity(dirs.len()));
    side_by_side(threads, &dirs, |(topic, partition)| {
        let bytes = bytes_of(storage, &dir_of(dir, topic, *partition));
        progress.has(bytes);
        sizes.lock().insert((topic.clone(), *partition), bytes);
    });
    let sizes = sizes.into_inner();
    let recovered = Mutex::new(Vec::with_capacity(dirs.len()));
    let failed = Mutex::new(None);
    side_by_side(threads, &dirs, |(topic, partition)| {
        let bytes = sizes.get(&(topic.clone(), *partition)).copied().unwrap_or_default();
        let mut share = Share::new(progress, bytes);
        match recover(dir, (topic, *partition), known.as_ref(), &how, &mut share) {
            Ok(log) => recovered.lock().extend(log),
            Err(error) => {
                *failed.lock() = Some(io::Error::new(
                    error.kind(),
                    format!("recover {topic}-{partition}: {error}"),
                ))
            }
        }
        drop(share);
        progress.recovered_log();
    });
    if let Some(error) = failed.into_inner() {
        return Err(error);
    }
    let recovered = recovered.into_inner();
    let there: HashMap<String, Uuid> =
        recovered.iter().map(|log| (dir_name(&log.topic, log.partition), log.topic_id)).collect();
    for (directory, id) in expected.iter().filter(|(name, id)| there.get(*name) != Some(*id)) {
        error!(directory, topic_id = %TopicId(*id), "this log was here in the last run, and is gone; the controller is told that records may be lost");
        doubt.note()?;
    }
    // Writes of the process that died may still be only in the page cache. From now on they count
    // as flushed.
    storage.sync_all(dir.root())?;
    Ok(recovered)
}

/// Calls `act` for each item, on at most `threads` threads.
pub(super) fn side_by_side<T: Sync>(threads: usize, all: &[T], act: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, all.len().max(1)) {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    act(one);
                }
            });
        }
    });
}

fn dir_of(dir: &DirState, topic: &str, partition: i32) -> PathBuf {
    dir.root().join(format!("{topic}-{partition}"))
}

/// Returns the bytes of a log's segments, for the progress only. It ignores errors, because
/// recovery meets them itself.
fn bytes_of(storage: &dyn Storage, dir: &Path) -> u64 {
    let entries = storage.list(dir).unwrap_or_default();
    let segments = entries.iter().filter(|entry| !entry.is_dir && entry.name.ends_with(".log"));
    let bytes = segments.map(|entry| {
        let length =
            storage.open(&dir.join(&entry.name), Mode::Existing).and_then(|file| file.length());
        length.unwrap_or_default()
    });
    bytes.sum()
}

/// Returns the topic id of the log with records that the catalogue has under this name, if there is
/// exactly one.
fn remembered_id(known: &Known, topic: &str, partition: i32) -> Option<Uuid> {
    let mut logs = known
        .values()
        .filter(|log| log.topic == topic && log.partition == partition && !log.segments.is_empty());
    logs.next().filter(|_| logs.next().is_none()).map(|log| log.topic_id)
}

/// How logs are recovered.
struct How<'a> {
    disowned: bool,
    doubt: &'a Doubt<'a>,
    /// What changed after the catalogue.
    changes: Changes,
}

fn recover(
    state: &DirState,
    (topic, partition): (&str, i32),
    known: Option<&Known>,
    how: &How<'_>,
    share: &mut Share<'_>,
) -> io::Result<Option<LogCheckpoint>> {
    // Every line of the recovery of a log names the partition.
    let _partition = error_span!("partition", topic, partition).entered();
    let dir = dir_of(state, topic, partition);
    let said = said_in(state.storage(), &dir)?;
    if let Some(other) = said.partition.filter(|other| *other != partition) {
        // The log of this partition is noticed to be missing.
        let to = state.root().join(aside(topic, partition, STRAY));
        error!(directory = %dir.display(), to = %to.display(), partition = other, "it is the directory of another partition; it is set aside");
        how.doubt.note()?;
        state.storage().rename(&dir, &to)?;
        return Ok(None);
    }
    let Some(id) = said.topic_id.or_else(|| remembered_id(known?, topic, partition)) else {
        warn!(directory = %dir.display(), "a log does not say which topic id it belongs to; it is left alone");
        return Ok(None);
    };
    if said.topic_id.is_none() {
        warn!(directory = %dir.display(), topic_id = %TopicId(id), "a log does not say which topic id it belongs to; it gets the one in the catalogue");
    }
    if how.disowned || said.topic_id.is_none() {
        let id = TopicPartition { topic: id.into(), index: partition };
        let text = metadata_text(id);
        replace_file(state.storage(), &dir.join(PARTITION_METADATA), text.as_bytes())?;
    }
    let remembered = known.and_then(|known| known.get(&(topic.to_owned(), partition, id)));
    let has_catalogue = known.is_some();
    let newest = how.changes.newest(&dir_name(topic, partition));
    let known = (remembered, newest);
    let mut log =
        Recovering::new(state.storage(), &dir, known, has_catalogue, how.disowned, how.doubt)?;
    log.run(share)?;
    if log.loses() {
        error!(log = %dir.display(), "the log has lost records, though the machine went on running; the controller is told");
    }
    Ok(Some(log.finish(topic, partition, id)))
}
