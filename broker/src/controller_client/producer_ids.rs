//! PURE: the producer ids of this broker: blocks from the controller, assigned one by one. A whole
//! block is kept in reserve, so that new producers can start while no controller answers.
//!
//! The next run may have to assign ids without a controller too. So this run reports which ids
//! remain before it assigns the ids before them.

use std::ops::Range;

use weir_protocol::controller::AllocateProducerIdsResponse;
use weir_protocol::types::ProducerId;

/// The most ids that a killed process wastes: those that it may have assigned since its last
/// report.
const LOST_MAX: i64 = 100;

/// The rest of the current block, and the reserve block.
#[derive(Debug, Default)]
pub(super) struct ProducerIds {
    block: Range<i64>,
    reserve: Range<i64>,
    /// Whether a block was requested.
    asked: bool,
    /// The first id of the current block that the next run may assign.
    left_from: i64,
    /// Whether the remaining ids have changed since the last report.
    has_news: bool,
}

impl ProducerIds {
    /// Returns the next id, if one is left.
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

    /// Returns the ids that the next run may assign, if they must be reported before another id is
    /// assigned.
    pub(super) fn news(&mut self) -> Option<[Range<i64>; 2]> {
        let left = [self.left_from..self.block.end, self.reserve.clone()];
        std::mem::take(&mut self.has_news).then_some(left)
    }

    /// Takes over the ids that the last run left.
    pub(super) fn adopt_previous(&mut self, [block, reserve]: [Range<i64>; 2]) {
        if self.block.is_empty() && self.reserve.is_empty() {
            self.left_from = block.start;
            (self.block, self.reserve) = (block, reserve);
        }
    }

    /// Returns whether to request a block now. The caller that gets true must request it.
    pub(super) fn asks(&mut self) -> bool {
        let asks = self.reserve.is_empty() && !self.asked;
        self.asked |= asks;
        asks
    }

    /// Called when a request for a block failed.
    pub(super) fn unanswered(&mut self) {
        self.asked = false;
    }

    /// Takes a new block. Ignores a refusal, and drops a block that is not needed.
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
            next.adopt_previous(left.unwrap_or_default());
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
