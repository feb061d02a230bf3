//! What a leader has asked the controller for, as far as the next process of its broker has to know
//! it.
//!
//! A leader waits for everybody who may become a member of the ISR, from the moment that it asks. A
//! process that takes up the roles of the one before, without a controller that could tell it what
//! became of a request, has to wait for them too: so what was asked is on the disk before it is
//! asked.

use weir_protocol::types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch};

use super::{PartitionState, Proposal};

/// An ISR that was asked for with members that the committed one has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The epoch of the leader that asked.
    pub leader_epoch: LeaderEpoch,
    /// The state that it built on: once the partition's epoch is a later one, it is known what
    /// became of it.
    pub base: PartitionEpoch,
    /// Its members, each with the epoch under which it fetched.
    pub members: Vec<(BrokerId, BrokerEpoch)>,
}

impl Asked {
    /// What has to be remembered of a proposal; `None` where it adds nobody: waiting for who was
    /// removed does no harm.
    pub fn of(proposal: &Proposal) -> Option<Self> {
        let adds = proposal.isr.iter().any(|(id, _)| !proposal.base.isr.contains(id));
        adds.then(|| Self {
            leader_epoch: proposal.base.leader_epoch,
            base: proposal.base.partition_epoch,
            members: proposal.isr.clone(),
        })
    }

    /// This after what was asked before. On the same base both may still be carried out; an earlier
    /// base is over, and what came of it is part of the later one.
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

    /// Whom a leadership that begins with this state has to wait for besides the ISR, and the
    /// newest partition epoch that one of them was asked for on.
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

    /// Whether it may have been carried out, or may still be, as far as somebody knows who knows
    /// this state.
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
        assert_eq!(Asked::of(&proposal(7, &[0, 1], &[(0, 10)])), None);
        assert_eq!(Asked::of(&proposal(7, &[0, 1], &[(0, 10), (1, -1)])), None);
        assert!(Asked::of(&proposal(7, &[0], &[(0, 10), (1, 11)])).is_some());
    }

    #[test]
    fn what_was_asked_on_the_same_base_is_joined_and_what_was_asked_before_is_over() {
        let first = Asked::of(&proposal(7, &[0], &[(0, 10), (1, 11)])).unwrap();
        let second =
            Asked::of(&proposal(7, &[0], &[(0, 10), (2, 12)])).unwrap().after(Some(&first));
        assert_eq!(
            second.members,
            [(0, 10), (2, 12), (1, 11)].map(|(id, epoch)| (BrokerId(id), BrokerEpoch(epoch)))
        );
        let third = Asked::of(&proposal(8, &[0, 2], &[(0, 10), (2, 12), (3, 13)]))
            .unwrap()
            .after(Some(&second));
        assert_eq!(third.members.len(), 3);
    }

    #[test]
    fn it_binds_until_the_partition_has_a_later_epoch() {
        let asked = Asked::of(&proposal(7, &[0], &[(0, 10), (1, 11)])).unwrap();
        let state = |leader_epoch, partition_epoch| PartitionState {
            leader_epoch: LeaderEpoch(leader_epoch),
            ..proposal(partition_epoch, &[0], &[]).base
        };
        assert!(asked.binds(&state(5, 7)) && asked.binds(&state(5, 6)));
        assert!(!asked.binds(&state(5, 8)) && !asked.binds(&state(6, 7)));
    }
}
