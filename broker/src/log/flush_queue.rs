//! The logs that wait to be flushed, for the rounds of the flusher's thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use weir_protocol::types::TopicPartition;

/// A log, as the queue knows it.
pub(super) trait Flushable {
    /// Whose log it is.
    fn id(&self) -> TopicPartition;

    /// The time of a flush has come that was asked for by [`FlushQueue::push_later`]. Whether it is
    /// to be part of the next round: not what was flushed meanwhile, nor what is part of it
    /// already.
    fn is_due(&self) -> bool;
}

/// What waits to be flushed.
#[derive(Debug)]
pub(super) struct FlushQueue<L> {
    waiting: Mutex<Waiting<L>>,
    changed: Condvar,
    /// Held by who flushes. What a flush takes upon itself is on the disk when it ends, or the
    /// directory is offline: no other one may vouch for it meanwhile.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Waiting<L> {
    logs: Vec<Arc<L>>,
    /// Logs whose time comes later.
    later: BTreeMap<(Instant, TopicPartition), Arc<L>>,
    stop: bool,
    /// How many rounds have begun, and how many of them are over: all, or all but one.
    begun: u64,
    over: u64,
}

impl<L: Flushable> Waiting<L> {
    /// Moves the logs whose time has come to the next round, but for those that were flushed
    /// meanwhile.
    fn take_what_is_due(&mut self) {
        while let Some(entry) =
            self.later.first_entry().filter(|entry| entry.key().0 <= Instant::now())
        {
            let log = entry.remove();
            if log.is_due() {
                self.logs.push(log);
            }
        }
    }
}

impl<L: Flushable> FlushQueue<L> {
    /// Nothing waits.
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                logs: Vec::new(),
                later: BTreeMap::new(),
                stop: false,
                begun: 0,
                over: 0,
            }),
            changed: Condvar::new(),
            turn: Mutex::new(()),
        }
    }

    /// Adds a log to the next round. Each log is added once.
    pub(super) fn push(&self, log: Arc<L>) {
        self.waiting.lock().logs.push(log);
        self.changed.notify_all();
    }

    /// Adds a log to the round that begins then. Each log is added once.
    pub(super) fn push_later(&self, log: Arc<L>, time: Duration) {
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

    /// Keeps flushes away while this is held, by a writer that cuts its log: none may vouch for
    /// what goes.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// Waits until what waits now is flushed: for the round that runs, and the next one at most,
    /// however much is asked for meanwhile.
    pub(super) fn settle(&self) {
        let mut waiting = self.waiting.lock();
        let last = waiting.begun + u64::from(!waiting.logs.is_empty());
        while waiting.over < last && !waiting.stop {
            self.changed.wait(&mut waiting);
        }
    }

    /// Ends the round before, waits for the next one, and takes the logs that are part of it.
    /// `None` when no more are to come.
    pub(super) fn next_round(&self) -> Option<Vec<Arc<L>>> {
        let mut waiting = self.waiting.lock();
        waiting.over = waiting.begun;
        self.changed.notify_all();
        waiting.take_what_is_due();
        while waiting.logs.is_empty() && !waiting.stop {
            match waiting.later.first_key_value().map(|(&(at, _), _)| at) {
                Some(at) => {
                    let _ = self.changed.wait_until(&mut waiting, at);
                }
                None => self.changed.wait(&mut waiting),
            }
            waiting.take_what_is_due();
        }
        if waiting.stop {
            return None;
        }
        waiting.begun += 1;
        Some(std::mem::take(&mut waiting.logs))
    }
}
