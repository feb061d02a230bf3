//! PURE: producer ids in hand: a block from the controller, given out one by one.

use std::ops::Range;

use weir_protocol::controller::AllocateProducerIdsResponse;
use weir_protocol::types::ProducerId;

/// What is left of the block.
#[derive(Debug, Default)]
pub(super) struct ProducerIds {
    block: Range<i64>,
}

impl ProducerIds {
    /// The next id, if one is left.
    pub(super) fn next(&mut self) -> Option<ProducerId> {
        self.block.next().map(ProducerId)
    }

    /// Takes up a new block; a refusal is an empty one.
    pub(super) fn refill(&mut self, response: &AllocateProducerIdsResponse) {
        let granted = response.error_code == 0 && response.first >= 0;
        self.block = if granted {
            response.first..response.first.saturating_add(i64::from(response.count))
        } else {
            0..0
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_given_out_once() {
        let mut ids = ProducerIds::default();
        assert_eq!(ids.next(), None);
        ids.refill(&AllocateProducerIdsResponse {
            error_code: 0,
            first: 1000,
            count: 2,
        });
        assert_eq!(
            [ids.next(), ids.next(), ids.next()],
            [Some(ProducerId(1000)), Some(ProducerId(1001)), None]
        );
        ids.refill(&AllocateProducerIdsResponse {
            error_code: 77,
            first: 5,
            count: 5,
        });
        assert_eq!(ids.next(), None);
    }
}
