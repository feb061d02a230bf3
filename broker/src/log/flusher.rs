//! Group commit: one thread that brings to the disk what waits for it, all of it in one round.
//!
//! While a round runs, the next one gathers. A round that fails is never repeated: the kernel has then forgotten what was dirty, and only what recovery finds counts. The log directory
//! goes offline.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use weir_protocol::types::TopicPartition;

use super::dir::Shared;
use super::epochs;
use super::reader::{LogReader, Tail};
use super::recovery::PARTITION_METADATA;
use super::storage::{Mode, Storage, put_in_place, replace_file, stage_file};

/// From this many logs on, one sync of the whole file system costs less than one for each file.
const SYNC_ALL_MIN: usize = 6;

/// What waits to be flushed.
#[derive(Debug, Default)]
pub(super) struct Flusher {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Held by who flushes. What a flush takes upon itself is on the disk when it ends, or the directory is offline: no other one may vouch for it meanwhile.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    logs: Vec<Arc<LogReader>>,
    /// Logs whose time comes later.
    later: BTreeMap<(Instant, TopicPartition), Arc<LogReader>>,
    stop: bool,
    /// How many rounds have begun, and how many of them are over: all, or all but one.
    begun: u64,
    over: u64,
}

impl Waiting {
    /// Moves the logs whose time has come to the next round, but for those that were flushed meanwhile.
    fn take_what_is_due(&mut self) {
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= Instant::now()) {
            let log = entry.remove();
            log.flush_scheduled.store(false, Ordering::Release);
            if log.flushed_offset() < log.log_end_offset() && !log.flush_requested.swap(true, Ordering::AcqRel) {
                self.logs.push(log);
            }
        }
    }
}

impl Flusher {
    /// Adds a log to the next round. Callers go through [`LogReader::request_flush`], which adds each log once.
    pub(super) fn push(&self, log: Arc<LogReader>) {
        self.waiting.lock().logs.push(log);
        self.changed.notify_all();
    }

    /// Adds a log to the round that begins then. Callers go through [`LogReader::request_flush_within`].
    pub(super) fn push_later(&self, log: Arc<LogReader>, time: Duration) {
        // A time beyond what the clock can tell never comes.
        if let Some(at) = Instant::now().checked_add(time) {
            self.waiting.lock().later.insert((at, log.id()), log);
            self.changed.notify_all();
        }
    }

    /// Ends the thread after the round that runs.
    pub(super) fn stop(&self) {
        self.waiting.lock().stop = true;
        self.changed.notify_all();
    }

    /// Keeps flushes away while this is held, by a writer that cuts its log: none may vouch for what goes.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// Waits until what waits now is flushed: for the round that runs, and the next one at most, however much is asked for meanwhile.
    pub(super) fn settle(&self) {
        let mut waiting = self.waiting.lock();
        let last = waiting.begun + u64::from(!waiting.logs.is_empty());
        while waiting.over < last && !waiting.stop {
            self.changed.wait(&mut waiting);
        }
    }

    /// The thread.
    pub(super) fn run(shared: &Shared) {
        let flusher = shared.flusher();
        loop {
            let mut waiting = flusher.waiting.lock();
            waiting.over = waiting.begun;
            flusher.changed.notify_all();
            waiting.take_what_is_due();
            while waiting.logs.is_empty() && !waiting.stop {
                match waiting.later.first_key_value().map(|(&(at, _), _)| at) {
                    Some(at) => {
                        let _ = flusher.changed.wait_until(&mut waiting, at);
                    }
                    None => flusher.changed.wait(&mut waiting),
                }
                waiting.take_what_is_due();
            }
            if waiting.stop {
                return;
            }
            waiting.begun += 1;
            let logs = std::mem::take(&mut waiting.logs);
            drop(waiting);
            round(shared, &logs);
        }
    }
}

/// Flushes all of `logs`, then tells each.
fn round(shared: &Shared, logs: &[Arc<LogReader>]) {
    let started = Instant::now();
    if in_turn(shared, || flush_all(shared, logs)).is_ok() {
        shared.flushed(logs.len(), started.elapsed());
    }
    for log in logs {
        if let Some(hook) = log.on_flushed.get() {
            hook();
        }
    }
}

/// Runs a flush alone. One that fails takes the directory offline before the next one begins.
fn in_turn(shared: &Shared, flush: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let _turn = shared.flusher().turn.lock();
    if shared.is_offline() {
        return Err(io::Error::other("the log directory is offline"));
    }
    flush().inspect_err(|error| shared.fail(format!("cannot flush: {error}")))
}

fn flush_all(shared: &Shared, logs: &[Arc<LogReader>]) -> io::Result<()> {
    // From here on a new request belongs to the next round; what is published by now belongs to this one.
    let marks: Vec<Mark<'_>> = logs.iter().filter(|log| !skips(log)).map(|log| Mark::take(log)).collect();
    let storage = shared.files.storage().as_ref();
    let with_epochs = || marks.iter().filter(|mark| mark.epochs);
    if marks.len() >= SYNC_ALL_MIN {
        // A thousand new logs cost two syncs this way, and not four thousand.
        for mark in with_epochs() {
            stage_file(storage, &epochs_path(mark.log), epochs_text(mark.log).as_bytes())?;
        }
        storage.sync_all(shared.root())?;
        for mark in with_epochs() {
            put_in_place(storage, &epochs_path(mark.log))?;
        }
        if with_epochs().next().is_some() {
            storage.sync_all(shared.root())?;
        }
    } else {
        for mark in with_epochs() {
            write_epochs(storage, mark.log)?;
        }
        for mark in &marks {
            mark.sync(shared)?;
        }
        if marks.iter().any(|mark| mark.directory) {
            storage.sync_dir(shared.root())?;
        }
    }
    for mark in marks {
        mark.publish();
    }
    Ok(())
}

/// Whether a log needs no flush any more. Its request is done all the same: whoever asks again is told again.
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
pub(super) fn flush_now(shared: &Shared, log: &LogReader, with_epochs: bool) -> io::Result<()> {
    in_turn(shared, || {
        let mark = Mark::take(log);
        if mark.epochs || with_epochs {
            write_epochs(shared.storage(), log)?;
        }
        mark.sync(shared)?;
        if mark.directory {
            shared.storage().sync_dir(shared.root())?;
        }
        mark.publish();
        Ok(())
    })
}

/// Writes the file of a log's epochs; the entries of its directory are on the disk with it. In the caller's turn.
pub(super) fn write_epochs(storage: &dyn Storage, log: &LogReader) -> io::Result<()> {
    replace_file(storage, &epochs_path(log), epochs_text(log).as_bytes())
}

/// What the file of a log's epochs is to hold. Where the last one is left out, since there is no record of it yet, one may be about to be published whose mark was taken already: it
/// is for the next flush then.
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

    fn sync(&self, shared: &Shared) -> io::Result<()> {
        for segment in self
            .log
            .segments
            .load()
            .iter()
            .filter(|segment| segment.base_offset() >= self.from.segment && segment.base_offset() <= self.to.segment)
        {
            shared.files.get(segment.records(), Mode::Existing)?.sync_data()?;
        }
        if self.directory {
            sync_metadata(shared.storage(), self.log)?;
        }
        if self.entries {
            shared.files.storage().sync_dir(&self.log.path())?;
        }
        Ok(())
    }

    fn publish(self) {
        let mut flushed = self.log.flushed.write();
        // What was truncated meanwhile is not flushed, whatever came in its place.
        if self.log.truncations.load(Ordering::Acquire) == self.truncations && flushed.offset <= self.to.offset {
            *flushed = self.to;
        }
    }
}
