//! A leader's proposals for the ISR: who leaves it, who joins it, and when it is confirmed.
//!
//! The leader calls these in its checks. At most one proposal is pending; while one is, or shortly
//! after the controller refused one, none is made.

use weir_protocol::types::{BrokerEpoch, BrokerId};

use super::progress::Progress;
use super::{Isr, Leadership};
use crate::replica::core::{Peers, Proposal};

impl Leadership {
    /// Ends recovery after an unclean election, with the ISR unchanged.
    pub(super) fn recover(&mut self, now: u64) -> Option<Proposal> {
        let isr = self.committed.recovering.then(|| self.committed.isr.clone())?;
        self.propose(isr, true, now)
    }

    /// `Partition.maybeShrinkIsr`.
    pub(super) fn shrink(&mut self, end: i64, now: u64) -> Option<Proposal> {
        let lags = |id: &BrokerId| {
            let follower = self.followers.iter().find(|follower| follower.id == *id);
            follower
                .is_some_and(|follower| !follower.is_caught_up(end, now, self.settings.lag_ms_max))
        };
        let isr: Vec<BrokerId> =
            self.committed.isr.iter().copied().filter(|id| !lags(id)).collect();
        (isr.len() < self.committed.isr.len()).then(|| self.propose(isr, false, now))?
    }

    /// `Partition.maybeExpandIsr`: a follower may join that has reached the high watermark and the
    /// start of this leader epoch. The high watermark of a new leader may still be catching up. A
    /// follower that lacks committed records above it could otherwise join and be elected. A
    /// follower other than `fetching` must also be caught up, so a silent one does not join.
    pub(super) fn expand(
        &mut self,
        fetching: Option<BrokerId>,
        end: i64,
        peers: Peers<'_>,
        now: u64,
    ) -> Option<Proposal> {
        if self.committed.recovering {
            return None;
        }
        let joins = |follower: &&Progress| {
            !self.committed.isr.contains(&follower.id)
                && follower.end >= self.high_watermark.max(self.epoch_start)
                && follower.is_eligible(peers)
                && (fetching == Some(follower.id)
                    || follower.is_caught_up(end, now, self.settings.lag_ms_max))
        };
        let joining: Vec<BrokerId> =
            self.followers.iter().filter(joins).map(|follower| follower.id).collect();
        (!joining.is_empty())
            .then(|| self.propose([self.committed.isr.as_slice(), &joining].concat(), false, now))?
    }

    /// Proposes the committed ISR unchanged. Once it is committed under a new partition epoch, no
    /// earlier proposal can be committed any more.
    pub(super) fn confirm_isr(&mut self, now: u64) -> Option<Proposal> {
        let isr = (!self.unsettled.is_empty()).then(|| self.committed.isr.clone())?;
        self.propose(isr, false, now)
    }

    fn propose(&mut self, isr: Vec<BrokerId>, recovered: bool, now: u64) -> Option<Proposal> {
        if self.isr != Isr::Committed || now < self.propose_after {
            return None;
        }
        let epoch_of = |id: BrokerId| {
            let follower = self.followers.iter().find(|follower| follower.id == id);
            follower.and_then(|follower| follower.broker_epoch).unwrap_or(BrokerEpoch(-1))
        };
        let with_epoch =
            |id: BrokerId| (id, if id == self.own { self.own_epoch } else { epoch_of(id) });
        let proposal = Proposal {
            base: self.committed.clone(),
            isr: isr.into_iter().map(with_epoch).collect(),
            recovered,
        };
        self.isr = Isr::Proposed { proposal: proposal.clone(), resend_at: None, repeated: false };
        Some(proposal)
    }
}
