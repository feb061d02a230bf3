//! A part of a broker's memory, which the coordinators of all partitions share: they count what
//! their clients make them keep, exactly, and refuse more than the part (`broker/src/memory.rs`).
//!
//! The log is loaded even beyond the bound, and who takes no more is never refused.

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
    used: AtomicUsize,
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
        Self(Arc::new(Count {
            what,
            bytes_max,
            used: AtomicUsize::new(0),
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

    /// Whether `more` bytes fit. If not, logs it at most every [`LOG_INTERVAL_MS`].
    pub(crate) fn has_room_for(&self, more: usize, now: Now) -> bool {
        let (used, bytes_max) = (self.used_bytes(), self.0.bytes_max);
        if more == 0 || used.saturating_add(more) <= bytes_max {
            return true;
        }
        let again_at = self.0.told_again_at.load(Ordering::Relaxed);
        let next = now.ms.saturating_add(LOG_INTERVAL_MS);
        let turn = (Ordering::Relaxed, Ordering::Relaxed);
        if now.ms >= again_at
            && self.0.told_again_at.compare_exchange(again_at, next, turn.0, turn.1).is_ok()
        {
            warn!(
                what = self.0.what,
                used_bytes = used,
                bound_bytes = bytes_max,
                "what coordinators keep takes all the memory that is for it; more is refused"
            );
        }
        false
    }

    /// A share without bytes.
    pub(crate) fn hold(&self) -> Held {
        Held { memory: self.clone(), bytes: 0 }
    }
}

/// A share of the bytes, counted while this exists.
#[derive(Default)]
pub(crate) struct Held {
    memory: Memory,
    bytes: usize,
}

impl Held {
    pub(crate) fn set(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.memory.0.used.fetch_add(more, Ordering::Relaxed),
            None => self.memory.0.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed),
        };
        self.bytes = bytes;
    }
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
}
