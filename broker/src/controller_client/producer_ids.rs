//! PURE: producer ids in hand: blocks from the controller, given out one by one. A whole block is kept in reserve, so that new producers begin while no controller is there.

use std::ops::Range;

use weir_protocol::controller::AllocateProducerIdsResponse;
use weir_protocol::types::ProducerId;

/// What is left of the block, and the one in reserve.
#[derive(Debug, Default)]
pub(super) struct ProducerIds {
    block: Range<i64>,
    reserve: Range<i64>,
    /// A block was asked for.
    asked: bool,
}

impl ProducerIds {
    /// The next id, if one is left.
    pub(super) fn next(&mut self) -> Option<ProducerId> {
        if self.block.is_empty() {
            self.block = std::mem::take(&mut self.reserve);
        }
        self.block.next().map(ProducerId)
    }

    /// Whether a block is to be asked for now: whoever is told so asks.
    pub(super) fn asks(&mut self) -> bool {
        let asks = self.reserve.is_empty() && !self.asked;
        self.asked |= asks;
        asks
    }

    /// Whoever asked got nothing.
    pub(super) fn unanswered(&mut self) {
        self.asked = false;
    }

    /// Takes up a new block; a refusal is none. One that is not needed is dropped: there are enough.
    pub(super) fn refill(&mut self, response: &AllocateProducerIdsResponse) {
        self.asked = false;
        if response.error_code != 0 || response.first < 0 {
            return;
        }
        let place = match self.block.is_empty() {
            true => &mut self.block,
            false => &mut self.reserve,
        };
        if place.is_empty() {
            *place = response.first..response.first.saturating_add(i64::from(response.count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_given_out_once() {
        let mut ids = ProducerIds::default();
        assert_eq!(ids.next(), None);
        ids.refill(&block(0, 1000));
        assert_eq!(
            [ids.next(), ids.next(), ids.next()],
            [Some(ProducerId(1000)), Some(ProducerId(1001)), None]
        );
        ids.refill(&block(77, 5));
        assert_eq!(ids.next(), None);
    }

    #[test]
    fn a_block_is_kept_in_reserve() {
        let mut ids = ProducerIds::default();
        assert!(ids.asks() && !ids.asks(), "once");
        ids.unanswered();
        assert!(ids.asks());
        ids.refill(&block(0, 10));
        assert!(ids.asks(), "for the reserve");
        ids.refill(&block(0, 20));
        assert!(!ids.asks());
        ids.refill(&block(0, 30));
        let given: Vec<_> = std::iter::from_fn(|| ids.next()).collect();
        assert_eq!(given, [10, 11, 20, 21].map(ProducerId));
    }

    fn block(error_code: i32, first: i64) -> AllocateProducerIdsResponse {
        AllocateProducerIdsResponse { error_code, first, count: 2 }
    }
}
