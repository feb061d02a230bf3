//! The memory bound for requests: one budget for the whole broker.
//!
//! A frame gets room for its whole length before its body is read, and releases it when none of it
//! is in memory any more. So idle connections hold nothing. Requests other than Produce have a part
//! of the budget of their own: heartbeats and fetches continue when producers have used up theirs.

use super::room::{Budget, Room};

/// How much memory a decoded request may take, as a multiple of its bytes. An array of empty
/// strings takes 24 bytes for each byte, and with the structures made from it 40.
const DECODED_FACTOR: usize = 40;

/// Returns the memory that a frame of `length` bytes takes. A Produce carries records, which stay
/// bytes; all other requests are decoded.
pub(crate) fn charge(length: usize, is_produce: bool) -> usize {
    if is_produce { length } else { length.saturating_mul(DECODED_FACTOR) }
}

/// The divisor for the part of the budget that no Produce uses. When producers have used up theirs,
/// even slow ones, followers still fetch, groups rebalance and transactions end.
const DECODED_PART: usize = 4;

/// The log line when frames wait.
const SHORTAGE: &str = "requests wait for memory: --request-memory-mib is used up";

/// The broker's budget for requests in memory.
#[derive(Clone, Debug)]
pub struct RequestMemory {
    /// For all requests.
    common: Budget,
    /// For decoded requests only.
    decoded: Budget,
}

impl RequestMemory {
    /// Creates a budget of `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        let decoded = bytes_max / DECODED_PART;
        Self {
            common: Budget::new(bytes_max - decoded, SHORTAGE),
            decoded: Budget::new(decoded, SHORTAGE),
        }
    }

    /// Returns room for `bytes`, if there is some and no other frame waits for it.
    pub(crate) fn try_room(&self, bytes: usize, is_produce: bool) -> Option<Room> {
        let own = (!is_produce && self.decoded.holds(bytes))
            .then(|| self.decoded.try_room(bytes))
            .flatten();
        own.or_else(|| self.common.try_room(bytes))
    }

    /// Waits for room for `bytes`, first come first served. Holds nothing meanwhile.
    pub(crate) fn room(
        &self,
        bytes: usize,
        is_produce: bool,
    ) -> impl Future<Output = Room> + Send + 'static {
        let is_for_the_decoded = !is_produce && self.decoded.holds(bytes);
        let budget = if is_for_the_decoded { &self.decoded } else { &self.common };
        budget.room(bytes)
    }

    /// Returns whether a frame waits for room.
    pub(crate) fn is_short(&self) -> bool {
        self.common.is_short() || self.decoded.is_short()
    }

    /// Logs that frames wait, at most once per interval.
    pub(crate) fn tell_of_waiting(&self) {
        for budget in [&self.common, &self.decoded] {
            if budget.is_short() {
                budget.tell_of_waiting();
            }
        }
    }

    /// Bytes of the budget in use.
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
        // Without records, decoded requests may use the whole budget.
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
