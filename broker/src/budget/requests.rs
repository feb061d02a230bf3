//! The bound on memory for requests: one budget for the whole broker.
//!
//! A frame gets room for all of it before its body is read, and gives it back when nothing of it is
//! in memory any more. So what idle connections once had is free. What is not a Produce has a part
//! of the budget for itself: heartbeats and fetches go on where producers have used up theirs.

use super::room::{Budget, Room};

/// How much more than its bytes a request may take that is decoded: an array of empty strings takes
/// 24 bytes of memory for each byte, with what is made of it 40.
const DECODED_FACTOR: usize = 40;

/// What a frame of `length` bytes takes. Produce carries records, which stay bytes; all others are
/// decoded.
pub(crate) fn charge(length: usize, is_produce: bool) -> usize {
    if is_produce { length } else { length.saturating_mul(DECODED_FACTOR) }
}

/// Of the whole budget what is not for records: where producers have used up theirs, also those
/// that send slowly, followers still fetch, groups gather and transactions end.
const DECODED_PART: usize = 4;

/// What the log says where frames wait.
const SHORTAGE: &str = "requests wait for memory: --request-memory-mib is used up";

/// The broker's budget for requests in memory.
#[derive(Clone, Debug)]
pub struct RequestMemory {
    /// For whatever comes.
    common: Budget,
    /// For what is decoded alone.
    decoded: Budget,
}

impl RequestMemory {
    /// A budget of `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        let decoded = bytes_max / DECODED_PART;
        Self {
            common: Budget::new(bytes_max - decoded, SHORTAGE),
            decoded: Budget::new(decoded, SHORTAGE),
        }
    }

    /// Room for `bytes`, if there is some and nobody waits for it.
    pub(crate) fn try_room(&self, bytes: usize, is_produce: bool) -> Option<Room> {
        let own = (!is_produce && self.decoded.holds(bytes))
            .then(|| self.decoded.try_room(bytes))
            .flatten();
        own.or_else(|| self.common.try_room(bytes))
    }

    /// Room for `bytes`, in the order in which it is asked for. Nothing is held meanwhile.
    pub(crate) fn room(
        &self,
        bytes: usize,
        is_produce: bool,
    ) -> impl Future<Output = Room> + Send + 'static {
        let is_for_the_decoded = !is_produce && self.decoded.holds(bytes);
        let budget = if is_for_the_decoded { &self.decoded } else { &self.common };
        budget.room(bytes)
    }

    /// Whether somebody waits for room.
    pub(crate) fn is_short(&self) -> bool {
        self.common.is_short() || self.decoded.is_short()
    }

    /// Says in the log that frames wait, unless that was said a moment ago.
    pub(crate) fn tell_of_waiting(&self) {
        for budget in [&self.common, &self.decoded] {
            if budget.is_short() {
                budget.tell_of_waiting();
            }
        }
    }

    /// Bytes of the budget that are in use.
    pub fn used_bytes(&self) -> usize {
        self.common.used_bytes() + self.decoded.used_bytes()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::super::room::{ALLOWANCE_BYTES, Allowance};
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn what_is_decoded_does_not_wait_for_records() {
        let memory = RequestMemory::new(1024 * KIB);
        let records = memory.try_room(768 * KIB, true).unwrap();
        let mut more = Box::pin(memory.room(64 * KIB, true));
        assert!((&mut more).now_or_never().is_none() && memory.try_room(4 * KIB, true).is_none());
        let decoded = memory.try_room(256 * KIB, false).unwrap();
        assert_eq!(memory.used_bytes(), 1024 * KIB, "all of it, and no more");
        let mut waits = Box::pin(memory.room(8 * KIB, false));
        assert!((&mut waits).now_or_never().is_none());
        drop(decoded);
        assert!(waits.now_or_never().is_some());
        drop((records, more));
        // Where there are no records, it has all.
        let all: Vec<_> = (0..4).map(|_| memory.try_room(256 * KIB, false).unwrap()).collect();
        drop(all);
        let huge = memory.room(1024 * 1024 * KIB, false).now_or_never();
        assert!(huge.is_some(), "one that is larger than its part takes the common one");
        assert!(
            memory.try_room(4 * KIB, true).is_none() && memory.try_room(4 * KIB, false).is_some()
        );
    }

    #[test]
    fn what_is_decoded_counts_for_what_it_becomes() {
        let bytes = ALLOWANCE_BYTES / 20;
        assert!(Allowance::default().room(charge(bytes, true)).is_some());
        assert!(Allowance::default().room(charge(bytes, false)).is_none());
    }
}
