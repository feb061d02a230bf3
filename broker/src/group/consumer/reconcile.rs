//! PURE: the steps of a member from its current to its target assignment
//! (`CurrentAssignmentBuilder` in Apache Kafka). It revokes first, and then gets partitions that
//! others have revoked.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::assignor::Partitions;
use crate::group::memory::OWNED_BYTES;

/// The state of a member in a reconciliation, with its code in the record (`MemberState`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::group) enum State {
    /// It has its target assignment.
    #[default]
    Stable = 1,
    /// It has not revoked all partitions that it must.
    Unrevoked = 2,
    /// Others have not revoked all partitions that it gets.
    Unreleased = 3,
}

impl State {
    pub(super) fn from_code(code: i8) -> Self {
        match code {
            2 => Self::Unrevoked,
            3 => Self::Unreleased,
            _ => Self::Stable,
        }
    }
}

/// The epoch in which each of a member's partitions was assigned to it (KIP-1251).
pub(in crate::group) type Since = BTreeMap<(Uuid, i32), i32>;

/// The current assignment of a member, as the coordinator has told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::group) struct Current {
    /// The member epoch.
    pub(in crate::group) epoch: i32,
    /// The previous member epoch, because the response with the newer one may be lost.
    pub(in crate::group) previous_epoch: i32,
    pub(in crate::group) state: State,
    pub(in crate::group) assigned: Partitions,
    /// The partitions that it must revoke, and still owns.
    pub(in crate::group) revoking: Partitions,
    /// The assignment epochs of its assigned and revoking partitions.
    pub(in crate::group) since: Since,
}

/// The target of a member, and the obstacles to it.
pub(in crate::group) struct Towards<'a> {
    /// The target epoch.
    pub(in crate::group) epoch: i32,
    /// The target assignment.
    pub(in crate::group) target: &'a Partitions,
    /// The topics that it subscribes to; the target may be older.
    pub(in crate::group) subscribed: &'a BTreeSet<Uuid>,
    /// Whether its subscription has just changed.
    pub(in crate::group) subscribes_anew: bool,
    /// The partitions that the member reports as owned, if it does.
    pub(in crate::group) owned: Option<&'a Partitions>,
    /// Whether another member owns the partition.
    pub(in crate::group) is_taken: &'a dyn Fn(Uuid, i32) -> bool,
}

impl Current {
    /// A member with this assignment from this epoch on.
    pub(in crate::group) fn assigned_in(epoch: i32, assigned: Partitions) -> Self {
        Self {
            epoch,
            previous_epoch: epoch,
            since: pairs(&assigned).map(|partition| (partition, epoch)).collect(),
            assigned,
            ..Self::default()
        }
    }

    /// Moves the member as close to its target as is possible now.
    pub(in crate::group) fn next(&self, towards: &Towards<'_>) -> Self {
        let waits = match self.state {
            State::Stable => self.epoch == towards.epoch,
            State::Unrevoked => still_owns(towards.owned, &self.revoking),
            State::Unreleased => false,
        };
        match waits {
            true if towards.subscribes_anew => self.restricted(towards),
            true => self.clone(),
            false => self.towards(towards),
        }
    }

    /// Revokes partitions of topics that the member does not subscribe to any more, before a new
    /// target is computed.
    fn restricted(&self, towards: &Towards<'_>) -> Self {
        let kept = only(&self.assigned, towards.subscribed);
        let gone = without(&self.assigned, &kept);
        if gone.is_empty() {
            return self.clone();
        }
        let mut revoking = self.revoking.clone();
        for (topic, partitions) in gone {
            revoking.entry(topic).or_default().extend(partitions);
        }
        if still_owns(towards.owned, &revoking) {
            return self.having(self.epoch, State::Unrevoked, kept, revoking);
        }
        self.having(self.epoch, self.state, kept, self.revoking.clone())
    }

    fn towards(&self, towards: &Towards<'_>) -> Self {
        let target = only(towards.target, towards.subscribed);
        let kept = common(&self.assigned, &target);
        let revoking = without(&self.assigned, &kept);
        if !revoking.is_empty() && still_owns(towards.owned, &revoking) {
            return self.having(self.epoch, State::Unrevoked, kept, revoking);
        }
        let mut coming = Vec::new();
        let mut state = State::Stable;
        for (topic, partition) in pairs(&without(&target, &kept)) {
            // A partition that the member itself was to revoke has no other owner.
            let is_own = self.revoking.get(&topic).is_some_and(|own| own.contains(&partition));
            if (towards.is_taken)(topic, partition) && !is_own {
                state = State::Unreleased;
            } else {
                coming.push((topic, partition));
            }
        }
        let mut next = self.having(towards.epoch, state, kept, Partitions::new());
        for (topic, partition) in coming {
            next.assigned.entry(topic).or_default().insert(partition);
            next.since.insert((topic, partition), towards.epoch);
        }
        next
    }

    /// The member in this epoch with a part of its partitions, which keep their assignment epochs.
    fn having(&self, epoch: i32, state: State, assigned: Partitions, revoking: Partitions) -> Self {
        let own = pairs(&assigned).chain(pairs(&revoking));
        Self {
            epoch,
            previous_epoch: if epoch == self.epoch { self.previous_epoch } else { self.epoch },
            state,
            since: own.filter_map(|own| Some((own, *self.since.get(&own)?))).collect(),
            assigned,
            revoking,
        }
    }

    /// The member while it has left for a while, with this epoch. It keeps its partitions for its
    /// return.
    pub(in crate::group) fn left_for_a_while(&self, epoch: i32) -> Self {
        Self {
            epoch,
            revoking: Partitions::new(),
            since: pairs(&self.assigned).map(|partition| (partition, 0)).collect(),
            ..self.clone()
        }
    }

    /// The bytes of its partitions ([`crate::group::memory`]).
    pub(super) fn bytes(&self) -> usize {
        let own = self.assigned.values().chain(self.revoking.values());
        OWNED_BYTES * own.map(BTreeSet::len).sum::<usize>()
    }

    /// Whether the member has had the partition since this epoch or longer.
    pub(in crate::group) fn has_since(&self, topic: Uuid, partition: i32, epoch: i32) -> bool {
        self.since.get(&(topic, partition)).is_some_and(|since| *since <= epoch)
    }

    /// Whether it has reached the target.
    pub(in crate::group) fn has_reached(&self, target_epoch: i32) -> bool {
        self.state == State::Stable && self.epoch == target_epoch
    }
}

/// Whether the member still owns any of these partitions, or does not report its own.
fn still_owns(owned: Option<&Partitions>, revoking: &Partitions) -> bool {
    owned.is_none_or(|owned| !common(owned, revoking).is_empty())
}

/// The partitions as pairs of topic and index.
pub(super) fn pairs(partitions: &Partitions) -> impl Iterator<Item = (Uuid, i32)> {
    partitions
        .iter()
        .flat_map(|(topic, partitions)| partitions.iter().map(|index| (*topic, *index)))
}

/// The partitions of these topics.
fn only(partitions: &Partitions, topics: &BTreeSet<Uuid>) -> Partitions {
    let of_topics = partitions.iter().filter(|(topic, _)| topics.contains(*topic));
    of_topics.map(|(topic, partitions)| (*topic, partitions.clone())).collect()
}

/// The partitions in both.
pub(super) fn common(one: &Partitions, two: &Partitions) -> Partitions {
    let of_topic = |(topic, partitions): (&Uuid, &BTreeSet<i32>)| {
        let both: BTreeSet<i32> = partitions.intersection(two.get(topic)?).copied().collect();
        (!both.is_empty()).then_some((*topic, both))
    };
    one.iter().filter_map(of_topic).collect()
}

/// The partitions in the first only.
fn without(one: &Partitions, two: &Partitions) -> Partitions {
    let of_topic = |(topic, partitions): (&Uuid, &BTreeSet<i32>)| {
        let rest: BTreeSet<i32> = match two.get(topic) {
            Some(gone) => partitions.difference(gone).copied().collect(),
            None => partitions.clone(),
        };
        (!rest.is_empty()).then_some((*topic, rest))
    };
    one.iter().filter_map(of_topic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn of(topic: Uuid, partitions: &[i32]) -> Partitions {
        match partitions {
            [] => Partitions::new(),
            _ => Partitions::from([(topic, partitions.iter().copied().collect())]),
        }
    }

    fn some(partitions: &[i32]) -> Partitions {
        of(T, partitions)
    }

    /// One step towards this target, of a member that subscribes to both topics.
    fn next(
        current: &Current,
        epoch: i32,
        target: &Partitions,
        owned: Option<&Partitions>,
        is_taken: &dyn Fn(Uuid, i32) -> bool,
    ) -> Current {
        current.next(&Towards {
            epoch,
            target,
            subscribed: &BTreeSet::from([T, OTHER]),
            subscribes_anew: false,
            owned,
            is_taken,
        })
    }

    fn nobody(_: Uuid, _: i32) -> bool {
        false
    }

    #[test]
    fn what_is_to_go_is_given_up_before_anything_comes() {
        let stable = Current::assigned_in(4, some(&[1, 2]));
        assert_eq!(
            next(&stable, 4, &some(&[9]), None, &nobody),
            stable,
            "the target is another one only in another epoch"
        );
        let revoking = next(&stable, 6, &some(&[2, 3]), None, &nobody);
        assert_eq!((revoking.epoch, revoking.state), (4, State::Unrevoked));
        assert_eq!((&revoking.assigned, &revoking.revoking), (&some(&[2]), &some(&[1])));
        for owned in [None, Some(some(&[1, 2]))] {
            assert_eq!(
                next(&revoking, 6, &some(&[2, 3]), owned.as_ref(), &nobody),
                revoking,
                "it has not said that it gave it up"
            );
        }
        let done = next(&revoking, 6, &some(&[2, 3]), Some(&some(&[2])), &nobody);
        assert_eq!((done.epoch, done.state, &done.assigned), (6, State::Stable, &some(&[2, 3])));
        assert!(done.revoking.is_empty() && done.has_reached(6));
        // Another partition must be revoked meanwhile; the member stays in its epoch.
        let more = next(&revoking, 7, &some(&[3]), Some(&some(&[2])), &nobody);
        assert_eq!((more.epoch, more.state, &more.revoking), (4, State::Unrevoked, &some(&[2])));
    }

    #[test]
    fn what_another_one_has_is_waited_for() {
        let taken = |_: Uuid, partition: i32| partition == 3;
        let new = Current::default();
        let waiting = next(&new, 2, &some(&[2, 3]), Some(&some(&[])), &taken);
        assert_eq!(
            (waiting.epoch, waiting.state, &waiting.assigned),
            (2, State::Unreleased, &some(&[2]))
        );
        assert_eq!(next(&waiting, 2, &some(&[2, 3]), None, &taken), waiting);
        let done = next(&waiting, 2, &some(&[2, 3]), None, &nobody);
        assert_eq!((done.epoch, done.state, &done.assigned), (2, State::Stable, &some(&[2, 3])));
        assert_eq!(done.previous_epoch, 0, "the epoch has not changed since");
    }

    #[test]
    fn a_partition_is_had_since_it_was_assigned() {
        let stable = next(&Current::default(), 2, &some(&[1, 2]), None, &nobody);
        let later = next(&stable, 5, &some(&[1, 2, 3]), None, &nobody);
        for (partition, since) in [(1, 2), (2, 2), (3, 5)] {
            assert!(
                later.has_since(T, partition, since) && !later.has_since(T, partition, since - 1),
                "{partition}"
            );
        }
        assert!(!later.has_since(T, 4, 9) && !later.has_since(OTHER, 1, 9));
        let revoking = next(&later, 6, &some(&[1]), None, &nobody);
        assert!(revoking.has_since(T, 2, 2), "it may still commit what it is to give up");
        let done = next(&revoking, 6, &some(&[1]), Some(&some(&[1])), &nobody);
        assert_eq!(done.since, Since::from([((T, 1), 2)]));
        let back = next(&done, 7, &some(&[1, 2]), None, &nobody);
        assert!(back.has_since(T, 2, 7) && !back.has_since(T, 2, 6));
        assert!(back.left_for_a_while(-2).has_since(T, 2, 0), "whoever comes back goes on with it");
    }

    /// The interval may delay a new target. A member revokes partitions of topics that it no longer
    /// subscribes to at once.
    #[test]
    fn what_is_not_subscribed_to_any_more_goes_before_the_target_says_so() {
        let both: Partitions = [some(&[1]), of(OTHER, &[1])].into_iter().flatten().collect();
        let stable = Current::assigned_in(4, both.clone());
        let step = |current: &Current, owned: Option<&Partitions>, subscribes_anew: bool| {
            current.next(&Towards {
                epoch: 4,
                target: &both,
                subscribed: &BTreeSet::from([T]),
                subscribes_anew,
                owned,
                is_taken: &nobody,
            })
        };
        assert_eq!(
            step(&stable, None, false),
            stable,
            "what is subscribed to is looked at when it changes"
        );
        let revoking = step(&stable, None, true);
        assert_eq!((revoking.epoch, revoking.state), (4, State::Unrevoked));
        assert_eq!((&revoking.assigned, &revoking.revoking), (&some(&[1]), &of(OTHER, &[1])));
        assert_eq!(step(&revoking, Some(&both), true), revoking);
        let done = step(&revoking, Some(&some(&[1])), false);
        assert_eq!((done.epoch, done.state, &done.assigned), (4, State::Stable, &some(&[1])));
        let gone = step(&stable, Some(&some(&[1])), true);
        assert_eq!(
            (gone.state, &gone.assigned),
            (State::Stable, &some(&[1])),
            "it had given it up already"
        );
    }
}
