//! PURE: how a member comes from what it has to what it is to have (`CurrentAssignmentBuilder` in Apache Kafka): it gives up first, and gets what others have given up.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;

use uuid::Uuid;

use super::assignor::Partitions;

/// How a member stands to its target, with its code in the record (`MemberState`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::group) enum State {
    /// It has what it is to have.
    #[default]
    Stable = 1,
    /// It has not given up yet what it must.
    Unrevoked = 2,
    /// Others have not given up yet what it is to have.
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

/// What a member has, by what the coordinator told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::group) struct Current {
    /// The member's epoch.
    pub(in crate::group) epoch: i32,
    /// The one before: the answer that told of the newer one may be lost.
    pub(in crate::group) previous_epoch: i32,
    pub(in crate::group) state: State,
    pub(in crate::group) assigned: Partitions,
    /// What it is to give up, and still counts as its own.
    pub(in crate::group) revoking: Partitions,
}

impl Current {
    /// Brings the member as near to its target as it can be now. `owned` is what it says that it has, if it says so; `is_taken` tells what another member has.
    pub(in crate::group) fn next(
        &self,
        target_epoch: i32,
        target: &Partitions,
        owned: Option<&Partitions>,
        is_taken: &dyn Fn(Uuid, i32) -> bool,
    ) -> Self {
        match self.state {
            State::Stable if self.epoch == target_epoch => self.clone(),
            State::Unrevoked if still_owns(owned, &self.revoking) => self.clone(),
            State::Unrevoked => self.towards(self.epoch + 1, target_epoch, target, owned, is_taken),
            State::Stable | State::Unreleased => self.towards(self.epoch, target_epoch, target, owned, is_taken),
        }
    }

    fn towards(&self, epoch: i32, target_epoch: i32, target: &Partitions, owned: Option<&Partitions>, is_taken: &dyn Fn(Uuid, i32) -> bool) -> Self {
        let kept = common(&self.assigned, target);
        let revoking = without(&self.assigned, &kept);
        if !revoking.is_empty() && still_owns(owned, &revoking) {
            return Self {
                state: State::Unrevoked,
                assigned: kept,
                revoking,
                ..self.in_epoch(epoch)
            };
        }
        let mut assigned = kept.clone();
        let mut state = State::Stable;
        for (topic, partitions) in without(target, &kept) {
            for partition in partitions {
                // What the member itself was to give up is no other's.
                let is_own = self.revoking.get(&topic).is_some_and(|own| own.contains(&partition));
                if is_taken(topic, partition) && !is_own {
                    state = State::Unreleased;
                } else {
                    assigned.entry(topic).or_default().insert(partition);
                }
            }
        }
        Self {
            state,
            assigned,
            revoking: Partitions::new(),
            ..self.in_epoch(target_epoch)
        }
    }

    fn in_epoch(&self, epoch: i32) -> Self {
        let previous_epoch = if epoch == self.epoch { self.previous_epoch } else { self.epoch };
        Self {
            epoch,
            previous_epoch,
            ..Self::default()
        }
    }

    /// Whether nothing is left to be done.
    pub(in crate::group) fn has_reached(&self, target_epoch: i32) -> bool {
        self.state == State::Stable && self.epoch == target_epoch
    }
}

/// Whether the member has any of these, or does not say.
fn still_owns(owned: Option<&Partitions>, revoking: &Partitions) -> bool {
    owned.is_none_or(|owned| !common(owned, revoking).is_empty())
}

/// The partitions that are in both.
pub(super) fn common(one: &Partitions, two: &Partitions) -> Partitions {
    let of_topic = |(topic, partitions): (&Uuid, &BTreeSet<i32>)| {
        let both: BTreeSet<i32> = partitions.intersection(two.get(topic)?).copied().collect();
        (!both.is_empty()).then_some((*topic, both))
    };
    one.iter().filter_map(of_topic).collect()
}

/// The partitions that are in the first alone.
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

    fn some(partitions: &[i32]) -> Partitions {
        match partitions {
            [] => Partitions::new(),
            _ => Partitions::from([(T, partitions.iter().copied().collect())]),
        }
    }

    #[test]
    fn what_is_to_go_is_given_up_before_anything_comes() {
        let nobody = |_: Uuid, _: i32| false;
        let stable = Current {
            epoch: 4,
            previous_epoch: 3,
            assigned: some(&[1, 2]),
            ..Current::default()
        };
        assert_eq!(
            stable.next(4, &some(&[9]), None, &nobody),
            stable,
            "the target is another one only in another epoch"
        );
        let revoking = stable.next(6, &some(&[2, 3]), None, &nobody);
        assert_eq!((revoking.epoch, revoking.state), (4, State::Unrevoked));
        assert_eq!((&revoking.assigned, &revoking.revoking), (&some(&[2]), &some(&[1])));
        for owned in [None, Some(some(&[1, 2]))] {
            assert_eq!(
                revoking.next(6, &some(&[2, 3]), owned.as_ref(), &nobody),
                revoking,
                "it has not said that it gave it up"
            );
        }
        let done = revoking.next(6, &some(&[2, 3]), Some(&some(&[2])), &nobody);
        assert_eq!((done.epoch, done.state, &done.assigned), (6, State::Stable, &some(&[2, 3])));
        assert!(done.revoking.is_empty() && done.has_reached(6));
    }

    #[test]
    fn what_another_one_has_is_waited_for() {
        let taken = |_: Uuid, partition: i32| partition == 3;
        let new = Current::default();
        let waiting = new.next(2, &some(&[2, 3]), Some(&some(&[])), &taken);
        assert_eq!((waiting.epoch, waiting.state, &waiting.assigned), (2, State::Unreleased, &some(&[2])));
        assert_eq!(waiting.next(2, &some(&[2, 3]), None, &taken), waiting);
        let done = waiting.next(2, &some(&[2, 3]), None, &|_, _| false);
        assert_eq!((done.epoch, done.state, &done.assigned), (2, State::Stable, &some(&[2, 3])));
        assert_eq!(done.previous_epoch, 0, "the epoch has not changed since");
    }
}
