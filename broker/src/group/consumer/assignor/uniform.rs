//! PURE: the assignor `uniform`: two members that could exchange partitions differ by at most one,
//! and members give up no more than that requires (`UniformHomogeneousAssignmentBuilder` and
//! `UniformHeterogeneousAssignmentBuilder` in Apache Kafka).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use uuid::Uuid;

use super::candidate::{Candidate, Partitions, Topic, is_homogeneous, subscribers};

/// The most rounds of balancing each topic, when subscriptions differ
/// (`UniformHeterogeneousAssignmentBuilder.MAX_ITERATION_COUNT`). A round about halves the
/// imbalance. So this is enough, except for long chains of members who each share a topic with the
/// next one alone. The group's next assignment continues those from this one.
pub(super) const ROUNDS_MAX: usize = 16;

/// The number of steps within which a small group is balanced completely, however long its chains
/// are.
pub(super) const STEPS_FREE: usize = 100_000;

/// The assignment of each member, and the number of steps: examined pairs of member and topic, and
/// assigned partitions.
pub(super) fn uniform(
    members: &[Candidate<'_>],
    topics: &BTreeMap<Uuid, Topic>,
) -> (Vec<Partitions>, usize) {
    let mut sharing = Sharing::new(members, topics);
    sharing.keep();
    sharing.hand_out();
    sharing.balance();
    (sharing.assigned(), sharing.load.steps)
}

/// The state of a uniform assignment.
struct Sharing<'a> {
    members: &'a [Candidate<'a>],
    /// Whether all members are subscribed to the same topics.
    is_homogeneous: bool,
    shared: BTreeMap<Uuid, Shared<'a>>,
    load: Load,
}

/// A topic whose partitions are being assigned.
struct Shared<'a> {
    id: Uuid,
    /// The racks of each partition.
    racks: &'a [BTreeSet<String>],
    subscribed: Arc<[usize]>,
    /// The partitions that have an owner.
    is_taken: Vec<bool>,
    owners: BTreeMap<usize, Held>,
}

/// A member's partitions of a topic.
#[derive(Default)]
struct Held {
    /// The partitions that it had before.
    kept: BTreeSet<i32>,
    new: BTreeSet<i32>,
}

/// The number of partitions of each member.
struct Load {
    counts: Vec<usize>,
    steps: usize,
}

impl Load {
    fn of(&self, index: usize) -> usize {
        self.counts.get(index).copied().unwrap_or(0)
    }

    fn add(&mut self, index: usize) {
        self.steps += 1;
        if let Some(count) = self.counts.get_mut(index) {
            *count += 1;
        }
    }

    fn remove(&mut self, index: usize) {
        if let Some(count) = self.counts.get_mut(index) {
            *count = count.saturating_sub(1);
        }
    }
}

/// Members in the order in which they get partitions: by the number that they have, then by index.
/// All of them, and those in each rack.
struct Needy<'a> {
    all: BTreeSet<(usize, usize)>,
    in_rack: BTreeMap<&'a str, BTreeSet<(usize, usize)>>,
}

impl<'a> Needy<'a> {
    fn new(members: &'a [Candidate<'a>], of: &[usize], load: &mut Load) -> Self {
        load.steps += of.len();
        let mut in_rack: BTreeMap<&str, BTreeSet<(usize, usize)>> = BTreeMap::new();
        for index in of {
            if let Some(rack) = members.get(*index).and_then(|member| member.rack) {
                in_rack.entry(rack).or_default().insert((load.of(*index), *index));
            }
        }
        Self { all: of.iter().map(|index| (load.of(*index), *index)).collect(), in_rack }
    }

    /// The member with the fewest partitions; among equals one in a rack of the partition.
    fn first(&self, racks: &BTreeSet<String>) -> Option<usize> {
        let (fewest, first) = *self.all.first()?;
        let near = racks.iter().filter_map(|rack| self.in_rack.get(rack.as_str())?.first());
        let near = near.filter(|(count, _)| *count == fewest).min();
        Some(near.map_or(first, |(_, index)| *index))
    }

    fn has_one_more(&mut self, index: usize, rack: Option<&str>, count: usize) {
        let in_rack = rack.and_then(|rack| self.in_rack.get_mut(rack));
        for members in [Some(&mut self.all), in_rack].into_iter().flatten() {
            members.remove(&(count, index));
            members.insert((count + 1, index));
        }
    }
}

impl Shared<'_> {
    /// Marks a partition as owned; false if it does not exist or has an owner.
    fn take(&mut self, partition: i32) -> bool {
        let slot = usize::try_from(partition).ok().and_then(|index| self.is_taken.get_mut(index));
        slot.is_some_and(|is_taken| !std::mem::replace(is_taken, true))
    }

    /// Assigns a partition of this topic to a member.
    fn give(&mut self, partition: i32, to: usize, members: &[Candidate<'_>]) {
        let before = members.get(to).and_then(|member| member.before?.get(&self.id));
        let held = self.owners.entry(to).or_default();
        match before.is_some_and(|before| before.contains(&partition)) {
            true => held.kept.insert(partition),
            false => held.new.insert(partition),
        };
    }

    /// Takes a partition of this topic from a member, preferably one that it did not have before.
    fn take_back(&mut self, from: usize) -> Option<i32> {
        let held = self.owners.get_mut(&from)?;
        let partition = held.new.pop_first().or_else(|| held.kept.pop_first());
        if held.new.is_empty() && held.kept.is_empty() {
            self.owners.remove(&from);
        }
        partition
    }

    /// Moves partitions of this topic from the members with the most to those with the fewest,
    /// until no member has two more than another subscriber. Returns whether it had to.
    ///
    /// The smallest counts only rise and the largest only fall. So a member that gets a partition
    /// here gives none here, and vice versa.
    fn balance(&mut self, members: &[Candidate<'_>], load: &mut Load) -> bool {
        load.steps += self.subscribed.len() + self.owners.len();
        let most = self.owners.keys().map(|index| load.of(*index)).max();
        let fewest = self.subscribed.iter().map(|index| load.of(*index)).min();
        if most.zip(fewest).is_none_or(|(most, fewest)| most <= fewest + 1) {
            return false;
        }
        let mut rich: BinaryHeap<_> =
            self.owners.keys().map(|index| (load.of(*index), Reverse(*index))).collect();
        let mut needy: BinaryHeap<_> =
            self.subscribed.iter().map(|index| Reverse((load.of(*index), *index))).collect();
        while let (Some((most, Reverse(from))), Some(Reverse((fewest, to)))) =
            (rich.pop(), needy.pop())
        {
            if most <= fewest + 1 {
                break;
            }
            if let Some(partition) = self.take_back(from) {
                self.give(partition, to, members);
                load.remove(from);
                load.add(to);
            }
            if self.owners.contains_key(&from) {
                rich.push((load.of(from), Reverse(from)));
            }
            needy.push(Reverse((load.of(to), to)));
        }
        true
    }
}

impl<'a> Sharing<'a> {
    fn new(members: &'a [Candidate<'a>], topics: &'a BTreeMap<Uuid, Topic>) -> Self {
        let subscribed = subscribers(members, 0..members.len(), topics);
        let shared = subscribed.into_iter().filter_map(|(id, subscribed)| {
            let racks = topics.get(&id)?.racks.as_slice();
            let is_taken = vec![false; racks.len()];
            Some((id, Shared { id, racks, subscribed, is_taken, owners: BTreeMap::new() }))
        });
        Self {
            members,
            is_homogeneous: is_homogeneous(members),
            shared: shared.collect(),
            load: Load { counts: vec![0; members.len()], steps: 0 },
        }
    }

    /// With equal subscriptions, the most that each member may keep, and how many may have one
    /// more.
    fn quota(&self) -> (usize, usize) {
        let total: usize = self.shared.values().map(|topic| topic.racks.len()).sum();
        let count = self.members.len();
        match (total.checked_div(count), total.checked_rem(count)) {
            (Some(each), Some(more)) if self.is_homogeneous => (each, more),
            _ => (usize::MAX, 0),
        }
    }

    /// Leaves members the partitions that they have, within their quota.
    fn keep(&mut self) {
        let (each, mut more) = self.quota();
        for (index, member) in self.members.iter().enumerate() {
            let mut kept = 0;
            for (id, partitions) in member.before.into_iter().flatten() {
                let Some(topic) = self.shared.get_mut(id).filter(|_| member.topics.contains(id))
                else {
                    continue;
                };
                for partition in partitions {
                    let is_one_more = kept == each && more > 0;
                    if (kept < each || is_one_more) && topic.take(*partition) {
                        more -= usize::from(is_one_more);
                        kept += 1;
                        topic.give(*partition, index, self.members);
                        self.load.add(index);
                    }
                }
            }
        }
    }

    /// Assigns each free partition to the member with the fewest; among equals to one in its rack.
    fn hand_out(&mut self) {
        let mut with_free: Vec<&mut Shared<'_>> =
            self.shared.values_mut().filter(|topic| topic.is_taken.contains(&false)).collect();
        // Topics with few subscribers first, because the others' subscribers have more choice.
        with_free.sort_by_key(|topic| (topic.subscribed.len(), topic.id));
        let mut of_all: Option<Needy<'_>> = None;
        for topic in with_free {
            let is_current = self.is_homogeneous && of_all.is_some();
            if !is_current {
                of_all = Some(Needy::new(self.members, &topic.subscribed, &mut self.load));
            }
            let Some(needy) = &mut of_all else { continue };
            for (partition, racks) in (0..).zip(topic.racks) {
                if !topic.take(partition) {
                    continue;
                }
                let Some(to) = needy.first(racks) else { continue };
                let rack = self.members.get(to).and_then(|member| member.rack);
                needy.has_one_more(to, rack, self.load.of(to));
                topic.give(partition, to, self.members);
                self.load.add(to);
            }
        }
    }

    /// Balances topic after topic, until nothing moves. Each move makes the counts more equal, so
    /// this ends.
    fn balance(&mut self) {
        if self.is_homogeneous {
            return;
        }
        // Topics with many partitions per subscriber first.
        let mut topics: Vec<&mut Shared<'_>> = self.shared.values_mut().collect();
        topics.sort_by_key(|topic| {
            let for_each = topic.racks.len() * 1024 / topic.subscribed.len().max(1);
            (Reverse(for_each), topic.subscribed.len(), topic.id)
        });
        let mut rounds = 0;
        while rounds < ROUNDS_MAX || self.load.steps < STEPS_FREE {
            let mut has_moved = false;
            for topic in &mut topics {
                has_moved |= topic.balance(self.members, &mut self.load);
            }
            if !has_moved {
                return;
            }
            rounds += 1;
        }
    }

    /// The assignment of each member.
    fn assigned(&mut self) -> Vec<Partitions> {
        let mut assigned = vec![Partitions::new(); self.members.len()];
        for (id, topic) in &mut self.shared {
            for (index, held) in std::mem::take(&mut topic.owners) {
                if let Some(assigned) = assigned.get_mut(index) {
                    let Held { mut kept, mut new } = held;
                    kept.append(&mut new);
                    assigned.insert(*id, kept);
                }
            }
        }
        assigned
    }
}
