//! Group commit: one thread flushes all waiting logs in one round.
//!
//! New requests gather while a round runs. A failed round is never repeated, because the kernel has
//! dropped the dirty pages by then. The log directory goes offline, and the next recovery
//! determines what is on the disk.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::dir_state::DirState;
use super::epochs;
use super::flush_queue::FlushQueue;
use super::partition_dir::PARTITION_METADATA;
use super::reader::{LogReader, Tail};
use super::storage::{Mode, Storage, put_in_place, replace_file, stage_file};

/// With at least this many logs, one sync of the whole file system costs less than one for each
/// file.
const SYNC_ALL_MIN: usize = 6;

/// The body of the flusher thread: runs rounds until the queue is stopped.
pub(super) fn run(dir: &DirState, queue: &FlushQueue<LogReader>) {
    while let Some(logs) = queue.next_round() {
        round(dir, queue, &logs);
    }
}

/// Flushes all of `logs`, then calls the hook of each.
fn round(dir: &DirState, queue: &FlushQueue<LogReader>, logs: &[Arc<LogReader>]) {
    let started = Instant::now();
    if in_turn(dir, queue, || flush_all(dir, logs, logs.len() >= SYNC_ALL_MIN)).is_ok() {
        dir.flushed(logs.len(), started.elapsed());
    }
    for log in logs {
        if let Some(hook) = log.on_flushed.get() {
            hook();
        }
    }
}

/// Runs one flush at a time. A failed flush takes the directory offline before the next one begins.
fn in_turn(
    dir: &DirState,
    queue: &FlushQueue<LogReader>,
    flush: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let _turn = queue.turn();
    if dir.is_offline() {
        return Err(io::Error::other("the log directory is offline"));
    }
    flush().inspect_err(|error| dir.fail(format!("cannot flush: {error}")))
}

/// Flushes all of `logs` on the caller's thread, and whatever else was written to the directory.
/// However many logs there are, that takes two syncs: a sync of each would exceed the time that a
/// stop has, where a disk needs milliseconds for one.
///
/// # Errors
/// When the flush fails; the log directory is then offline.
pub(super) fn flush_everything(
    dir: &DirState,
    queue: &FlushQueue<LogReader>,
    logs: &[Arc<LogReader>],
) -> io::Result<()> {
    in_turn(dir, queue, || flush_all(dir, logs, true))
}

fn flush_all(dir: &DirState, logs: &[Arc<LogReader>], whole_directory: bool) -> io::Result<()> {
    // This round covers the records that are published by now. A new request belongs to the next
    // round.
    let marks: Vec<Mark<'_>> =
        logs.iter().filter(|log| !skips(log)).map(|log| Mark::take(log)).collect();
    let storage = dir.files.storage().as_ref();
    let with_epochs = || marks.iter().filter(|mark| mark.epochs);
    if whole_directory {
        // So a thousand new logs cost two syncs instead of four thousand.
        for mark in with_epochs() {
            stage_file(storage, &epochs_path(mark.log), epochs_text(mark.log).as_bytes())?;
        }
        storage.sync_all(dir.root())?;
        for mark in with_epochs() {
            put_in_place(storage, &epochs_path(mark.log))?;
        }
        if with_epochs().next().is_some() {
            storage.sync_all(dir.root())?;
        }
    } else {
        for mark in with_epochs() {
            write_epochs(storage, mark.log)?;
        }
        for mark in &marks {
            mark.sync(dir)?;
        }
        if marks.iter().any(|mark| mark.directory) {
            storage.sync_dir(dir.root())?;
        }
    }
    for mark in marks {
        mark.publish();
    }
    Ok(())
}

/// Returns whether a log needs no flush any more. The request is completed all the same, so that a
/// later one is reported again.
fn skips(log: &LogReader) -> bool {
    let is_deleted = log.is_deleted();
    if is_deleted {
        log.flush_requested.store(false, Ordering::Release);
    }
    is_deleted
}

/// Flushes one log on the caller's thread, and writes its epochs even if none is new.
///
/// # Errors
/// When the flush fails; the log directory is then offline.
pub(super) fn flush_now(log: &LogReader) -> io::Result<()> {
    let dir = &log.dir;
    in_turn(dir, &log.flushes, || {
        let mark = Mark::take(log);
        write_epochs(dir.storage(), log)?;
        mark.sync(dir)?;
        if mark.directory {
            dir.storage().sync_dir(dir.root())?;
        }
        mark.publish();
        Ok(())
    })
}

/// Writes the epochs of a log; this also syncs the entries of its directory. The caller holds the
/// turn.
pub(super) fn write_epochs(storage: &dyn Storage, log: &LogReader) -> io::Result<()> {
    replace_file(storage, &epochs_path(log), epochs_text(log).as_bytes())
}

/// Returns the text of the epochs file. It omits a last epoch without records. A record of that
/// epoch may be published right now, after this flush has taken its mark. So the flag is set again
/// for the next flush.
fn epochs_text(log: &LogReader) -> String {
    let epochs = log.epochs_of_records();
    if epochs.latest() != log.latest_epoch() {
        log.unsynced.epochs.store(true, Ordering::Release);
    }
    epochs.to_text(log.log_start_offset())
}

fn epochs_path(log: &LogReader) -> PathBuf {
    log.path().join(epochs::FILE)
}

/// Syncs the file that names the owner of a new directory.
///
/// # Errors
/// When it fails; the caller then takes the log directory offline.
pub(super) fn sync_metadata(storage: &dyn Storage, log: &LogReader) -> io::Result<()> {
    storage.open(&log.path().join(PARTITION_METADATA), Mode::Existing)?.sync_data()
}

/// The part of one log that a round flushes.
struct Mark<'a> {
    log: &'a LogReader,
    from: Tail,
    to: Tail,
    truncations: u32,
    entries: bool,
    directory: bool,
    epochs: bool,
}

impl<'a> Mark<'a> {
    fn take(log: &'a LogReader) -> Self {
        log.flush_requested.store(false, Ordering::Release);
        let truncations = log.truncations.load(Ordering::Acquire);
        // The tail is read before the flags, because a writer raises a flag before it publishes the
        // tail.
        let to = *log.tail.read();
        let taken = |flag: &std::sync::atomic::AtomicBool| flag.swap(false, Ordering::AcqRel);
        Self {
            log,
            from: *log.flushed.read(),
            to,
            truncations,
            entries: taken(&log.unsynced.entries),
            directory: taken(&log.unsynced.directory),
            epochs: taken(&log.unsynced.epochs),
        }
    }

    fn sync(&self, dir: &DirState) -> io::Result<()> {
        for segment in self.log.segments.load().iter().filter(|segment| {
            segment.base_offset() >= self.from.segment && segment.base_offset() <= self.to.segment
        }) {
            dir.files.get(segment.records(), Mode::Existing)?.sync_data()?;
        }
        if self.directory {
            sync_metadata(dir.storage(), self.log)?;
        }
        if self.entries {
            dir.files.storage().sync_dir(&self.log.path())?;
        }
        Ok(())
    }

    fn publish(self) {
        let mut flushed = self.log.flushed.write();
        // Records truncated meanwhile are not flushed, and neither are those appended in their
        // place.
        if self.log.truncations.load(Ordering::Acquire) == self.truncations
            && flushed.offset <= self.to.offset
        {
            *flushed = self.to;
        }
    }
}
