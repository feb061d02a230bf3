//! The logs of partitions that this broker holds no more: one thread takes their directories away, while it has any.
//!
//! A directory is renamed behind what its writer still does, and between two rounds of flushes: for a topic of a thousand partitions that is longer than a broker may be
//! silent, so whoever hears from the controller only says which logs go.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tracing::warn;

use super::Partition;

/// What becomes of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// They are deleted after `file.delete.delay.ms`: the controller has said that the partition is not here any more.
    Deleted,
    /// They are kept under a name that nobody takes up: the controller that does not know of them may have its state from a backup.
    SetAside,
}

/// The queue of the thread.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    queue: Mutex<Queue>,
    is_empty: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Arc<Partition>, Fate)>,
    is_worked_on: bool,
}

impl Leaving {
    /// Has the log of a retired partition taken away, in the order of the calls.
    pub(super) fn push(self: &Arc<Self>, partition: Arc<Partition>, fate: Fate) {
        let mut queue = self.queue.lock();
        queue.waiting.push_back((partition, fate));
        if std::mem::replace(&mut queue.is_worked_on, true) {
            return;
        }
        drop(queue);
        let own = Arc::clone(self);
        if let Err(error) = std::thread::Builder::new().name("leaving".into()).spawn(move || own.work()) {
            warn!(%error, "cannot start a thread that deletes logs; who hears from the controller does it");
            self.work();
        }
    }

    /// Waits until all that was pushed so far is done, as far as it does not wait for a writer at work.
    pub(super) fn settle(&self) {
        let mut queue = self.queue.lock();
        while queue.is_worked_on {
            self.is_empty.wait(&mut queue);
        }
    }

    fn work(&self) {
        loop {
            let mut queue = self.queue.lock();
            let Some((partition, fate)) = queue.waiting.pop_front() else {
                queue.is_worked_on = false;
                self.is_empty.notify_all();
                return;
            };
            drop(queue);
            take_away(&partition, fate);
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
