//! The properties of every assignment, and its cost.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::candidate::partitions_of;
use super::uniform::{ROUNDS_MAX, STEPS_FREE};
use super::*;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn topics(counts: &[usize]) -> BTreeMap<Uuid, Topic> {
    let topic = |count: &usize| Topic { racks: vec![BTreeSet::new(); *count] };
    (1..).map(id).zip(counts.iter().map(topic)).collect()
}

/// Runs an assignor for members with these subscriptions, and checks the properties of every
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
            assert_eq!(owners.count(), usize::from(has_subscriber), "{name}: {topic} {partition}");
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

fn moved(before: &BTreeMap<Arc<str>, Partitions>, after: &BTreeMap<Arc<str>, Partitions>) -> usize {
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

/// Checks that no member has two partitions more than another that could have one of them.
fn assert_balanced(subscriptions: &[&[u128]], assigned: &BTreeMap<Arc<str>, Partitions>) {
    let sizes = counts(assigned);
    for (own, size) in assigned.values().zip(&sizes) {
        for topic in own.keys() {
            let mut others = subscriptions.iter().zip(&sizes).filter(|(subscription, _)| {
                subscription.iter().any(|number| id(*number) == *topic)
            });
            assert!(
                others.all(|(_, other)| *size <= other + 1),
                "a move would make it better: {sizes:?}"
            );
        }
    }
}

#[test]
fn uniform_balances_as_far_as_subscriptions_allow() {
    let subscriptions: [&[u128]; 4] = [&[1], &[1, 2], &[2, 3], &[3]];
    let assigned = run("uniform", &subscriptions, &[4, 4, 4], &BTreeMap::new());
    assert_balanced(&subscriptions, &assigned);
    // One member could have all partitions, and had them before the others joined.
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

proptest! {
    /// For any previous members and assignment.
    #[test]
    fn uniform_is_balanced_and_stays_as_it_is(
        first in prop::collection::vec(prop::collection::btree_set(1_u128..7, 0..5), 1..9),
        then in prop::collection::vec(prop::collection::btree_set(1_u128..7, 0..5), 1..9),
        sizes in prop::collection::vec(0_usize..12, 6),
    ) {
        let lists = |members: &[BTreeSet<u128>]| -> Vec<Vec<u128>> {
            members.iter().map(|topics| topics.iter().copied().collect()).collect()
        };
        let mut before = BTreeMap::new();
        for lists in [lists(&first), lists(&then)] {
            let subscriptions: Vec<&[u128]> = lists.iter().map(Vec::as_slice).collect();
            let assigned = run("uniform", &subscriptions, &sizes, &before);
            assert_balanced(&subscriptions, &assigned);
            let again = run("uniform", &subscriptions, &sizes, &assigned);
            prop_assert_eq!(moved(&assigned, &again), 0);
            run("range", &subscriptions, &sizes, &before);
            before = assigned;
        }
    }
}

/// A group with overlapping subscriptions, all of them different. One half is balanced and has the
/// most; in the other half some members have everything that is available to it.
fn two_halves(half: usize) -> (Vec<BTreeSet<Uuid>>, Vec<Partitions>, BTreeMap<Uuid, Topic>) {
    let sizes = [vec![8; 2 * half], vec![4; 2 * half]].concat();
    let (topics, first) = (topics(&sizes), |number: usize| id(number as u128 + 1));
    let wanted = |member: usize| {
        let own = if member < half { 0..2 * half } else { 2 * half..4 * half };
        own.filter(move |topic| !(topic + member).is_multiple_of(half)).map(first).collect()
    };
    let mut before = vec![Partitions::new(); 2 * half];
    for (topic, size) in sizes.iter().enumerate() {
        for partition in 0..*size {
            let owner = match topic < 2 * half {
                true => (topic + partition * 31) % half,
                false => half + ((topic - 2 * half) * size + partition) / 15,
            };
            before[owner].entry(first(topic)).or_default().insert(partition as i32);
        }
    }
    ((0..2 * half).map(wanted).collect(), before, topics)
}

/// The coordinator's thread does this, while other groups wait.
#[test]
fn the_work_is_in_proportion_to_subscriptions_and_partitions() {
    let (wanted, before, topics) = two_halves(250);
    let ids: Vec<Arc<str>> = (0..500).map(|index| format!("m{index:03}").into()).collect();
    let partitions: usize = topics.values().map(|topic| topic.racks.len()).sum();
    let mut before: BTreeMap<Arc<str>, Partitions> = ids.iter().cloned().zip(before).collect();
    let wanted: Vec<_> = wanted.into_iter().map(Arc::new).collect();
    for count in [500, 499, 10, 500] {
        let members: Vec<_> = ids
            .iter()
            .zip(&wanted)
            .rev()
            .take(count)
            .map(|(id, topics)| Candidate {
                id,
                instance: None,
                rack: Some("elsewhere"),
                topics: Arc::clone(topics),
                before: before.get(id),
            })
            .collect();
        let subscriptions: usize = members.iter().map(|member| member.topics.len()).sum();
        let (assigned, steps) = uniform::uniform(&members, &topics);
        let bound = 5 * (subscriptions + partitions);
        assert!(steps <= bound, "{count} members: {steps} steps, not {bound}");
        before = members.iter().map(|member| Arc::clone(member.id)).zip(assigned).collect();
        // Each half has an equal share.
        for numbers in [0..250, 250..500] {
            let sizes = numbers
                .filter_map(|index| before.get(&ids[index]))
                .map(|own| own.values().map(BTreeSet::len).sum::<usize>());
            let sizes: Vec<usize> = sizes.collect();
            let spread = sizes.iter().max().zip(sizes.iter().min());
            assert!(spread.is_none_or(|(most, fewest)| *most <= fewest + 1), "{spread:?}");
        }
    }
}

/// Each member shares a topic with the next one alone, and the first one has all it can have.
/// Balance would take more rounds than the bound.
#[test]
fn long_chains_are_given_up() {
    let members = 3_000_u128;
    let topics = topics(&vec![40; members as usize + 1]);
    let ids: Vec<Arc<str>> = (0..members).map(|index| format!("m{index:04}").into()).collect();
    let before: Partitions =
        [id(1), id(2)].into_iter().map(|topic| (topic, (0..40).collect())).collect();
    let candidates: Vec<_> = (1..)
        .zip(&ids)
        .map(|(number, member)| Candidate {
            id: member,
            instance: None,
            rack: None,
            topics: Arc::new(BTreeSet::from([id(number), id(number + 1)])),
            before: (number == 1).then_some(&before),
        })
        .collect();
    let (_, steps) = uniform::uniform(&candidates, &topics);
    let in_a_round = ids.len() * 2 + topics.len() * 40 * 2;
    assert!(steps <= STEPS_FREE + (ROUNDS_MAX + 2) * in_a_round, "{steps} steps");
}
