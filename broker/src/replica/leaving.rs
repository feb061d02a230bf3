//! The logs of partitions that this broker holds no more: one thread takes their directories away,
//! while it has any.
//!
//! A directory is renamed behind what its writer still does, and between two rounds of flushes: for
//! a topic of a thousand partitions that is longer than a broker may be silent, so whoever hears
//! from the controller only says which logs go.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::{error, warn};

use super::Partition;

/// What becomes of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// They are deleted after `file.delete.delay.ms`: the controller has said that the partition is
    /// not here any more.
    Deleted,
    /// They are kept under a name that nobody takes up: the controller that does not know of them
    /// may have its state from a backup.
    SetAside,
}

/// The queue of the thread.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    queue: Mutex<Queue>,
    goes_on: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    is_worked_on: bool,
    /// Grows with each piece of work that is begun, and at the end.
    begun: u64,
}

type Work = Box<dyn FnOnce() + Send>;

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("waiting", &self.waiting.len())
            .field("is_worked_on", &self.is_worked_on)
            .finish()
    }
}

impl Leaving {
    /// Has the log of a retired partition taken away, in the order of the calls.
    pub(super) fn push(self: &Arc<Self>, partition: Arc<Partition>, fate: Fate) {
        self.bring(Box::new(move || take_away(&partition, fate)));
    }

    fn bring(self: &Arc<Self>, work: Work) {
        let mut queue = self.queue.lock();
        queue.waiting.push_back(work);
        if std::mem::replace(&mut queue.is_worked_on, true) {
            return;
        }
        drop(queue);
        let own = Arc::clone(self);
        if let Err(error) =
            std::thread::Builder::new().name("leaving".into()).spawn(move || own.work())
        {
            warn!(%error, "cannot start a thread that deletes logs; who hears from the controller does it");
            self.work();
        }
    }

    /// Waits until all that was pushed is done, as far as it does not wait for a writer at work;
    /// returns whether it is. A log that takes longer than `most` is waited for no more.
    #[must_use]
    pub(super) fn settle(&self, most: Duration) -> bool {
        let mut queue = self.queue.lock();
        let (mut begun, mut deadline) = (queue.begun, Instant::now() + most);
        while queue.is_worked_on {
            if self.goes_on.wait_until(&mut queue, deadline).timed_out() {
                break;
            }
            if begun != queue.begun {
                (begun, deadline) = (queue.begun, Instant::now() + most);
            }
        }
        !queue.is_worked_on
    }

    fn work(&self) {
        loop {
            let mut queue = self.queue.lock();
            let next = queue.waiting.pop_front();
            queue.is_worked_on = next.is_some();
            queue.begun = queue.begun.wrapping_add(1);
            self.goes_on.notify_all();
            let Some(work) = next else { return };
            drop(queue);
            // The other logs have to go as well, and whoever stops the broker waits for them.
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                error!("taking a log away has panicked; the next start sets it aside");
            }
        }
    }
}

fn take_away(partition: &Arc<Partition>, fate: Fate) {
    let gone = Arc::clone(partition);
    // Behind what is being appended: a segment that begins just now must find its directory.
    partition.with_writer_detached(move |writer| {
        let taken = match fate {
            Fate::Deleted => writer.delete(),
            Fate::SetAside => writer.set_aside(),
        };
        if let Err(error) = taken {
            warn!(topic = %gone.topic(), partition = gone.id().index, %error, "cannot take a log away; the next start sets it aside");
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Nothing is expected to be fast: it only turns a hang into a failure.
    const LOST: Duration = Duration::from_secs(60);

    #[test]
    fn a_panic_costs_no_other_log_anything() {
        let leaving: Arc<Leaving> = Arc::default();
        for _ in 0..2 {
            let (done, is_done) = channel();
            leaving.bring(Box::new(|| panic!("as a deletion could")));
            leaving.bring(Box::new(move || done.send(()).unwrap()));
            is_done.recv_timeout(LOST).unwrap();
            assert!(leaving.settle(LOST));
        }
    }

    #[test]
    fn who_waits_is_told_when_it_takes_too_long() {
        let leaving: Arc<Leaving> = Arc::default();
        assert!(leaving.settle(Duration::ZERO), "there is nothing to do");
        let (go_on, goes_on) = channel();
        leaving.bring(Box::new(move || goes_on.recv().unwrap()));
        assert!(!leaving.settle(Duration::ZERO));
        go_on.send(()).unwrap();
        assert!(leaving.settle(LOST));
    }
}
