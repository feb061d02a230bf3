//! Group commit: one thread that brings to the disk what waits for it, all of it in one round.
//!
//! While a round runs, the next one gathers. A round that fails is never repeated: the kernel has
//! then forgotten what was dirty, and only what recovery finds counts. The log directory goes
//! offline.

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

/// From this many logs on, one sync of the whole file system costs less than one for each file.
const SYNC_ALL_MIN: usize = 6;

/// The thread: round by round, until the queue ends.
pub(super) fn run(dir: &DirState, queue: &FlushQueue<LogReader>) {
    while let Some(logs) = queue.next_round() {
        round(dir, queue, &logs);
    }
}

/// Flushes all of `logs`, then tells each.
fn round(dir: &DirState, queue: &FlushQueue<LogReader>, logs: &[Arc<LogReader>]) {
    let started = Instant::now();
    if in_turn(dir, queue, || flush_all(dir, logs)).is_ok() {
        dir.flushed(logs.len(), started.elapsed());
    }
    for log in logs {
        if let Some(hook) = log.on_flushed.get() {
            hook();
        }
    }
}

/// Runs a flush alone. One that fails takes the directory offline before the next one begins.
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

fn flush_all(dir: &DirState, logs: &[Arc<LogReader>]) -> io::Result<()> {
    // From here on a new request belongs to the next round; what is published by now belongs to
    // this one.
    let marks: Vec<Mark<'_>> =
        logs.iter().filter(|log| !skips(log)).map(|log| Mark::take(log)).collect();
    let storage = dir.files.storage().as_ref();
    let with_epochs = || marks.iter().filter(|mark| mark.epochs);
    if marks.len() >= SYNC_ALL_MIN {
        // A thousand new logs cost two syncs this way, and not four thousand.
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

/// Whether a log needs no flush any more. Its request is done all the same: whoever asks again is
/// told again.
fn skips(log: &LogReader) -> bool {
    let is_deleted = log.is_deleted();
    if is_deleted {
        log.flush_requested.store(false, Ordering::Release);
    }
    is_deleted
}

/// Flushes one log on the caller's thread; `with_epochs` also when no epoch is new.
///
/// # Errors
/// When it fails: the log directory is offline then.
pub(super) fn flush_now(log: &LogReader, with_epochs: bool) -> io::Result<()> {
    let dir = &log.dir;
    in_turn(dir, &log.flushes, || {
        let mark = Mark::take(log);
        if mark.epochs || with_epochs {
            write_epochs(dir.storage(), log)?;
        }
        mark.sync(dir)?;
        if mark.directory {
            dir.storage().sync_dir(dir.root())?;
        }
        mark.publish();
        Ok(())
    })
}

/// Writes the file of a log's epochs; the entries of its directory are on the disk with it. In the
/// caller's turn.
pub(super) fn write_epochs(storage: &dyn Storage, log: &LogReader) -> io::Result<()> {
    replace_file(storage, &epochs_path(log), epochs_text(log).as_bytes())
}

/// What the file of a log's epochs is to hold. Where the last one is left out, since there is no
/// record of it yet, one may be about to be published whose mark was taken already: it is for the
/// next flush then.
fn epochs_text(log: &LogReader) -> String {
    let epochs = log.epochs_of_records();
    if epochs.latest() != log.latest_epoch() {
        log.unsynced.epochs.store(true, Ordering::Release);
    }
    epochs.to_text()
}

fn epochs_path(log: &LogReader) -> PathBuf {
    log.path().join(epochs::FILE)
}

/// Syncs the file that says whose a new directory is.
///
/// # Errors
/// When it fails: the log directory is to go offline.
pub(super) fn sync_metadata(storage: &dyn Storage, log: &LogReader) -> io::Result<()> {
    storage.open(&log.path().join(PARTITION_METADATA), Mode::Existing)?.sync_data()
}

/// What a round brings to the disk of one log.
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
        // The tail is read before the flags: whoever raises a flag publishes its tail afterwards.
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
        // What was truncated meanwhile is not flushed, whatever came in its place.
        if self.log.truncations.load(Ordering::Acquire) == self.truncations
            && flushed.offset <= self.to.offset
        {
            *flushed = self.to;
        }
    }
}
