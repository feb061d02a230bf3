//! The memory bound for requests: one budget for the whole broker.
//!
//! A frame gets room for its whole length before its body is read, and releases it when none of it
//! is in memory any more. So idle connections hold nothing. Produces and all other requests have a
//! part of the budget each: heartbeats and fetches continue when producers have used up the rest,
//! and producers continue when large requests of administrators have.

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

/// The divisor for the part that only Produces use. Few clients with large requests of another kind
/// would else keep all producers waiting, each for seconds.
const RECORDS_PART: usize = 8;

/// The log line when frames wait.
const SHORTAGE: &str = "requests wait for memory: --request-memory-mib is used up";

/// The broker's budget for requests in memory.
#[derive(Clone, Debug)]
pub struct RequestMemory {
    /// For all requests.
    common: Budget,
    /// For decoded requests only.
    decoded: Budget,
    /// For Produces only.
    records: Budget,
}

impl RequestMemory {
    /// Creates a budget of `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        let (decoded, records) = (bytes_max / DECODED_PART, bytes_max / RECORDS_PART);
        Self {
            common: Budget::new(bytes_max - decoded - records, SHORTAGE),
            decoded: Budget::new(decoded, SHORTAGE),
            records: Budget::new(records, SHORTAGE),
        }
    }

    /// Returns room for `bytes`, if there is some and no other frame waits for it.
    pub(crate) fn try_room(&self, bytes: usize, is_produce: bool) -> Option<Room> {
        let own = self.own_part(bytes, is_produce).and_then(|own| own.try_room(bytes));
        own.or_else(|| self.common.try_room(bytes))
    }

    /// The part for requests of this kind alone, if one of so many bytes fits.
    fn own_part(&self, bytes: usize, is_produce: bool) -> Option<&Budget> {
        let own = if is_produce { &self.records } else { &self.decoded };
        own.holds(bytes).then_some(own)
    }

    /// Waits for room for `bytes`, first come first served. Holds nothing meanwhile. A Produce
    /// waits for whichever part has room first: its own is small.
    pub(crate) fn room(
        &self,
        bytes: usize,
        is_produce: bool,
    ) -> impl Future<Output = Room> + Send + 'static {
        let own = self.own_part(bytes, is_produce).map(|own| own.room(bytes));
        let common = (is_produce || own.is_none()).then(|| self.common.room(bytes));
        async move {
            tokio::select! {
                biased;
                room = given(own) => room,
                room = given(common) => room,
            }
        }
    }

    /// Returns whether a frame waits for room.
    pub(crate) fn is_short(&self) -> bool {
        [&self.common, &self.decoded, &self.records].into_iter().any(Budget::is_short)
    }

    /// Logs that frames wait, at most once per interval.
    pub(crate) fn tell_of_waiting(&self) {
        for budget in [&self.common, &self.decoded, &self.records] {
            if budget.is_short() {
                budget.tell_of_waiting();
            }
        }
    }

    /// Bytes of the budget in use.
    pub fn used_bytes(&self) -> usize {
        self.common.used_bytes() + self.decoded.used_bytes() + self.records.used_bytes()
    }
}

/// The room of a part that is waited for; never that of one that is not.
async fn given(part: Option<impl Future<Output = Room>>) -> Room {
    match part {
        Some(room) => room.await,
        None => std::future::pending().await,
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
        let own = memory.try_room(128 * KIB, true).unwrap();
        let records = memory.try_room(640 * KIB, true).unwrap();
        let mut more = Box::pin(memory.room(64 * KIB, true));
        assert!((&mut more).now_or_never().is_none() && memory.try_room(4 * KIB, true).is_none());
        let decoded = memory.try_room(256 * KIB, false).unwrap();
        assert_eq!(memory.used_bytes(), 1024 * KIB, "all of it, and no more");
        let mut waits = Box::pin(memory.room(8 * KIB, false));
        assert!((&mut waits).now_or_never().is_none());
        drop(decoded);
        assert!(waits.now_or_never().is_some());
        drop((own, records, more));
        // Without records, decoded requests may use all but the part of records.
        let all: Vec<_> = (0..7).map(|_| memory.try_room(128 * KIB, false).unwrap()).collect();
        assert!(memory.try_room(4 * KIB, false).is_none());
        drop(all);
        let huge = memory.room(1024 * 1024 * KIB, false).now_or_never();
        assert!(huge.is_some(), "one that is larger than its part takes the common one");
        assert!(memory.try_room(4 * KIB, false).is_some(), "others have their part");
    }

    /// Clients with requests that take the whole common part, one after the other, let producers
    /// go on.
    #[test]
    fn records_do_not_wait_for_what_is_decoded() {
        let memory = RequestMemory::new(1024 * KIB);
        let huge = memory.room(1024 * 1024 * KIB, false).now_or_never().unwrap();
        let mut next = Box::pin(memory.room(1024 * 1024 * KIB, false));
        assert!((&mut next).now_or_never().is_none());
        let one = memory.try_room(100 * KIB, true).unwrap();
        let mut waits = Box::pin(memory.room(100 * KIB, true));
        assert!((&mut waits).now_or_never().is_none(), "for another Produce");
        drop(one);
        let two = (&mut waits).now_or_never().unwrap();
        // One that is larger than the part waits with the others, in order.
        let mut larger = Box::pin(memory.room(200 * KIB, true));
        assert!((&mut larger).now_or_never().is_none());
        drop(huge);
        let next = next.now_or_never().unwrap();
        assert!((&mut larger).now_or_never().is_none());
        drop((next, two));
        assert!((&mut larger).now_or_never().is_some());
    }

    /// The part of records is small, and slow ones may hold it.
    #[test]
    fn records_take_the_common_room_that_is_free_first() {
        let memory = RequestMemory::new(1024 * KIB);
        let (own, common) =
            (memory.try_room(128 * KIB, true).unwrap(), memory.try_room(640 * KIB, true).unwrap());
        let mut waits = Box::pin(memory.room(100 * KIB, true));
        assert!((&mut waits).now_or_never().is_none() && memory.is_short());
        drop(common);
        let room = (&mut waits).now_or_never().unwrap();
        drop(waits);
        assert!(!memory.is_short());
        assert_eq!(memory.used_bytes(), 228 * KIB, "and no room of the other part");
        drop((own, room));
        assert_eq!(memory.used_bytes(), 0);
    }

    #[test]
    fn what_is_decoded_counts_for_what_it_becomes() {
        let bytes = ALLOWANCE_BYTES / 20;
        assert!(Allowance::default().room(charge(bytes, true)).is_some());
        assert!(Allowance::default().room(charge(bytes, false)).is_none());
    }
}
