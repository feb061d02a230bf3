//! Opening logs after a crash: what is on the disk decides, and only what lies behind the recovery point is in doubt.
//!
//! The tail is cut at the last whole batch behind the recovery point: nothing behind it was ever flushed, so nothing behind it was acknowledged under
//! `flush.mode=group`. What lies before it is never cut, also when it is damaged: the log stays readable around the damage and goes on behind it.
//! Called by [`super::LogDir::open`] alone.

mod examine;
#[cfg(any(test, fuzzing))]
mod fuzzed;
mod log;
mod progress;

#[cfg(any(test, fuzzing))]
pub use fuzzed::recover_bytes;
pub use progress::{Recovered, Recovery};

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tracing::{info, warn};
use uuid::Uuid;
use weir_protocol::types::{LeaderEpoch, TopicId};

use super::catalogue::Remembered;
use super::dir::Shared;
use super::epochs::Epochs;
use super::storage::{Mode, Storage, read_file, replace_file};
use log::Recovering;
use progress::Share;

/// The logs that the catalogue remembers, by topic, partition and topic id.
type Known = HashMap<(String, i32, Uuid), Remembered>;

/// What the directory of a log ends with that is nobody's any more, and is not deleted.
pub(super) const STRAY: &str = "-stray";

/// What a directory of a partition says of itself (`partition.metadata`).
pub(super) const PARTITION_METADATA: &str = "partition.metadata";

/// Recovers every log in the directory, `threads` at a time. `remembered` is what the catalogue says, if there is one. With `disowned`, what is looked at is written again:
/// after a failed flush the kernel shows it, and would not write it. `progress` is told how far it is.
///
/// # Errors
/// When the directory cannot be read or written: damage in it is no error.
pub(super) fn recover_all(
    shared: &Shared,
    remembered: Option<Vec<Remembered>>,
    disowned: bool,
    threads: usize,
    progress: &Recovery,
) -> io::Result<Vec<Remembered>> {
    let storage = shared.storage();
    let key = |log: Remembered| ((log.topic.clone(), log.partition, log.topic_id), log);
    let known: Option<Known> = remembered.map(|logs| logs.into_iter().map(key).collect());
    let mut dirs = Vec::new();
    for entry in storage.list(shared.root())?.into_iter().filter(|entry| entry.is_dir) {
        if entry.name.ends_with("-delete") {
            info!(directory = entry.name, "finishing a deletion");
            storage.remove_dir_all(&shared.root().join(&entry.name))?;
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
        let bytes = bytes_of(storage, &dir_of(shared, topic, *partition));
        progress.has(bytes);
        sizes.lock().insert((topic.clone(), *partition), bytes);
    });
    let sizes = sizes.into_inner();
    let recovered = Mutex::new(Vec::with_capacity(dirs.len()));
    let failed = Mutex::new(None);
    side_by_side(threads, &dirs, |(topic, partition)| {
        let bytes = sizes.get(&(topic.clone(), *partition)).copied().unwrap_or_default();
        let mut share = Share::new(progress, bytes);
        match recover(shared, topic, *partition, known.as_ref(), disowned, &mut share) {
            Ok(log) => recovered.lock().extend(log),
            Err(error) => *failed.lock() = Some(io::Error::new(error.kind(), format!("recover {topic}-{partition}: {error}"))),
        }
        drop(share);
        progress.recovered_log();
    });
    if let Some(error) = failed.into_inner() {
        return Err(error);
    }
    // What was written by the process that died may still be only in memory; from now on it counts as flushed.
    storage.sync_all(shared.root())?;
    Ok(recovered.into_inner())
}

/// Does something for each, as many at a time as there are threads.
fn side_by_side<T: Sync>(threads: usize, all: &[T], act: impl Fn(&T) + Sync) {
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

fn dir_of(shared: &Shared, topic: &str, partition: i32) -> PathBuf {
    shared.root().join(format!("{topic}-{partition}"))
}

/// The bytes of a log's segments. Only to say how far recovery is: what cannot be read now is said by who needs it.
fn bytes_of(storage: &dyn Storage, dir: &Path) -> u64 {
    let entries = storage.list(dir).unwrap_or_default();
    let segments = entries.iter().filter(|entry| !entry.is_dir && entry.name.ends_with(".log"));
    let bytes = segments.map(|entry| {
        let length = storage.open(&dir.join(&entry.name), Mode::Existing).and_then(|file| file.length());
        length.unwrap_or_default()
    });
    bytes.sum()
}

/// What a partition's directory says of itself.
pub(super) fn metadata_text(topic: TopicId) -> String {
    format!("version: 0\ntopic_id: {topic}\n")
}

/// `<topic>-<partition>`, of which the topic may have dashes too.
fn parse_dir_name(name: &str) -> Option<(&str, i32)> {
    let (topic, partition) = name.rsplit_once('-')?;
    let index: i32 = partition.parse().ok()?;
    (!topic.is_empty() && index >= 0 && index.to_string() == partition).then_some((topic, index))
}

/// The topic id that a partition's directory names; `None` where it names none. That it cannot be read now does not mean that there is none.
fn topic_id(storage: &dyn Storage, dir: &Path) -> io::Result<Option<Uuid>> {
    let text = match read_file(storage, &dir.join(PARTITION_METADATA), 4096) {
        Ok(text) => String::from_utf8(text).unwrap_or_default(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) => return Ok(None),
        Err(error) => return Err(error),
    };
    let id = text.lines().find_map(|line| line.strip_prefix("topic_id:"));
    Ok(id.and_then(|id| TopicId::parse(id.trim())).map(|id| id.0))
}

fn recover(
    shared: &Shared,
    topic: &str,
    partition: i32,
    known: Option<&Known>,
    disowned: bool,
    share: &mut Share<'_>,
) -> io::Result<Option<Remembered>> {
    let dir = dir_of(shared, topic, partition);
    let Some(id) = topic_id(shared.storage(), &dir)? else {
        warn!(directory = %dir.display(), "it does not say which topic it belongs to; it is left alone");
        return Ok(None);
    };
    if disowned {
        replace_file(shared.storage(), &dir.join(PARTITION_METADATA), metadata_text(id.into()).as_bytes())?;
    }
    let remembered = known.and_then(|known| known.get(&(topic.to_owned(), partition, id)));
    let mut log = Recovering::new(shared.storage(), &dir, remembered, known.is_some(), disowned)?;
    log.run(share)?;
    Ok(Some(log.finish(topic, partition, id)))
}

/// A name that no other directory has, for what had the name of a partition's. Names of directories are no longer than this (`UnifiedLog.logDirNameWithSuffixCappedLength`).
pub(super) fn aside(topic: &str, partition: i32, suffix: &str) -> String {
    const BYTES_MAX: usize = 255;
    let rest = format!("-{partition}.{}{suffix}", Uuid::new_v4().simple());
    let topic = topic.get(..topic.len().min(BYTES_MAX.saturating_sub(rest.len()))).unwrap_or_default();
    format!("{topic}{rest}")
}

/// Sets aside a directory that stands where a new log is to be made and holds records: it was left alone since it does not say whose it is, and is not written over.
///
/// # Errors
/// When it cannot be looked at or renamed.
pub(super) fn set_aside_unknown(storage: &dyn Storage, dir: &Path, topic: &str, partition: i32) -> io::Result<()> {
    let entries = match storage.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    if !entries.iter().any(|entry| entry.name.ends_with(".log")) {
        return Ok(());
    }
    let to = dir.with_file_name(aside(topic, partition, STRAY));
    warn!(directory = %dir.display(), to = %to.display(), "a directory of unknown records stands where a log is to be made; it is set aside");
    storage.rename(dir, &to)
}

/// The epochs of a log that is remembered.
pub(super) fn epochs_of(log: &Remembered) -> Epochs {
    let mut epochs = Epochs::default();
    for &(epoch, start) in &log.epochs {
        epochs.assign(LeaderEpoch(epoch), start);
    }
    epochs
}
