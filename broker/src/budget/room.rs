//! Memory shared by many requests. Each gets all that it needs at once, or waits in order.
//!
//! A request never holds a part while it asks for more, and holds nothing while it waits. Small
//! frames of a connection use the connection's own allowance and never wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

/// The bytes that the frames of one connection may take outside the budget.
pub(crate) const ALLOWANCE_BYTES: usize = 32 * 1024;

/// How long a request may wait for an event while it holds a part of the budget, because others may
/// need it.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The budget is counted in pages, because a semaphore has fewer permits than a large machine has
/// bytes.
const PAGE_BYTES: usize = 4096;

/// The shortest time between two log lines about waiting frames.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// A bound on bytes of memory.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    /// The log line when a request waits.
    shortage: &'static str,
    pages: Arc<Semaphore>,
    pages_max: usize,
    waiting: Arc<AtomicUsize>,
    told: Arc<Mutex<Option<Instant>>>,
}

/// Room for a frame. Each holder of a piece of the frame has a clone; dropping the last one
/// releases the room.
#[derive(Clone, Debug, Default)]
pub struct Room(Option<Arc<Mutex<Held>>>);

#[derive(Debug)]
enum Held {
    Budget(OwnedSemaphorePermit),
    Allowance { used: Arc<AtomicUsize>, bytes: usize },
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Self::Allowance { used, bytes } = self {
            used.fetch_sub(*bytes, Ordering::Relaxed);
        }
    }
}

impl Room {
    fn of(held: Held) -> Self {
        Self(Some(Arc::new(Mutex::new(held))))
    }

    /// Keeps the room for `bytes` and releases the rest, because only that much of the frame is
    /// left.
    ///
    /// A rest that fits the connection's allowance keeps nothing of the budget. The connection
    /// starts no other request meanwhile. A request may also wait for as long as its client likes.
    /// It must not block a frame that needs the whole budget, nor the frames behind that one.
    pub(crate) fn shrink_to(&self, bytes: usize) {
        let Some(held) = &self.0 else { return };
        match &mut *held.lock() {
            Held::Budget(permit) => {
                let kept = if bytes <= ALLOWANCE_BYTES { 0 } else { bytes.div_ceil(PAGE_BYTES) };
                let surplus = permit.num_permits().saturating_sub(kept);
                drop(permit.split(surplus));
            }
            Held::Allowance { used, bytes: counted } => {
                let surplus = counted.saturating_sub(bytes);
                used.fetch_sub(surplus, Ordering::Relaxed);
                *counted -= surplus;
            }
        }
    }

    /// Shrinks to `bytes`. Returns how long a request may then wait whose client would wait for
    /// `wait`: only briefly with a part of the budget.
    pub(crate) fn waits(&self, bytes: usize, wait: Duration) -> Duration {
        self.shrink_to(bytes);
        if self.is_of_the_budget() { wait.min(WAIT_MAX) } else { wait }
    }

    /// Returns whether it holds a part of the budget, for which others may wait.
    pub(crate) fn is_of_the_budget(&self) -> bool {
        self.0.as_ref().is_some_and(
            |held| matches!(&*held.lock(), Held::Budget(permit) if permit.num_permits() > 0),
        )
    }

    /// Converts it for a holder of a piece of the frame, which need not know the type.
    pub(crate) fn into_keepsake(self) -> Option<Arc<dyn Send + Sync>> {
        self.0.map(|held| held as Arc<dyn Send + Sync>)
    }
}

/// The bytes that one connection may hold outside the budget.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    used: Arc<AtomicUsize>,
}

impl Allowance {
    /// Returns room for `bytes`, if that much is left.
    pub(crate) fn room(&self, bytes: usize) -> Option<Room> {
        // Only this connection adds to it.
        let used = self.used.load(Ordering::Relaxed);
        (used.saturating_add(bytes) <= ALLOWANCE_BYTES).then(|| {
            self.used.fetch_add(bytes, Ordering::Relaxed);
            Room::of(Held::Allowance { used: Arc::clone(&self.used), bytes })
        })
    }
}

/// Counts a waiting request for as long as it waits.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Budget {
    pub(super) fn new(bytes_max: usize, shortage: &'static str) -> Self {
        let pages_max = (bytes_max / PAGE_BYTES).min(Semaphore::MAX_PERMITS);
        Self {
            shortage,
            pages: Arc::new(Semaphore::new(pages_max)),
            pages_max,
            waiting: Arc::default(),
            told: Arc::default(),
        }
    }

    /// Returns whether `bytes` fit into the whole budget.
    pub(super) fn holds(&self, bytes: usize) -> bool {
        bytes.div_ceil(PAGE_BYTES) <= self.pages_max
    }

    /// A request may need more than the whole budget; it then waits until it is alone.
    fn pages_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(PAGE_BYTES).min(self.pages_max)).unwrap_or(u32::MAX)
    }

    pub(super) fn try_room(&self, bytes: usize) -> Option<Room> {
        let permit = Arc::clone(&self.pages).try_acquire_many_owned(self.pages_of(bytes)).ok()?;
        Some(Room::of(Held::Budget(permit)))
    }

    pub(super) fn room(&self, bytes: usize) -> impl Future<Output = Room> + Send + 'static {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(Arc::clone(&self.waiting));
        let (pages, wanted) = (Arc::clone(&self.pages), self.pages_of(bytes));
        async move {
            let _waiting = waiting;
            // The semaphore is never closed.
            let permit = pages.acquire_many_owned(wanted).await;
            permit.map_or_else(|_| Room::default(), |permit| Room::of(Held::Budget(permit)))
        }
    }

    pub(super) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    pub(super) fn tell_of_waiting(&self) {
        let mut told = self.told.lock();
        if told.is_none_or(|told| told.elapsed() >= LOG_INTERVAL) {
            *told = Some(Instant::now());
            let waiting = self.waiting.load(Ordering::Relaxed);
            warn!(waiting, used_bytes = self.used_bytes(), "{}", self.shortage);
        }
    }

    pub(super) fn used_bytes(&self) -> usize {
        (self.pages_max - self.pages.available_permits()) * PAGE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn the_budget_is_shared_and_given_back_with_the_last_piece_of_a_frame() {
        let memory = Budget::new(1024 * KIB, "");
        let one = memory.try_room(900 * KIB).unwrap();
        assert_eq!(memory.used_bytes(), 900 * KIB);
        assert!(memory.try_room(200 * KIB).is_none());
        let mut two = Box::pin(memory.room(200 * KIB));
        assert!((&mut two).now_or_never().is_none() && memory.is_short(), "the second one waits");
        assert!(memory.try_room(4 * KIB).is_none(), "nobody overtakes it");
        let piece = one.clone().into_keepsake();
        drop(one);
        assert!(
            (&mut two).now_or_never().is_none(),
            "a piece of the first frame is still in memory"
        );
        drop(piece);
        let two = two.now_or_never().unwrap();
        assert!(!memory.is_short());
        two.shrink_to(37 * KIB);
        assert_eq!(memory.used_bytes(), 40 * KIB, "whole pages");
        drop(two);
        assert_eq!(memory.used_bytes(), 0);
        let huge = memory.room(1024 * 1024 * KIB).now_or_never();
        assert!(huge.is_some(), "one that is larger than the budget runs alone");
    }

    #[test]
    fn who_keeps_little_does_not_stand_in_the_way_of_a_frame_that_needs_all() {
        let memory = Budget::new(1024 * KIB, "");
        let waits_for_ever = memory.try_room(100 * KIB).unwrap();
        let mut huge = Box::pin(memory.room(4096 * KIB));
        assert!((&mut huge).now_or_never().is_none());
        assert_eq!(waits_for_ever.waits(ALLOWANCE_BYTES + 1, Duration::MAX), WAIT_MAX);
        assert!((&mut huge).now_or_never().is_none());
        assert_eq!(waits_for_ever.waits(ALLOWANCE_BYTES, Duration::MAX), Duration::MAX);
        assert!(huge.now_or_never().is_some());
    }

    #[test]
    fn who_waits_no_more_is_forgotten() {
        let memory = Budget::new(64 * KIB, "");
        let all = memory.try_room(64 * KIB).unwrap();
        let mut gone = Box::pin(memory.room(64 * KIB));
        assert!((&mut gone).now_or_never().is_none());
        drop(gone);
        assert!(!memory.is_short());
        drop(all);
        assert_eq!(memory.used_bytes(), 0);
    }

    #[test]
    fn small_frames_of_a_connection_go_by_its_allowance() {
        let allowance = Allowance::default();
        let one = allowance.room(ALLOWANCE_BYTES).unwrap();
        assert!(allowance.room(1).is_none() && !one.is_of_the_budget());
        one.shrink_to(ALLOWANCE_BYTES - 100);
        let two = allowance.room(100).unwrap();
        drop(one);
        drop(two);
        assert!(allowance.room(ALLOWANCE_BYTES).is_some());
    }
}
