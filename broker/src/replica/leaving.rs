//! Removal of the logs of partitions that this broker no longer holds. One thread does it and ends
//! when the queue is empty.
//!
//! A directory is renamed after the writer's current work and between two rounds of flushes. For a
//! topic of a thousand partitions that takes longer than a broker may be silent. So the controller
//! client only queues the logs.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::{error, warn};

use super::Partition;

/// What the thread does with the files of a removed log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It deletes them after `file.delete.delay.ms`. The controller itself has removed the
    /// partition from this broker.
    Deleted,
    /// It renames them so that no partition opens them. The controller does not know the partition,
    /// but its state may come from a backup.
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
    /// Rises by one when a job begins, and once more when the queue is empty.
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
    /// Queues the log of a retired partition for removal. The thread removes logs in the order of
    /// calls.
    pub(super) fn push(self: &Arc<Self>, partition: Arc<Partition>, fate: Fate) {
        self.submit(Box::new(move || take_away(&partition, fate)));
    }

    fn submit(self: &Arc<Self>, work: Work) {
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

    /// Waits until every queued job is done, and returns whether that succeeded. A job is also done
    /// once it waits for a writer that is busy. Waits at most `most` for each job.
    #[must_use]
    pub(super) fn wait_until_done(&self, most: Duration) -> bool {
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
            // The thread must still remove the other logs, and a broker that stops waits for it.
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                error!("taking a log away has panicked; the next start sets it aside");
            }
        }
    }
}

fn take_away(partition: &Arc<Partition>, fate: Fate) {
    let gone = Arc::clone(partition);
    // After the appends under way: a segment that is created just now must find its directory.
    partition.spawn_on_writer(move |writer| {
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

    /// Not an expectation of speed: the bound only turns a hang into a failure.
    const LOST: Duration = Duration::from_secs(60);

    #[test]
    fn a_panic_costs_no_other_log_anything() {
        let leaving: Arc<Leaving> = Arc::default();
        for _ in 0..2 {
            let (done, is_done) = channel();
            leaving.submit(Box::new(|| panic!("as a deletion could")));
            leaving.submit(Box::new(move || done.send(()).unwrap()));
            is_done.recv_timeout(LOST).unwrap();
            assert!(leaving.wait_until_done(LOST));
        }
    }

    #[test]
    fn who_waits_is_told_when_it_takes_too_long() {
        let leaving: Arc<Leaving> = Arc::default();
        assert!(leaving.wait_until_done(Duration::ZERO), "there is nothing to do");
        let (go_on, goes_on) = channel();
        leaving.submit(Box::new(move || goes_on.recv().unwrap()));
        assert!(!leaving.wait_until_done(Duration::ZERO));
        go_on.send(()).unwrap();
        assert!(leaving.wait_until_done(LOST));
    }
}
