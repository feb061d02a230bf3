//! The logs that wait for a flush, for the rounds of the flusher thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use weir_protocol::types::TopicPartition;

/// A log as the queue sees it.
pub(super) trait Flushable {
    /// The partition of the log.
    fn id(&self) -> TopicPartition;

    /// Called when the time of a [`FlushQueue::push_later`] has come. Returns whether the log joins
    /// the next round: not if it was flushed meanwhile, nor if it is in that round already.
    fn is_due(&self) -> bool;
}

/// The queue of logs to flush.
#[derive(Debug)]
pub(super) struct FlushQueue<L> {
    waiting: Mutex<Waiting<L>>,
    changed: Condvar,
    /// Held by the thread that flushes. When a flush ends, its data is on the disk or the directory
    /// is offline. No other flush may confirm that data meanwhile.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Waiting<L> {
    logs: Vec<Arc<L>>,
    /// Logs whose flush is due later.
    later: BTreeMap<(Instant, TopicPartition), Arc<L>>,
    stop: bool,
    /// Rounds that have begun, and rounds that have ended: as many, or one fewer.
    begun: u64,
    over: u64,
}

impl<L: Flushable> Waiting<L> {
    /// Moves the due logs to the next round, except those that were flushed meanwhile.
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
    /// Creates an empty queue.
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

    /// Adds a log to the next round. The caller adds a log at most once to a round.
    pub(super) fn push(&self, log: Arc<L>) {
        self.waiting.lock().logs.push(log);
        self.changed.notify_all();
    }

    /// Adds a log to the first round that begins after `time`.
    pub(super) fn push_later(&self, log: Arc<L>, time: Duration) {
        // A time beyond the clock's range never comes.
        if let Some(at) = Instant::now().checked_add(time) {
            self.waiting.lock().later.insert((at, log.id()), log);
            self.changed.notify_all();
        }
    }

    /// Ends the flusher thread after its current round.
    pub(super) fn stop(&self) {
        self.waiting.lock().stop = true;
        self.changed.notify_all();
    }

    /// Blocks flushes while the guard is held. A writer that truncates its log takes it, so that no
    /// flush confirms the removed records.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// Waits until the logs that wait now are flushed: at most for the current round and the next,
    /// however many requests follow.
    pub(super) fn wait_until_flushed(&self) {
        let mut waiting = self.waiting.lock();
        let last = waiting.begun + u64::from(!waiting.logs.is_empty());
        while waiting.over < last && !waiting.stop {
            self.changed.wait(&mut waiting);
        }
    }

    /// Ends the previous round, waits for the next one, and returns its logs. Returns `None` once
    /// the queue is stopped.
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
