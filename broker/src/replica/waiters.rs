//! Requests that wait for a partition to advance: long polls, and produces that wait for their
//! batch to be committed.
//!
//! Kafka keeps a purgatory of delayed operations for this. Here a delayed request is a future. It
//! registers with the partitions that it waits for, checks them once more, and sleeps. Dropping the
//! future removes it from the lists.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The requests that wait for one partition. Usually empty, and then it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: Mutex<BTreeMap<u64, Arc<Notify>>>,
}

impl Waiters {
    /// Wakes all waiters. Each checks again, and registers again if it has to wait longer.
    pub(crate) fn wake_all(&self) {
        let woken = std::mem::take(&mut *self.waiting.lock());
        for waiter in woken.into_values() {
            waiter.notify_one();
        }
    }

    fn add(&self, id: u64, waiter: &Arc<Notify>) {
        self.waiting.lock().insert(id, Arc::clone(waiter));
    }

    fn remove(&self, id: u64) {
        self.waiting.lock().remove(&id);
    }
}

/// The wait of one request, on any number of partitions.
#[derive(Debug)]
pub(crate) struct Waiter<P> {
    id: u64,
    notify: Arc<Notify>,
    /// Which list of a partition it registers in.
    list: fn(&P) -> &Waiters,
    registered: Vec<Arc<P>>,
}

impl<P> Waiter<P> {
    /// A wait on no partition yet, in this list of each.
    pub(crate) fn new(list: fn(&P) -> &Waiters) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            notify: Arc::default(),
            list,
            registered: Vec::new(),
        }
    }

    /// Registers with all of `on`. The caller then checks them once more before it awaits
    /// [`Waiter::woken`]: a change before the registration wakes nothing.
    pub(crate) fn register(&mut self, on: impl IntoIterator<Item = Arc<P>>) {
        if self.registered.is_empty() {
            self.registered.extend(on);
        }
        for partition in &self.registered {
            (self.list)(partition).add(self.id, &self.notify);
        }
    }

    /// Returns when one of the partitions has advanced after the registration; at once if one
    /// already has.
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }
}

impl<P> Drop for Waiter<P> {
    fn drop(&mut self) {
        for partition in &self.registered {
            (self.list)(partition).remove(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[derive(Debug, Default)]
    struct Thing(Waiters);

    #[test]
    fn a_wake_after_registering_is_never_lost_and_a_dropped_wait_leaves_nothing() {
        let (one, two) = (Arc::new(Thing::default()), Arc::new(Thing::default()));
        let mut waiter = Waiter::new(|thing: &Thing| &thing.0);
        one.0.wake_all();
        waiter.register([Arc::clone(&one), Arc::clone(&two)]);
        assert!(
            waiter.woken().now_or_never().is_none(),
            "what came before the registration does not count"
        );
        two.0.wake_all();
        assert!(waiter.woken().now_or_never().is_some());
        waiter.register([]);
        assert_eq!(two.0.waiting.lock().len(), 1, "it registers again where it was registered");
        drop(waiter);
        assert!(one.0.waiting.lock().is_empty() && two.0.waiting.lock().is_empty());
    }
}
