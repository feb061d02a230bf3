//! PURE: producer ids in hand: blocks from the controller, given out one by one. A whole block is
//! kept in reserve, so that new producers begin while no controller is there.
//!
//! What the next run may give out, if no controller answers it either, is said before this one
//! gives out the ids before it.

use std::ops::Range;

use weir_protocol::controller::AllocateProducerIdsResponse;
use weir_protocol::types::ProducerId;

/// Ids that a killed process takes with it at most: what it may have given out since it last said
/// what is left.
const LOST_MAX: i64 = 100;

/// What is left of the block, and the one in reserve.
#[derive(Debug, Default)]
pub(super) struct ProducerIds {
    block: Range<i64>,
    reserve: Range<i64>,
    /// A block was asked for.
    asked: bool,
    /// Where the ids begin in the block that the next run may give out.
    left_from: i64,
    /// That has changed, or there is more, and it was not said yet.
    has_news: bool,
}

impl ProducerIds {
    /// The next id, if one is left.
    pub(super) fn next(&mut self) -> Option<ProducerId> {
        if self.block.is_empty() {
            self.block = std::mem::take(&mut self.reserve);
            self.left_from = self.block.start;
        }
        let id = self.block.next()?;
        if id >= self.left_from {
            self.left_from = id.saturating_add(LOST_MAX).min(self.block.end);
            self.has_news = true;
        }
        Some(ProducerId(id))
    }

    /// What the next run may give out, if that has to be said before anything else is given out.
    pub(super) fn news(&mut self) -> Option<[Range<i64>; 2]> {
        let left = [self.left_from..self.block.end, self.reserve.clone()];
        std::mem::take(&mut self.has_news).then_some(left)
    }

    /// Takes up what the last run left.
    pub(super) fn go_on(&mut self, [block, reserve]: [Range<i64>; 2]) {
        if self.block.is_empty() && self.reserve.is_empty() {
            self.left_from = block.start;
            (self.block, self.reserve) = (block, reserve);
        }
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

    /// Takes up a new block; a refusal is none. One that is not needed is dropped: there are
    /// enough.
    pub(super) fn refill(&mut self, response: &AllocateProducerIdsResponse) {
        self.asked = false;
        if response.error_code != 0 || response.first < 0 {
            return;
        }
        let ids = response.first..response.first.saturating_add(i64::from(response.count));
        if self.block.is_empty() {
            self.left_from = ids.start;
            self.block = ids;
        } else if self.reserve.is_empty() {
            self.reserve = ids;
        } else {
            return;
        }
        self.has_news = true;
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

    #[test]
    fn two_runs_never_give_out_the_same_id_wherever_the_first_one_dies() {
        for dies_after in 0..700 {
            let mut ids = ProducerIds::default();
            let (mut given, mut left) = (Vec::new(), None);
            for step in 0..dies_after {
                if step == 0 || step == 150 {
                    ids.refill(&AllocateProducerIdsResponse {
                        error_code: 0,
                        first: 1000 * (step + 1),
                        count: 300,
                    });
                } else {
                    given.extend(ids.next());
                }
                left = ids.news().or(left);
            }
            let mut next = ProducerIds::default();
            next.go_on(left.unwrap_or_default());
            let again: Vec<_> = std::iter::from_fn(|| next.next()).collect();
            assert!(again.iter().all(|id| !given.contains(id)), "{dies_after}");
            let had: usize = if dies_after > 150 {
                600
            } else if dies_after > 0 {
                300
            } else {
                0
            };
            assert!(
                given.len() + again.len() + 100 >= had,
                "{dies_after}: {} {}",
                given.len(),
                again.len()
            );
        }
    }

    fn block(error_code: i32, first: i64) -> AllocateProducerIdsResponse {
        AllocateProducerIdsResponse { error_code, first, count: 2 }
    }
}
