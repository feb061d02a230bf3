//! The news of a follower's fetch session: which of its partitions have changed, so that of many
//! thousand the leader examines only those.
//!
//! A session registers once with each partition that it fetches, under the number of its slot for
//! that partition. The partition marks the slot whenever it has something that the follower does
//! not know. A mark between two fetches is kept, and a quiet partition costs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The marked slots of one session.
#[derive(Debug, Default)]
pub(crate) struct DirtySlots {
    marked: Mutex<Marked>,
    notify: Notify,
    has_ended: AtomicBool,
}

#[derive(Debug, Default)]
struct Marked {
    slots: Vec<u32>,
    is_marked: Vec<bool>,
}

impl DirtySlots {
    /// Marks a slot, and wakes the request that waits.
    pub(crate) fn mark(&self, slot: u32) {
        let mut marked = self.marked.lock();
        let index = slot as usize;
        if index >= marked.is_marked.len() {
            marked.is_marked.resize(index + 1, false);
        }
        if let Some(flag) = marked.is_marked.get_mut(index)
            && !std::mem::replace(flag, true)
        {
            marked.slots.push(slot);
            drop(marked);
            self.notify.notify_one();
        }
    }

    /// Moves the marked slots to the end of `to`, in the order in which they were marked.
    pub(crate) fn take(&self, to: &mut impl Extend<u32>) {
        let mut marked = self.marked.lock();
        let slots = std::mem::take(&mut marked.slots);
        for slot in &slots {
            if let Some(flag) = marked.is_marked.get_mut(*slot as usize) {
                *flag = false;
            }
        }
        drop(marked);
        to.extend(slots);
    }

    /// Ends the session: the request that waits is answered.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    /// Whether the session has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Returns when the session has ended, or a slot was marked since this returned last.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }
}

/// The sessions that fetch one partition: as many as it has followers. A partition with one replica
/// has none, and then this holds no memory.
#[derive(Debug, Default)]
pub(crate) struct FetchSubscriptions {
    watching: Mutex<Vec<(Arc<DirtySlots>, u32)>>,
}

impl FetchSubscriptions {
    /// Registers a slot of a session.
    pub(crate) fn add(&self, changes: &Arc<DirtySlots>, slot: u32) {
        self.watching.lock().push((Arc::clone(changes), slot));
    }

    /// Removes a slot of a session.
    pub(crate) fn remove(&self, changes: &Arc<DirtySlots>, slot: u32) {
        self.watching
            .lock()
            .retain(|(other, number)| !Arc::ptr_eq(other, changes) || *number != slot);
    }

    /// Marks the slots of all registered sessions.
    pub(crate) fn mark_all_dirty(&self) {
        for (changes, slot) in self.watching.lock().iter() {
            changes.mark(*slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_slot_is_told_once_until_it_is_taken() {
        let (changes, watchers) = (Arc::new(DirtySlots::default()), FetchSubscriptions::default());
        let taken = || {
            let mut slots = Vec::new();
            changes.take(&mut slots);
            slots
        };
        watchers.add(&changes, 7);
        watchers.mark_all_dirty();
        watchers.mark_all_dirty();
        changes.mark(2);
        assert!(changes.changed().now_or_never().is_some());
        assert_eq!(taken(), [7, 2]);
        assert_eq!(taken(), [0; 0]);
        watchers.mark_all_dirty();
        assert_eq!(taken(), [7], "it can be marked again");
        watchers.remove(&changes, 7);
        watchers.mark_all_dirty();
        assert_eq!(taken(), [0; 0]);
    }
}
