//! The last ISR proposal of a leader, stored for the next process of its broker.
//!
//! From the moment of a proposal, the high watermark waits for every replica that may join the ISR.
//! A process that resumes the roles of the previous one must wait for them, too. No controller may
//! be there to tell the outcome of the proposal. So a proposal is on disk before it is sent.

use weir_protocol::types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch};

use super::{PartitionState, Proposal};

/// A proposed ISR with members that the committed one lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingProposal {
    /// The epoch of the leader that proposed it.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch that the proposal builds on. A later partition epoch shows what became
    /// of the proposal.
    pub base: PartitionEpoch,
    /// The members, each with the broker epoch under which it fetched.
    pub members: Vec<(BrokerId, BrokerEpoch)>,
}

impl PendingProposal {
    /// The part of a proposal to store; `None` when it adds no member. Waiting for a removed member
    /// is harmless.
    pub fn of(proposal: &Proposal) -> Option<Self> {
        let adds = proposal.isr.iter().any(|(id, _)| !proposal.base.isr.contains(id));
        adds.then(|| Self {
            leader_epoch: proposal.base.leader_epoch,
            base: proposal.base.partition_epoch,
            members: proposal.isr.clone(),
        })
    }

    /// Merges this proposal with the one before. On the same base the controller may still commit
    /// either. An earlier base is over: what became of its proposal is part of the later one.
    #[must_use]
    pub fn after(mut self, before: Option<&Self>) -> Self {
        let Some(before) = before
            .filter(|before| (before.leader_epoch, before.base) == (self.leader_epoch, self.base))
        else {
            return self;
        };
        for &(id, epoch) in &before.members {
            match self.members.iter_mut().find(|(member, _)| *member == id) {
                Some((_, newest)) => *newest = epoch.max(*newest),
                None => self.members.push((id, epoch)),
            }
        }
        self
    }

    /// The replicas outside the ISR that delay the high watermark of a leadership with this first
    /// state, and the partition epoch of their proposal.
    pub(super) fn unsettled(
        asked: Option<Self>,
        own: BrokerId,
        state: &PartitionState,
    ) -> (Vec<(BrokerId, BrokerEpoch)>, PartitionEpoch) {
        let Some(asked) = asked.filter(|asked| asked.binds(state)) else {
            return (Vec::new(), PartitionEpoch(-1));
        };
        let may_have_joined =
            |(id, _): &(BrokerId, BrokerEpoch)| *id != own && !state.isr.contains(id);
        (asked.members.into_iter().filter(may_have_joined).collect(), asked.base)
    }

    /// Whether this state leaves open if the proposal was committed, or still may be.
    pub fn binds(&self, state: &PartitionState) -> bool {
        self.leader_epoch == state.leader_epoch && self.base >= state.partition_epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(base: i32, committed: &[i32], isr: &[(i32, i64)]) -> Proposal {
        Proposal {
            base: PartitionState {
                replicas: [0, 1, 2, 3].map(BrokerId).to_vec(),
                isr: committed.iter().copied().map(BrokerId).collect(),
                leader_epoch: LeaderEpoch(5),
                partition_epoch: PartitionEpoch(base),
                recovering: false,
                has_eligible: false,
            },
            isr: isr.iter().map(|(id, epoch)| (BrokerId(*id), BrokerEpoch(*epoch))).collect(),
            recovered: false,
        }
    }

    #[test]
    fn only_additions_are_remembered() {
        assert_eq!(PendingProposal::of(&proposal(7, &[0, 1], &[(0, 10)])), None);
        assert_eq!(PendingProposal::of(&proposal(7, &[0, 1], &[(0, 10), (1, -1)])), None);
        assert!(PendingProposal::of(&proposal(7, &[0], &[(0, 10), (1, 11)])).is_some());
    }

    #[test]
    fn what_was_asked_on_the_same_base_is_joined_and_what_was_asked_before_is_over() {
        let first = PendingProposal::of(&proposal(7, &[0], &[(0, 10), (1, 11)])).unwrap();
        let second = PendingProposal::of(&proposal(7, &[0], &[(0, 10), (2, 12)]))
            .unwrap()
            .after(Some(&first));
        assert_eq!(
            second.members,
            [(0, 10), (2, 12), (1, 11)].map(|(id, epoch)| (BrokerId(id), BrokerEpoch(epoch)))
        );
        let third = PendingProposal::of(&proposal(8, &[0, 2], &[(0, 10), (2, 12), (3, 13)]))
            .unwrap()
            .after(Some(&second));
        assert_eq!(third.members.len(), 3);
    }

    #[test]
    fn it_binds_until_the_partition_has_a_later_epoch() {
        let asked = PendingProposal::of(&proposal(7, &[0], &[(0, 10), (1, 11)])).unwrap();
        let state = |leader_epoch, partition_epoch| PartitionState {
            leader_epoch: LeaderEpoch(leader_epoch),
            ..proposal(partition_epoch, &[0], &[]).base
        };
        assert!(asked.binds(&state(5, 7)) && asked.binds(&state(5, 6)));
        assert!(!asked.binds(&state(5, 8)) && !asked.binds(&state(6, 7)));
    }
}
