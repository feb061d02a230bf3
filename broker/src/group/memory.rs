//! The memory that the members of all groups on this broker take, with their fields and
//! assignments.
//!
//! Each group has a bound, but the number of groups has none in Kafka. Here a part of the broker's
//! memory is the bound of all groups together (`broker/src/memory.rs`). Each group counts the bytes
//! of its members as they change. A member that would exceed the bound is refused. The log is
//! loaded even beyond it, and a member may always repeat its fields.
//!
//! The coordinators of all partitions share this count and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tracing::warn;

use crate::coordinator::Now;

/// Bytes of a member besides its strings: its state, its session, and its entries in maps and
/// queues.
pub(super) const MEMBER_BYTES: usize = 512;

/// Bytes of a protocol besides its name and metadata.
pub(super) const PROTOCOL_BYTES: usize = 64;

/// Bytes of a topic name in a set, besides its characters.
pub(super) const NAME_BYTES: usize = 48;

/// Bytes of a partition in a current assignment: its owner and its epoch.
pub(super) const OWNED_BYTES: usize = 128;

/// Bytes of a partition in a target assignment.
pub(super) const TARGET_BYTES: usize = 32;

/// The interval of log lines about refused members.
const LOG_INTERVAL_MS: u64 = 30_000;

/// The part of a broker's memory for the members of its groups.
#[derive(Clone, Debug)]
pub(crate) struct MemberMemory(Arc<Count>);

#[derive(Debug)]
struct Count {
    bytes_max: usize,
    used: AtomicUsize,
    /// The earliest time of the next log line about it, on the clock of [`Now::ms`].
    told_again_at: AtomicU64,
}

/// Without a bound.
impl Default for MemberMemory {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl MemberMemory {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Count {
            bytes_max,
            used: AtomicUsize::new(0),
            told_again_at: AtomicU64::new(0),
        }))
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Whether `more` bytes fit. If not, logs it at most every [`LOG_INTERVAL_MS`].
    pub(super) fn has_room_for(&self, more: usize, now: Now) -> bool {
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
                used_bytes = used,
                bound_bytes = bytes_max,
                "the members of groups take all the memory that is for them; others are told to come again"
            );
        }
        false
    }

    /// A share without bytes.
    pub(super) fn hold(&self) -> Held {
        Held { memory: self.clone(), bytes: 0 }
    }
}

/// The bytes of one group's members, counted while this exists.
pub(super) struct Held {
    memory: MemberMemory,
    bytes: usize,
}

impl Held {
    pub(super) fn set(&mut self, bytes: usize) {
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
        let memory = MemberMemory::new(1_000);
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
