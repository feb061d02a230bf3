//! Group commit: one thread that brings to the disk what waits for it, all of it in one round.
//!
//! While a round runs, the next one gathers. A round that fails is never repeated: the kernel has then forgotten what was dirty, and only what recovery finds counts. The log directory
//! goes offline.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Condvar, Mutex};

use super::dir::Shared;
use super::epochs::{self, Epochs};
use super::reader::{LogReader, Tail};
use super::storage::{Mode, Storage};

/// From this many logs on, one sync of the whole file system costs less than one for each file.
const SYNC_ALL_MIN: usize = 6;

/// What waits to be flushed.
#[derive(Debug, Default)]
pub(super) struct Flusher {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    logs: Vec<Arc<LogReader>>,
    stop: bool,
    running: bool,
}

impl Flusher {
    /// Adds a log to the next round. Callers go through [`LogReader::request_flush`], which adds each log once.
    pub(super) fn push(&self, log: Arc<LogReader>) {
        self.waiting.lock().logs.push(log);
        self.changed.notify_all();
    }

    /// Ends the thread after the round that runs.
    pub(super) fn stop(&self) {
        self.waiting.lock().stop = true;
        self.changed.notify_all();
    }

    /// Waits until nothing waits and no round runs.
    pub(super) fn settle(&self) {
        let mut waiting = self.waiting.lock();
        while (!waiting.logs.is_empty() || waiting.running) && !waiting.stop {
            self.changed.wait(&mut waiting);
        }
    }

    /// The thread.
    pub(super) fn run(shared: &Shared) {
        let flusher = shared.flusher();
        loop {
            let mut waiting = flusher.waiting.lock();
            waiting.running = false;
            flusher.changed.notify_all();
            while waiting.logs.is_empty() && !waiting.stop {
                flusher.changed.wait(&mut waiting);
            }
            if waiting.stop {
                return;
            }
            waiting.running = true;
            let logs = std::mem::take(&mut waiting.logs);
            drop(waiting);
            round(shared, &logs);
        }
    }
}

/// Flushes all of `logs`, then tells each.
fn round(shared: &Shared, logs: &[Arc<LogReader>]) {
    let started = std::time::Instant::now();
    let result = flush_all(shared, logs);
    if let Err(error) = result {
        shared.fail(format!("cannot flush: {error}"));
    } else {
        shared.flushed(logs.len(), started.elapsed());
    }
    for log in logs {
        if let Some(hook) = log.on_flushed.get() {
            hook();
        }
    }
}

fn flush_all(shared: &Shared, logs: &[Arc<LogReader>]) -> io::Result<()> {
    if shared.is_offline() {
        return Ok(());
    }
    // From here on a new request belongs to the next round; what is published by now belongs to this one.
    let marks: Vec<Mark<'_>> = logs.iter().map(|log| Mark::take(log)).collect();
    let storage = shared.files.storage().as_ref();
    for mark in marks.iter().filter(|mark| mark.epochs) {
        write_epochs(storage, mark.log)?;
    }
    if marks.len() >= SYNC_ALL_MIN {
        storage.sync_all(shared.root())?;
    } else {
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

/// Flushes one log on the caller's thread.
///
/// # Errors
/// When it fails: the log directory is to go offline.
pub(super) fn flush_now(shared: &Shared, log: &LogReader) -> io::Result<()> {
    let mark = Mark::take(log);
    if mark.epochs {
        write_epochs(shared.files.storage().as_ref(), log)?;
    }
    mark.sync(shared)?;
    if mark.directory {
        shared.files.storage().sync_dir(shared.root())?;
    }
    mark.publish();
    Ok(())
}

/// Writes the file of a log's epochs; the entries of its directory are on the disk with it.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write_epochs(storage: &dyn Storage, log: &LogReader) -> io::Result<()> {
    // The flusher and the writer may both be here: the one that is last writes what is newest.
    let _one = log.epochs_file.lock();
    let text = Epochs::to_text(&log.epochs.read());
    super::storage::replace_file(storage, &log.path().join(epochs::FILE), text.as_bytes())
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
            match shared.files.get(segment.records(), Mode::Existing) {
                // It was cut off meanwhile: there is nothing of it to flush, and this mark is not published.
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_overtaken() => {}
                file => file?.sync_data()?,
            }
        }
        if self.entries {
            shared.files.storage().sync_dir(&self.log.path())?;
        }
        Ok(())
    }

    /// The log was cut since the mark was taken.
    fn is_overtaken(&self) -> bool {
        self.log.truncations.load(Ordering::Acquire) != self.truncations
    }

    fn publish(self) {
        let mut flushed = self.log.flushed.write();
        // What was truncated meanwhile is not flushed, whatever came in its place.
        if !self.is_overtaken() && flushed.offset <= self.to.offset {
            *flushed = self.to;
        }
    }
}
