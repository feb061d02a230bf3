//! A part of a broker's memory, which the coordinators of all partitions share: they count what
//! their clients make them keep, exactly, and refuse more than the part (`broker/src/memory.rs`).
//!
//! The log is loaded even beyond the bound, and who takes no more is never refused.
//!
//! What ends with its transaction has a reserve, a quarter of the part. So ids and offsets that
//! nobody uses, and that stay for days, stop no transaction of those that were there before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tracing::warn;

use super::Now;

/// The interval of log lines about what is refused.
const LOG_INTERVAL_MS: u64 = 30_000;

/// A part of a broker's memory.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Arc<Count>);

#[derive(Debug)]
struct Count {
    /// What is counted, for the log line.
    what: &'static str,
    bytes_max: usize,
    /// The bytes of the bound that only transactions may take.
    reserve: usize,
    used: AtomicUsize,
    /// How many of the used bytes end with their transactions.
    passing: AtomicUsize,
    /// The earliest time of the next log line about it, on the clock of [`Now::ms`].
    told_again_at: AtomicU64,
}

/// Without a bound.
impl Default for Memory {
    fn default() -> Self {
        Self::new("what a test counts", usize::MAX)
    }
}

impl Memory {
    /// A part of `bytes_max` bytes for `what`.
    pub(crate) fn new(what: &'static str, bytes_max: usize) -> Self {
        Self::reserving(what, bytes_max, 0)
    }

    /// A part of `bytes_max` bytes for `what`, a quarter of which is for open transactions only.
    pub(crate) fn with_transactions(what: &'static str, bytes_max: usize) -> Self {
        Self::reserving(what, bytes_max, bytes_max / 4)
    }

    fn reserving(what: &'static str, bytes_max: usize, reserve: usize) -> Self {
        Self(Arc::new(Count {
            what,
            bytes_max,
            reserve,
            used: AtomicUsize::new(0),
            passing: AtomicUsize::new(0),
            told_again_at: AtomicU64::new(0),
        }))
    }

    /// The bytes that are counted.
    pub(crate) fn used_bytes(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The bound.
    pub(crate) fn bytes_max(&self) -> usize {
        self.0.bytes_max
    }

    /// Whether `more` bytes fit that stay. If not, logs it at most every [`LOG_INTERVAL_MS`].
    pub(crate) fn has_room_for(&self, more: usize, now: Now) -> bool {
        let passing = self.0.passing.load(Ordering::Relaxed);
        let taken = self.used_bytes().saturating_add(self.0.reserve.saturating_sub(passing));
        more == 0 || taken.saturating_add(more) <= self.bytes_max() || self.refuse(now)
    }

    /// Whether `more` bytes fit that end with their transaction. They always may take the reserve.
    pub(crate) fn has_room_for_passing(&self, more: usize, now: Now) -> bool {
        let passing = self.0.passing.load(Ordering::Relaxed).saturating_add(more);
        let used = self.used_bytes().saturating_add(more);
        more == 0 || passing <= self.0.reserve || used <= self.bytes_max() || self.refuse(now)
    }

    fn refuse(&self, now: Now) -> bool {
        let again_at = self.0.told_again_at.load(Ordering::Relaxed);
        let next = now.ms.saturating_add(LOG_INTERVAL_MS);
        let turn = (Ordering::Relaxed, Ordering::Relaxed);
        if now.ms >= again_at
            && self.0.told_again_at.compare_exchange(again_at, next, turn.0, turn.1).is_ok()
        {
            warn!(
                what = self.0.what,
                used_bytes = self.used_bytes(),
                bound_bytes = self.bytes_max(),
                "what coordinators keep takes all the memory that is for it; more is refused"
            );
        }
        false
    }

    /// A share without bytes.
    pub(crate) fn hold(&self) -> Held {
        Held { memory: self.clone(), bytes: 0, passing: 0 }
    }
}

/// A share of the bytes, counted while this exists.
#[derive(Default)]
pub(crate) struct Held {
    memory: Memory,
    /// All bytes.
    bytes: usize,
    /// How many of them end with their transactions.
    passing: usize,
}

impl Held {
    /// Counts `bytes` that stay.
    pub(crate) fn set(&mut self, bytes: usize) {
        self.set_with_passing(bytes, 0);
    }

    /// Counts `bytes`, of which `passing` end with their transactions.
    pub(crate) fn set_with_passing(&mut self, bytes: usize, passing: usize) {
        change(&self.memory.0.used, self.bytes, bytes);
        change(&self.memory.0.passing, self.passing, passing);
        (self.bytes, self.passing) = (bytes, passing);
    }
}

fn change(count: &AtomicUsize, from: usize, to: usize) {
    match to.checked_sub(from) {
        Some(more) => count.fetch_add(more, Ordering::Relaxed),
        None => count.fetch_sub(from - to, Ordering::Relaxed),
    };
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_not_counted() {
        let memory = Memory::new("a test", 1_000);
        let (mut one, mut two) = (memory.hold(), memory.clone().hold());
        let now = Now::default();
        one.set(700);
        two.set(200);
        assert!(memory.has_room_for(100, now) && !memory.has_room_for(101, now));
        one.set(300);
        assert_eq!(memory.used_bytes(), 500);
        drop(two);
        assert_eq!(memory.used_bytes(), 300);
        one.set(2_000);
        assert!(memory.has_room_for(0, now), "who takes no more goes on");
        drop(one);
        assert_eq!(memory.used_bytes(), 0);
    }

    #[test]
    fn what_ends_with_transactions_has_a_reserve() {
        let memory = Memory::with_transactions("a test", 1_000);
        let (mut one, mut two) = (memory.hold(), memory.hold());
        let now = Now::default();
        assert!(memory.has_room_for(750, now) && !memory.has_room_for(751, now));
        assert!(
            memory.has_room_for_passing(1_000, now) && !memory.has_room_for_passing(1_001, now)
        );
        // Loaded beyond the bound.
        one.set(5_000);
        assert!(memory.has_room_for_passing(250, now) && !memory.has_room_for_passing(251, now));
        one.set_with_passing(600, 300);
        assert!(memory.has_room_for(400, now) && !memory.has_room_for(401, now));
        two.set_with_passing(300, 300);
        assert!(memory.has_room_for_passing(100, now) && !memory.has_room_for_passing(101, now));
        drop(one);
        assert!(memory.has_room_for(700, now) && !memory.has_room_for(701, now));
        drop(two);
        assert_eq!((memory.used_bytes(), memory.0.passing.load(Ordering::Relaxed)), (0, 0));
    }
}
