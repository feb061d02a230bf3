//! PURE: the server-side assignors `uniform` and `range` (KIP-848): which member is to have which
//! partitions.
//!
//! Both are functions of the subscriptions and of what was assigned before, with nothing left to
//! chance: two coordinators come to the same result.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

/// Partitions by topic.
pub(in crate::group) type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;

/// A topic that somebody is subscribed to.
#[derive(Clone, Debug, Default)]
pub(in crate::group) struct Topic {
    /// The racks of each partition's replicas; as many as there are partitions.
    pub(in crate::group) racks: Vec<BTreeSet<String>>,
}

/// A member, as an assignor sees it.
#[derive(Clone, Debug)]
pub(in crate::group) struct Candidate<'a> {
    pub(in crate::group) id: &'a Arc<str>,
    pub(in crate::group) instance: Option<&'a Arc<str>>,
    pub(in crate::group) rack: Option<&'a str>,
    /// What it is subscribed to, of the topics that there are.
    pub(in crate::group) topics: Arc<BTreeSet<Uuid>>,
    pub(in crate::group) before: Option<&'a Partitions>,
}

/// The assignors, in the order in which they are preferred.
pub(in crate::group) const NAMES: [&str; 2] = ["uniform", "range"];

/// Runs the assignor of this name.
pub(in crate::group) fn assign(
    name: &str,
    members: &[Candidate<'_>],
    topics: &BTreeMap<Uuid, Topic>,
) -> BTreeMap<Arc<str>, Partitions> {
    let assigned = if name == "range" { range(members, topics) } else { uniform(members, topics) };
    members
        .iter()
        .zip(assigned)
        .map(|(member, partitions)| (Arc::clone(member.id), partitions))
        .collect()
}

fn partitions_of(topic: &Topic) -> i32 {
    i32::try_from(topic.racks.len()).unwrap_or(i32::MAX)
}

/// Per topic, consecutive partitions to each member, in the order of their instances and ids:
/// members have the same partitions of topics with as many of them.
fn range(members: &[Candidate<'_>], topics: &BTreeMap<Uuid, Topic>) -> Vec<Partitions> {
    let mut assigned = vec![Partitions::new(); members.len()];
    let mut order: Vec<usize> = (0..members.len()).collect();
    // Static members first: their names outlive their ids.
    order.sort_by_key(|index| {
        members.get(*index).map(|member| (member.instance.is_none(), member.instance, member.id))
    });
    for (id, topic) in topics {
        let subscribed = order
            .iter()
            .filter(|index| members.get(**index).is_some_and(|member| member.topics.contains(id)));
        let subscribed: Vec<usize> = subscribed.copied().collect();
        let (Ok(count), partitions) = (i32::try_from(subscribed.len()), partitions_of(topic))
        else {
            continue;
        };
        if count == 0 {
            continue;
        }
        let (each, more) = (partitions / count, partitions % count);
        let mut next = 0;
        for (turn, index) in (0..).zip(subscribed) {
            let end = next + each + i32::from(turn < more);
            if let Some(assigned) = assigned.get_mut(index)
                && next < end
            {
                assigned.insert(*id, (next..end).collect());
            }
            next = end;
        }
    }
    assigned
}

/// Every member as many as any other it could have them from, give or take one; nobody gives up
/// more than that needs.
fn uniform(members: &[Candidate<'_>], topics: &BTreeMap<Uuid, Topic>) -> Vec<Partitions> {
    let mut sharing = Sharing::new(members, topics);
    sharing.keep();
    sharing.hand_out();
    sharing.balance();
    sharing.assigned
}

/// How far a uniform assignment has come.
struct Sharing<'a> {
    members: &'a [Candidate<'a>],
    topics: &'a BTreeMap<Uuid, Topic>,
    /// Who is subscribed to each topic.
    subscribed: BTreeMap<Uuid, Vec<usize>>,
    /// Whether all members are subscribed to the same topics.
    is_homogeneous: bool,
    assigned: Vec<Partitions>,
    counts: Vec<usize>,
    /// The members by the number of their partitions.
    by_count: BTreeSet<(usize, usize)>,
    free: Vec<(Uuid, i32)>,
}

impl<'a> Sharing<'a> {
    fn new(members: &'a [Candidate<'a>], topics: &'a BTreeMap<Uuid, Topic>) -> Self {
        let mut subscribed: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
        for (index, member) in members.iter().enumerate() {
            for topic in member.topics.iter().filter(|topic| topics.contains_key(topic)) {
                subscribed.entry(*topic).or_default().push(index);
            }
        }
        let is_homogeneous =
            members.windows(2).all(|pair| matches!(pair, [one, two] if one.topics == two.topics));
        Self {
            members,
            topics,
            subscribed,
            is_homogeneous,
            assigned: vec![Partitions::new(); members.len()],
            counts: vec![0; members.len()],
            by_count: (0..members.len()).map(|index| (0, index)).collect(),
            free: Vec::new(),
        }
    }

    fn count(&self, index: usize) -> usize {
        self.counts.get(index).copied().unwrap_or(0)
    }

    fn set_count(&mut self, index: usize, count: usize) {
        self.by_count.remove(&(self.count(index), index));
        self.by_count.insert((count, index));
        if let Some(slot) = self.counts.get_mut(index) {
            *slot = count;
        }
    }

    fn give(&mut self, topic: Uuid, partition: i32, to: usize) {
        if let Some(assigned) = self.assigned.get_mut(to) {
            assigned.entry(topic).or_default().insert(partition);
        }
        self.set_count(to, self.count(to) + 1);
    }

    fn take(&mut self, topic: Uuid, partition: i32, from: usize) {
        if let Some(assigned) = self.assigned.get_mut(from)
            && let Some(partitions) = assigned.get_mut(&topic)
        {
            partitions.remove(&partition);
            if partitions.is_empty() {
                assigned.remove(&topic);
            }
        }
        self.set_count(from, self.count(from) - 1);
    }

    /// The most that a member may keep where all are alike, and how many may have that much.
    fn quota(&self) -> Option<(usize, usize)> {
        if !self.is_homogeneous || self.members.is_empty() {
            return None;
        }
        let total: usize = self
            .subscribed
            .keys()
            .filter_map(|id| self.topics.get(id))
            .map(|topic| topic.racks.len())
            .sum();
        Some((total / self.members.len(), total % self.members.len()))
    }

    /// Leaves members what they have, as far as they may have it.
    fn keep(&mut self) {
        let mut taken: BTreeSet<(Uuid, i32)> = BTreeSet::new();
        let mut quota = self.quota();
        for (index, member) in self.members.iter().enumerate() {
            let before = member.before.into_iter().flatten();
            let valid = before.filter(|(topic, _)| member.topics.contains(topic)).flat_map(
                |(topic, partitions)| {
                    let count = self.topics.get(topic).map_or(0, partitions_of);
                    partitions
                        .iter()
                        .filter(move |index| **index < count)
                        .map(move |index| (*topic, *index))
                },
            );
            let mut kept: Vec<_> = valid.filter(|partition| !taken.contains(partition)).collect();
            if let Some((each, more)) = &mut quota {
                if kept.len() > *each && *more > 0 {
                    *more -= 1;
                    kept.truncate(*each + 1);
                } else {
                    kept.truncate(*each);
                }
            }
            for (topic, partition) in kept {
                taken.insert((topic, partition));
                self.give(topic, partition, index);
            }
        }
        let all = self.subscribed.keys().filter_map(|id| Some((*id, self.topics.get(id)?)));
        self.free = all
            .flat_map(|(id, topic)| (0..partitions_of(topic)).map(move |index| (id, index)))
            .filter(|partition| !taken.contains(partition))
            .collect();
        // What few are subscribed to first: others have more to choose from.
        self.free
            .sort_by_key(|(id, index)| (self.subscribed.get(id).map_or(0, Vec::len), *id, *index));
    }

    /// Gives each free partition to whoever has fewest; of several, to one in a rack of it.
    fn hand_out(&mut self) {
        for (topic, partition) in std::mem::take(&mut self.free) {
            if let Some(to) = self.neediest(topic, partition) {
                self.give(topic, partition, to);
            }
        }
    }

    fn neediest(&self, topic: Uuid, partition: i32) -> Option<usize> {
        let racks = usize::try_from(partition)
            .ok()
            .and_then(|index| self.topics.get(&topic)?.racks.get(index));
        let is_near = |index: usize| {
            let rack = self.members.get(index).and_then(|member| member.rack);
            rack.is_some_and(|rack| racks.is_some_and(|racks| racks.contains(rack)))
        };
        if self.is_homogeneous {
            let (fewest, first) = *self.by_count.first()?;
            let alike = self.by_count.range((fewest, 0)..(fewest + 1, 0)).map(|(_, index)| *index);
            // Racks are looked at only where there are some.
            return match racks.is_some_and(|racks| !racks.is_empty()) {
                true => alike.clone().find(|index| is_near(*index)).or(Some(first)),
                false => Some(first),
            };
        }
        let subscribed = self.subscribed.get(&topic)?;
        subscribed
            .iter()
            .copied()
            .min_by_key(|index| (self.count(*index), !is_near(*index), *index))
    }

    /// Moves partitions from who has more to who has at least two fewer.
    fn balance(&mut self) {
        if self.is_homogeneous {
            return;
        }
        // Each move makes the counts more alike, so it ends; the bound is for the proof alone.
        for _ in 0..self.topics.values().map(|topic| topic.racks.len()).sum::<usize>() {
            let Some((topic, partition, from, to)) = self.improvement() else {
                return;
            };
            self.take(topic, partition, from);
            self.give(topic, partition, to);
        }
    }

    fn improvement(&self) -> Option<(Uuid, i32, usize, usize)> {
        self.by_count.iter().rev().find_map(|(count, from)| {
            let assigned = self.assigned.get(*from)?;
            assigned.iter().find_map(|(topic, partitions)| {
                let to = self
                    .subscribed
                    .get(topic)?
                    .iter()
                    .copied()
                    .min_by_key(|index| (self.count(*index), *index))?;
                let partition = *partitions.first()?;
                (self.count(to) + 1 < *count).then_some((*topic, partition, *from, to))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn topics(counts: &[usize]) -> BTreeMap<Uuid, Topic> {
        let topic = |count: &usize| Topic { racks: vec![BTreeSet::new(); *count] };
        (1..).map(id).zip(counts.iter().map(topic)).collect()
    }

    /// Runs an assignor for members with these subscriptions and checks what holds of every
    /// assignment.
    fn run(
        name: &str,
        subscriptions: &[&[u128]],
        counts: &[usize],
        before: &BTreeMap<Arc<str>, Partitions>,
    ) -> BTreeMap<Arc<str>, Partitions> {
        let topics = topics(counts);
        let ids: Vec<Arc<str>> =
            (0..subscriptions.len()).map(|index| format!("m{index:03}").into()).collect();
        let members: Vec<_> = ids
            .iter()
            .zip(subscriptions)
            .map(|(member, subscription)| Candidate {
                id: member,
                instance: None,
                rack: None,
                topics: Arc::new(subscription.iter().copied().map(id).collect()),
                before: before.get(member),
            })
            .collect();
        let assigned = assign(name, &members, &topics);
        for (topic, state) in &topics {
            let has_subscriber = members.iter().any(|member| member.topics.contains(topic));
            for partition in 0..partitions_of(state) {
                let owners = assigned
                    .values()
                    .filter(|own| own.get(topic).is_some_and(|own| own.contains(&partition)));
                assert_eq!(
                    owners.count(),
                    usize::from(has_subscriber),
                    "{name}: {topic} {partition}"
                );
            }
        }
        for member in &members {
            assert!(
                assigned[&**member.id].keys().all(|topic| member.topics.contains(topic)),
                "{name}: not subscribed"
            );
        }
        assigned
    }

    fn counts(assigned: &BTreeMap<Arc<str>, Partitions>) -> Vec<usize> {
        assigned.values().map(|own| own.values().map(BTreeSet::len).sum()).collect()
    }

    fn moved(
        before: &BTreeMap<Arc<str>, Partitions>,
        after: &BTreeMap<Arc<str>, Partitions>,
    ) -> usize {
        let pairs = |all: &BTreeMap<Arc<str>, Partitions>| -> BTreeSet<(Arc<str>, Uuid, i32)> {
            let of = |(member, own): (&Arc<str>, &Partitions)| -> Vec<_> {
                own.iter()
                    .flat_map(|(topic, partitions)| {
                        partitions.iter().map(|index| (Arc::clone(member), *topic, *index))
                    })
                    .collect()
            };
            all.iter().flat_map(of).collect()
        };
        pairs(after).difference(&pairs(before)).count()
    }

    #[test]
    fn ranges_are_consecutive_and_the_same_for_topics_that_are_alike() {
        let assigned = run("range", &[&[1, 2], &[1, 2], &[1, 2]], &[7, 7], &BTreeMap::new());
        assert_eq!(counts(&assigned), [6, 4, 4]);
        for own in assigned.values() {
            assert_eq!(own[&id(1)], own[&id(2)]);
            let (first, last) = (own[&id(1)].first().unwrap(), own[&id(1)].last().unwrap());
            assert_eq!((last - first + 1) as usize, own[&id(1)].len());
        }
        run("range", &[&[1], &[1, 2], &[2], &[]], &[3, 1], &BTreeMap::new());
        assert_eq!(counts(&run("range", &[&[1], &[1], &[1]], &[2], &BTreeMap::new())), [1, 1, 0]);
    }

    #[test]
    fn uniform_is_balanced_and_moves_no_more_than_it_must() {
        let first = run("uniform", &[&[1, 2], &[1, 2], &[1, 2]], &[7, 4], &BTreeMap::new());
        let mut sizes = counts(&first);
        sizes.sort_unstable();
        assert_eq!(sizes, [3, 4, 4]);
        let same = run("uniform", &[&[1, 2], &[1, 2], &[1, 2]], &[7, 4], &first);
        assert_eq!(moved(&first, &same), 0);
        let more = run("uniform", &[&[1, 2], &[1, 2], &[1, 2], &[1, 2]], &[7, 4], &first);
        assert_eq!((counts(&more).iter().max(), counts(&more).iter().min()), (Some(&3), Some(&2)));
        assert_eq!(moved(&first, &more), counts(&more)[3], "only what the newcomer gets");
        let fewer = run("uniform", &[&[1, 2], &[1, 2]], &[7, 4], &first);
        assert_eq!(moved(&first, &fewer), counts(&first)[2], "only what the one who left had");
        let grown = run("uniform", &[&[1, 2], &[1, 2], &[1, 2]], &[9, 4], &first);
        assert_eq!(moved(&first, &grown), 2);
    }

    #[test]
    fn uniform_balances_as_far_as_subscriptions_allow() {
        let subscriptions: [&[u128]; 4] = [&[1], &[1, 2], &[2, 3], &[3]];
        let assigned = run("uniform", &subscriptions, &[4, 4, 4], &BTreeMap::new());
        let sizes = counts(&assigned);
        for (own, size) in assigned.values().zip(&sizes) {
            for topic in own.keys() {
                let others = subscriptions.iter().zip(&sizes).filter(|(subscription, _)| {
                    subscription.iter().any(|number| id(*number) == *topic)
                });
                assert!(
                    others.clone().all(|(_, other)| *size <= other + 1),
                    "a move would make it better: {sizes:?}"
                );
            }
        }
        // One who could have all had them before the others came.
        let before = run("uniform", &[&[1, 2, 3]], &[4, 4, 4], &BTreeMap::new());
        let after = run("uniform", &[&[1, 2, 3], &[2], &[3]], &[4, 4, 4], &before);
        assert_eq!(counts(&after), [4, 4, 4]);
        assert_eq!(moved(&before, &after), 8);
    }

    #[test]
    fn of_two_members_with_as_many_the_nearer_one_gets_a_partition() {
        let rack = |name: &str| BTreeSet::from([name.to_owned()]);
        let topics = BTreeMap::from([(
            id(1),
            Topic { racks: vec![rack("b"), rack("a"), rack("b"), rack("a")] },
        )]);
        let ids: [Arc<str>; 2] = ["m0".into(), "m1".into()];
        let member = |index: usize, rack| Candidate {
            id: &ids[index],
            instance: None,
            rack: Some(rack),
            topics: Arc::new(BTreeSet::from([id(1)])),
            before: None,
        };
        let assigned = assign("uniform", &[member(0, "a"), member(1, "b")], &topics);
        assert_eq!(assigned["m0"][&id(1)], BTreeSet::from([1, 3]));
        assert_eq!(assigned["m1"][&id(1)], BTreeSet::from([0, 2]));
    }
}
