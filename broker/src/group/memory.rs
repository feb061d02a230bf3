//! The memory that the members of all groups on this broker take: what they say of themselves, and
//! what they are assigned.
//!
//! A group has a bound of its own, and there may be any number of groups. Kafka has none for all of
//! them; here a broker gives them a part of its memory (`broker/src/memory.rs`). Each group counts what
//! its members take, as it changes; who would take more than there is left is refused. What the log
//! holds is loaded all the same, and what a member says again it may say.
//!
//! The coordinators of all partitions share the count. Nothing else of them does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tracing::warn;

use crate::coordinator::Now;

/// What a member takes besides its names and bytes: what is known of it, its session and its places
/// in maps and queues.
pub(super) const MEMBER_BYTES: usize = 512;

/// What a protocol takes besides its name and what the member says in it.
pub(super) const PROTOCOL_BYTES: usize = 64;

/// What a topic's name takes besides its bytes, in a set of names.
pub(super) const NAME_BYTES: usize = 48;

/// What a partition takes that a member has: who owns it, and since when.
pub(super) const OWNED_BYTES: usize = 128;

/// What a partition takes that a member is to have.
pub(super) const TARGET_BYTES: usize = 32;

/// How often the log says that members are refused.
const LOG_INTERVAL_MS: u64 = 30_000;

/// The part of a broker's memory that is for the members of its groups.
#[derive(Clone, Debug)]
pub(crate) struct MemberMemory(Arc<Count>);

#[derive(Debug)]
struct Count {
    bytes_max: usize,
    used: AtomicUsize,
    /// Before that the log does not say again that it is used up ([`Now::ms`]).
    told_again_at: AtomicU64,
}

/// As much as there is.
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

    /// Whether so much more may be taken. Where not, the log says so now and then.
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

    /// Nothing yet.
    pub(super) fn hold(&self) -> Held {
        Held { memory: self.clone(), bytes: 0 }
    }
}

/// What a group's members take: counted as long as this is there.
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
