//! The bytes of all members are counted exactly, and have a bound.

use proptest::prelude::*;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use weir_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use weir_protocol::messages::{
    ConsumerGroupHeartbeatRequest, JoinGroupRequest, OffsetCommitRequest, OffsetDeleteRequest,
    SyncGroupRequest,
};
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::classic_client::Classic;
use super::consumer::Consumer;
use super::world::{World, commit_request, join, sync};
use crate::group::{GroupMemory, Request};

const TOPICS: [(&str, usize); 3] = [("a", 3), ("ab", 2), ("b", 4)];
const DELAY: (&str, &str) = ("group.initial.rebalance.delay.ms", "0");

fn counted(worlds: &[World]) -> usize {
    let groups = worlds.iter().flat_map(|world| world.machine.groups.values());
    groups.map(|group| group.counted()).sum()
}

/// A JoinGroup with this many bytes, to this group.
fn large(group: &str, member: &str, bytes: usize) -> JoinGroupRequest {
    let mut request = JoinGroupRequest { group_id: group.to_owned(), ..join(member, &["range"]) };
    request.protocols[0].metadata = vec![0; bytes].into();
    request
}

fn counted_offsets(worlds: &[World]) -> usize {
    let groups = worlds.iter().flat_map(|world| world.machine.groups.values());
    groups.map(|group| group.offsets.counted()).sum()
}

/// A commit by nobody's member, with so many bytes of metadata.
fn noted(partition: i32, bytes: usize) -> OffsetCommitRequest {
    let mut request = commit_request("", -1, &[("a", partition, 1)]);
    request.topics[0].partitions[0].committed_metadata = Some("m".repeat(bytes));
    request
}

/// A step of clients of both protocols in two partitions.
#[derive(Clone, Debug)]
enum Step {
    Join { member: usize, version: i16, instance: bool, bytes: usize },
    JoinAsConsumer { member: usize, cooperative: bool },
    Sync { bytes: usize },
    Beat { member: usize, topics: usize, regex: usize, instance: bool, epoch: i32 },
    Leave { member: usize, instance: bool },
    Commit { partition: i32, bytes: usize, transaction: Option<i64> },
    End { producer: i64, committed: bool },
    DeleteOffsets,
    Delete,
    Topics(usize),
    Pass(u64),
    FailOver,
}

fn step() -> impl Strategy<Value = Step> {
    let member = 0_usize..3;
    prop_oneof![
        (member.clone(), prop_oneof![Just(3_i16), Just(9)], any::<bool>(), 0_usize..2000).prop_map(
            |(member, version, instance, bytes)| Step::Join { member, version, instance, bytes }
        ),
        (member.clone(), any::<bool>())
            .prop_map(|(member, cooperative)| Step::JoinAsConsumer { member, cooperative }),
        (0_usize..500).prop_map(|bytes| Step::Sync { bytes }),
        (member.clone(), 0_usize..4, 0_usize..3, any::<bool>(), -2_i32..1).prop_map(
            |(member, topics, regex, instance, epoch)| Step::Beat {
                member,
                topics,
                regex,
                instance,
                epoch
            }
        ),
        (member, any::<bool>()).prop_map(|(member, instance)| Step::Leave { member, instance }),
        (0_i32..4, 0_usize..50, prop::option::of(0_i64..2)).prop_map(
            |(partition, bytes, transaction)| Step::Commit { partition, bytes, transaction }
        ),
        (0_i64..2, any::<bool>())
            .prop_map(|(producer, committed)| Step::End { producer, committed }),
        Just(Step::DeleteOffsets),
        Just(Step::Delete),
        (1_usize..4).prop_map(Step::Topics),
        prop_oneof![Just(100_u64), Just(12_000), Just(400_000)].prop_map(Step::Pass),
        Just(Step::FailOver),
    ]
}

/// The ids of the members of group `g`, and the generation.
fn members(world: &mut World) -> (Vec<String>, i32) {
    match world.machine.groups.get("g").map(|group| &group.kind) {
        Some(crate::group::Kind::Classic(group)) => {
            (group.members.keys().map(|id| id.to_string()).collect(), group.generation)
        }
        _ => (Vec::new(), -1),
    }
}

fn carry_out(world: &mut World, step: &Step) {
    const INSTANCES: [&str; 3] = ["i-0", "i-1", "i-2"];
    const MEMBERS: [&str; 3] = ["m-0", "m-1", "m-2"];
    let (ids, generation) = members(world);
    let id = |member: usize| ids.get(member).cloned().unwrap_or_default();
    match *step {
        Step::Join { member, version, instance, bytes } => {
            let mut request = large("g", &id(member), bytes);
            request.group_instance_id = instance.then(|| INSTANCES[member].to_owned());
            let mut asked = world.join(version, request.clone());
            if let Some(answer) = asked.answer()
                && ErrorCode::from_code(answer.error_code) == ErrorCode::MemberIdRequired
                && bytes % 2 == 0
            {
                world.join(version, JoinGroupRequest { member_id: answer.member_id, ..request });
            }
        }
        Step::JoinAsConsumer { member, cooperative } => {
            let mut client = Classic::new(&["a", "b"], cooperative);
            client.id = id(member);
            world.join(3, client.request());
        }
        Step::Sync { bytes } => {
            for id in &ids {
                let request = SyncGroupRequest {
                    assignments: ids
                        .iter()
                        .map(|id| SyncGroupRequestAssignment {
                            member_id: id.clone(),
                            assignment: vec![0; bytes].into(),
                        })
                        .collect(),
                    ..sync(id, generation, &[])
                };
                world.sync(request);
            }
        }
        Step::Beat { member, topics, regex, instance, epoch } => {
            let names = &["a", "ab", "b"][..topics.min(3)];
            let request = ConsumerGroupHeartbeatRequest {
                member_epoch: epoch,
                subscribed_topic_regex: ["", "a.*", "b|ab"].get(regex).map(|text| (*text).into()),
                instance_id: instance.then(|| INSTANCES[member].to_owned()),
                rack_id: instance.then(|| "rack".to_owned()),
                topic_partitions: Some(Vec::new()),
                ..Consumer::new(MEMBERS[member], names).request()
            };
            world.consumer(request);
        }
        Step::Leave { member, instance } => {
            let name = instance.then_some(INSTANCES[member]);
            let id = if instance { "" } else { ids.get(member).map_or("", String::as_str) };
            world.leave(id, name);
        }
        Step::Commit { partition, bytes, transaction } => {
            let request = noted(partition, bytes);
            match transaction {
                None => drop(world.ask(|to| Request::Commit { request, version: 9, to })),
                Some(id) => {
                    let producer = (ProducerId(id), ProducerEpoch(0));
                    world.ask(|to| Request::CommitInTransaction { request, producer, to });
                }
            }
        }
        Step::End { producer, committed } => {
            world.end_transaction(ProducerId(producer), ProducerEpoch(0), committed)
        }
        Step::DeleteOffsets => {
            let request = OffsetDeleteRequest {
                group_id: "g".to_owned(),
                topics: vec![OffsetDeleteRequestTopic {
                    name: "a".to_owned(),
                    partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
                }],
            };
            world.ask(|to| Request::DeleteOffsets { request, to });
        }
        Step::Delete => {
            world.ask(|to| Request::Delete { group: "g".to_owned(), to });
        }
        Step::Topics(count) => world.topics(&TOPICS[..count]),
        Step::Pass(ms) => world.pass(ms),
        Step::FailOver => world.fail_over(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn what_members_take_is_counted_exactly(
        steps in prop::collection::vec((0_usize..2, step()), 1..40),
    ) {
        let memory = GroupMemory::default();
        let both = ("group.consumer.migration.policy", "bidirectional");
        let begin = || World::beside(&[DELAY, both], &TOPICS, &memory);
        let mut worlds = vec![begin(), begin()];
        for (world, step) in &steps {
            carry_out(&mut worlds[*world], step);
            prop_assert_eq!(memory.members.used_bytes(), counted(&worlds), "after {:?}", step);
            let offsets = counted_offsets(&worlds);
            prop_assert_eq!(memory.offsets.used_bytes(), offsets, "after {:?}", step);
        }
        worlds.remove(0);
        prop_assert_eq!(memory.members.used_bytes(), counted(&worlds), "a coordinator is gone");
        drop(worlds);
        prop_assert_eq!(memory.members.used_bytes(), 0);
        prop_assert_eq!(memory.offsets.used_bytes(), 0);
    }
}

/// Each group may be within bounds, but the number of groups is unlimited.
#[test]
fn members_of_all_groups_have_a_bound_together() {
    const BOUND: usize = 10 << 20;
    let memory = GroupMemory::new(BOUND, usize::MAX);
    let mut worlds: Vec<_> = (0..3).map(|_| World::beside(&[DELAY], &TOPICS, &memory)).collect();
    let mut refused = 0;
    let mut joined = Vec::new();
    for number in 0..60 {
        let group = format!("g-{number}");
        let mut asked = worlds[number % 3].join(3, large(&group, "", 1 << 20));
        match asked.answer().map(|answer| (ErrorCode::from_code(answer.error_code), answer)) {
            Some((ErrorCode::CoordinatorNotAvailable, _)) => refused += 1,
            _ => joined.push((number, group, asked)),
        }
        assert!(memory.members.used_bytes() <= BOUND);
    }
    assert_eq!((joined.len(), refused), (9, 51));
    let beat = |world: &mut World, topics: usize| {
        let names = (0..topics).map(|number| format!("{number:>01000}")).collect();
        let request = ConsumerGroupHeartbeatRequest {
            subscribed_topic_names: Some(names),
            ..Consumer::new("m", &[]).request()
        };
        ErrorCode::from_code(world.consumer(request).error_code)
    };
    assert_eq!(beat(&mut worlds[0], 1_000), ErrorCode::CoordinatorNotAvailable);
    assert_eq!(beat(&mut worlds[0], 100), ErrorCode::None, "there is room for a small one");
    // An assignment takes memory, too: the group leader must retry.
    for world in &mut worlds {
        world.pass(1_000);
    }
    let (number, group, asked) = &mut joined[0];
    let answer = asked.answer().expect("joined");
    let assigned = |bytes: usize| SyncGroupRequest {
        group_id: group.clone(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: answer.member_id.clone(),
            assignment: vec![0; bytes].into(),
        }],
        ..sync(&answer.member_id, answer.generation_id, &[])
    };
    let world = &mut worlds[*number % 3];
    let code = world.sync(assigned(1 << 20)).expect().error_code;
    assert_eq!(ErrorCode::from_code(code), ErrorCode::CoordinatorNotAvailable);
    // A present member continues, and may repeat its fields.
    let mut again = world.join(3, large(group, &answer.member_id, 1 << 20));
    world.pass(1_000);
    let answer = again.answer().expect("joined");
    assert_eq!(answer.error_code, 0);
    let synced = SyncGroupRequest { generation_id: answer.generation_id, ..assigned(10) };
    assert_eq!(world.sync(synced).expect().error_code, 0);
    // Removed members free their memory.
    for world in &mut worlds {
        world.pass(400_000);
    }
    assert_eq!(memory.members.used_bytes(), 0);
    assert!(worlds[1].join(3, large("new", "", 1 << 20)).answer().is_none(), "it waits for others");
}

/// Another broker may have had more memory; its log is loaded all the same.
#[test]
fn what_the_log_holds_is_loaded_though_it_is_too_much() {
    let memory = GroupMemory::new(2 << 20, usize::MAX);
    let mut before = World::beside(&[DELAY], &TOPICS, &GroupMemory::default());
    let mut asked = before.join(3, large("g", "", 4 << 20));
    before.pass(1_000);
    let answer = asked.answer().expect("joined");
    let (id, generation) = (answer.member_id, answer.generation_id);
    assert_eq!(before.sync(sync(&id, generation, &[&id])).expect().error_code, 0);
    let mut world = World::beside(&[DELAY], &TOPICS, &memory);
    world.log = before.log.clone();
    world.fail_over();
    assert!(memory.members.used_bytes() > 4 << 20);
    assert_eq!(world.heartbeat(&id, generation), ErrorCode::None);
    let refused = world.join(3, large("other", "", 10)).expect();
    assert_eq!(ErrorCode::from_code(refused.error_code), ErrorCode::CoordinatorNotAvailable);
    let mut again = world.join(3, large("g", &id, 4 << 20));
    world.pass(1_000);
    assert_eq!(again.answer().expect("joined").error_code, 0);
    world.leave(&id, None);
    assert_eq!(memory.members.used_bytes(), 0);
    assert!(world.join(3, large("other", "", 10)).answer().is_none());
}

/// A new member id is kept for the length of its session.
#[test]
fn ids_that_are_given_out_are_counted() {
    let memory = GroupMemory::new(100_000, usize::MAX);
    let mut world = World::beside(&[DELAY], &TOPICS, &memory);
    let mut given = 0;
    for _ in 0..10_000 {
        let answer = world.join(9, join("", &["range"])).expect();
        given +=
            usize::from(ErrorCode::from_code(answer.error_code) == ErrorCode::MemberIdRequired);
        assert!(memory.members.used_bytes() <= 100_000);
    }
    assert!((100..200).contains(&given), "{given}");
    world.pass(11_000);
    assert_eq!(memory.members.used_bytes(), 0);
}

/// Groups without members cost their client nothing. Their offsets have a bound of all groups
/// together.
#[test]
fn committed_offsets_of_all_groups_have_a_bound_together() {
    const BOUND: usize = 100_000;
    let memory = GroupMemory::new(usize::MAX, BOUND);
    let mut worlds: Vec<_> = (0..2).map(|_| World::beside(&[], &TOPICS, &memory)).collect();
    let commit = |world: &mut World, group: usize, partition: i32, bytes: usize| {
        let request =
            OffsetCommitRequest { group_id: format!("g-{group}"), ..noted(partition, bytes) };
        let answer = world.ask(|to| Request::Commit { request, version: 9, to }).expect();
        ErrorCode::from_code(answer.topics[0].partitions[0].error_code)
    };
    let mut taken = 0;
    for group in 0..1_000 {
        match commit(&mut worlds[group % 2], group, 0, 100) {
            ErrorCode::None => taken += 1,
            code => assert_eq!(code, ErrorCode::CoordinatorNotAvailable, "{group}"),
        }
        assert!(memory.offsets.used_bytes() <= BOUND);
    }
    assert!((80..150).contains(&taken), "{taken}");
    assert!(worlds.iter().map(|world| world.machine.groups.len()).sum::<usize>() == taken);
    // Who commits as much as before goes on, and who wants more is refused.
    assert_eq!(commit(&mut worlds[0], 0, 0, 100), ErrorCode::None);
    assert_eq!(commit(&mut worlds[0], 0, 0, 3_000), ErrorCode::CoordinatorNotAvailable);
    let request = OffsetCommitRequest { group_id: "g-0".to_owned(), ..noted(1, 3_000) };
    let producer = (ProducerId(1), ProducerEpoch(0));
    let refused = worlds[0].ask(|to| Request::CommitInTransaction { request, producer, to });
    let code = refused.expect().topics[0].partitions[0].error_code;
    assert_eq!(ErrorCode::from_code(code), ErrorCode::CoordinatorNotAvailable);
    // A new coordinator loads all of it, even if it has less memory.
    let less = GroupMemory::new(usize::MAX, 1_000);
    let mut world = World::beside(&[], &TOPICS, &less);
    world.log = worlds[0].log.clone();
    world.fail_over();
    assert!(less.offsets.used_bytes() > 1_000);
    assert_eq!(commit(&mut world, 0, 0, 100), ErrorCode::None);
    assert_eq!(commit(&mut world, 0, 1, 100), ErrorCode::CoordinatorNotAvailable);
    // What is deleted gives room.
    for group in 0..1_000 {
        let group = format!("g-{group}");
        worlds[0].ask(|to| Request::Delete { group, to }).expect();
    }
    assert_eq!(commit(&mut worlds[1], 5_000, 0, 100), ErrorCode::None);
}

/// Offsets that nobody needs any more stay for days. A group that commits in transactions what it
/// committed before goes on; so do those whose log is loaded beyond the bound.
#[test]
fn offsets_that_take_all_the_memory_stop_no_transaction() {
    let memory = GroupMemory::new(usize::MAX, 100_000);
    let less = GroupMemory::new(usize::MAX, 10_000);
    let mut world = World::beside(&[], &TOPICS, &memory);
    let request = |group: usize, partition: i32, bytes: usize| OffsetCommitRequest {
        group_id: format!("g-{group}"),
        ..noted(partition, bytes)
    };
    let plain = |world: &mut World, request| {
        let answer = world.ask(|to| Request::Commit { request, version: 9, to }).expect();
        ErrorCode::from_code(answer.topics[0].partitions[0].error_code)
    };
    let pending = |world: &mut World, request| {
        let producer = (ProducerId(1), ProducerEpoch(0));
        let asked = world.ask(|to| Request::CommitInTransaction { request, producer, to });
        ErrorCode::from_code(asked.expect().topics[0].partitions[0].error_code)
    };
    let taken = (0..1_000)
        .filter(|group| plain(&mut world, request(*group, 0, 100)) == ErrorCode::None)
        .count();
    let mut smaller = World::beside(&[], &TOPICS, &less);
    smaller.log = world.log.clone();
    smaller.fail_over();
    assert!(less.offsets.used_bytes() > 20_000);
    for world in [&mut world, &mut smaller] {
        for group in 0..taken {
            assert_eq!(pending(world, request(group, 0, 100)), ErrorCode::None, "{group}");
            world.end_transaction(ProducerId(1), ProducerEpoch(0), group % 2 == 0);
        }
        // What would stay when the transaction has ended is refused.
        let refused = [request(0, 1, 900), request(0, 0, 3_000), request(5_000, 0, 900)];
        for request in refused {
            assert_eq!(pending(world, request), ErrorCode::CoordinatorNotAvailable);
        }
        let open = (0..taken)
            .filter(|group| pending(world, request(*group, 0, 100)) == ErrorCode::None)
            .count();
        assert!(open > 5 && open < taken, "open transactions have a bound: {open} of {taken}");
        world.end_transaction(ProducerId(1), ProducerEpoch(0), true);
        assert_eq!(pending(world, request(taken - 1, 0, 100)), ErrorCode::None);
        world.end_transaction(ProducerId(1), ProducerEpoch(0), false);
    }
    assert!(memory.offsets.used_bytes() <= 100_000);
}
