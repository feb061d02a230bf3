//! The bounds of everything that clients can create: groups, members, queue entries, and invalid
//! offsets.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use weir_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use weir_protocol::messages::{
    ConsumerGroupHeartbeatRequest, JoinGroupRequest, OffsetCommitRequest, OffsetDeleteRequest,
};
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::classic_client::Classic;
use super::consumer::Consumer;
use super::world::{World, commit_request, join, sync};
use crate::coordinator::harness::Entry;
use crate::coordinator::{Logged, WRITE_BYTES_MAX};
use crate::group::record::{Change, read};
use crate::group::{GROUPS_MAX, Request};

const DELAY: (&str, &str) = ("group.initial.rebalance.delay.ms", "3000");

/// The name of the group with this number.
fn named(number: usize) -> String {
    format!("g-{number}")
}

fn count(world: &World) -> usize {
    world.machine.groups.len()
}

fn commit_to(world: &mut World, group: String, metadata: &str) -> ErrorCode {
    let mut request =
        OffsetCommitRequest { group_id: group, ..commit_request("", -1, &[("a", 0, 1)]) };
    request.topics[0].partitions[0].committed_metadata = Some(metadata.to_owned());
    let response = world.ask(|to| Request::Commit { request, version: 9, to });
    ErrorCode::from_code(response.expect().topics[0].partitions[0].error_code)
}

#[test]
fn a_thousand_members_join_at_once_and_no_more() {
    let mut world = World::new(&[DELAY, ("group.max.size", "1000")]);
    let mut joins: Vec<_> = (0..1000).map(|_| world.join(3, join("", &["range"]))).collect();
    for _ in 0..10 {
        let refused = world.join(3, join("", &["range"])).expect();
        assert_eq!(ErrorCode::from_code(refused.error_code), ErrorCode::GroupMaxSizeReached);
    }
    world.pass(7_000);
    let answers: Vec<_> = joins.iter_mut().map(|join| join.answer().expect("joined")).collect();
    assert!(answers.iter().all(|answer| (answer.error_code, answer.generation_id) == (0, 1)));
    let told: Vec<_> =
        answers.iter().map(|answer| answer.members.len()).filter(|told| *told > 0).collect();
    assert_eq!(told, [1000], "the leader alone is told of everybody");
    let (leader, ids): (_, Vec<&str>) = (
        answers[0].leader.clone(),
        answers.iter().map(|answer| answer.member_id.as_str()).collect(),
    );
    assert_eq!(world.sync(sync(&leader, 1, &ids)).expect().error_code, 0);
    assert_eq!(world.log.len(), 1, "one record for all of them");
    // However many heartbeats arrive, each member has one entry in the queue. It may have one more
    // from before it knew its id.
    for _ in 0..20 {
        world.pass(1_000);
        for id in &ids {
            assert_eq!(world.heartbeat(id, 1), ErrorCode::None);
        }
    }
    let queued = world.machine.around.deadlines.len();
    assert!(queued <= 2 * 1000 + 10, "{queued}");
    world.fail_over();
    assert_eq!(world.state(), "Stable");
    world.pass(80_000);
    assert_eq!((world.state(), world.machine.around.deadlines.len()), ("Empty".to_owned(), 1));
}

#[test]
fn a_thousand_members_of_the_consumer_protocol_and_no_more() {
    let mut world = World::with_topics(&[("group.consumer.max.size", "1000")], &[("a", 100)]);
    let request = |number: usize, epoch| ConsumerGroupHeartbeatRequest {
        member_id: format!("m-{number}"),
        member_epoch: epoch,
        ..Consumer::new("m", &["a"]).request()
    };
    let epochs: Vec<_> =
        (0..1000).map(|number| world.consumer(request(number, 0)).member_epoch).collect();
    assert_eq!(epochs.last(), Some(&1001));
    for number in 1000..1010 {
        let refused = world.consumer(request(number, 0));
        assert_eq!(ErrorCode::from_code(refused.error_code), ErrorCode::GroupMaxSizeReached);
    }
    assert!(world.machine.around.deadlines.len() <= 2 * 1000 + 1);
    world.fail_over();
    world.pass(120_000);
    assert_eq!((world.state(), world.machine.around.deadlines.len()), ("Empty".to_owned(), 1));
}

#[test]
fn a_member_that_joins_in_a_loop_stands_in_the_queue_once() {
    let mut world = World::new(&[DELAY]);
    assert_eq!(Consumer::new("new", &["a"]).beat(&mut world).error_code, 0);
    let request = JoinGroupRequest {
        member_id: "old".to_owned(),
        rebalance_timeout_ms: i32::MAX,
        ..Classic::new(&["a"], false).request()
    };
    for _ in 0..1000 {
        let answer = world.join(9, request.clone()).expect();
        world.pass(1);
        assert_eq!(world.sync(sync("old", answer.generation_id, &[])).expect().error_code, 0);
    }
    assert!(world.machine.around.deadlines.len() < 10, "{}", world.machine.around.deadlines.len());
}

/// A decision does a bounded amount of work, because other groups have the same coordinator.
#[test]
fn regular_expressions_are_matched_a_few_at_a_time() {
    const MEMBERS: usize = 40;
    let mut world = World::new(&[("group.consumer.assignment.interval.ms", "0")]);
    let request = |number: usize, epoch: i32| ConsumerGroupHeartbeatRequest {
        member_epoch: epoch,
        subscribed_topic_names: None,
        subscribed_topic_regex: (epoch == 0).then(|| format!("x|a{number}")),
        topic_partitions: (epoch == 0).then(Vec::new),
        ..Consumer::new("m", &[]).request()
    };
    let request = |number: usize, epoch| ConsumerGroupHeartbeatRequest {
        member_id: format!("m-{number}"),
        ..request(number, epoch)
    };
    for number in 0..MEMBERS {
        assert_eq!(world.consumer(request(number, 0)).error_code, 0);
    }
    let matched = |entry: &&Entry| {
        let Entry::Record(record, transaction) = entry else { return false };
        let logged =
            Logged { key: &record.key, value: record.value.as_deref(), transaction: *transaction };
        matches!(read(&logged), Ok(Change::Regex(_, Some(_))))
    };
    assert_eq!(world.log.iter().filter(matched).count(), MEMBERS, "each when it is new");
    world.topics(&[("x", 1)]);
    let mut rounds = Vec::new();
    for round in 0..5 {
        let before = world.log.len();
        // Each member sends several heartbeats in a round.
        for number in (0..MEMBERS).chain(0..MEMBERS) {
            let answer = world.consumer(request(number, 0));
            assert_eq!(answer.error_code, 0, "round {round}");
        }
        rounds.push(world.log[before..].iter().filter(matched).count());
        world.pass(1_000);
    }
    assert_eq!(rounds, [16, 16, 8, 0, 0]);
}

#[test]
fn groups_that_hold_nothing_are_forgotten() {
    let mut world = World::new(&[DELAY, ("offset.metadata.max.bytes", "4")]);
    for number in 0..10_000 {
        let group = named(number);
        assert_eq!(
            commit_to(&mut world, group.clone(), "too long"),
            ErrorCode::OffsetMetadataTooLarge
        );
        let refused = [
            ConsumerGroupHeartbeatRequest {
                group_id: group.clone(),
                subscribed_topic_regex: Some("(".to_owned()),
                ..Consumer::new("m", &["a"]).request()
            },
            ConsumerGroupHeartbeatRequest {
                group_id: group.clone(),
                member_epoch: 5,
                ..Consumer::new("m", &["a"]).request()
            },
        ];
        for request in refused {
            assert_ne!(world.consumer(request).error_code, 0);
        }
        let request = JoinGroupRequest { group_id: group.clone(), ..join("", &[]) };
        assert_ne!(world.join(3, request).expect().error_code, 0);
        let request = OffsetFetchRequestGroup { group_id: group, ..Default::default() };
        let fetched = world.ask(|to| Request::Fetch { request, require_stable: false, to });
        assert_eq!(fetched.expect().error_code, 0);
    }
    assert_eq!((count(&world), world.log.len()), (0, 0));
    // A new member id is kept for the length of its session.
    for number in 0..10_000 {
        let request = JoinGroupRequest { group_id: named(number), ..join("", &["range"]) };
        let answer = world.join(4, request).expect();
        assert_eq!(ErrorCode::from_code(answer.error_code), ErrorCode::MemberIdRequired);
    }
    assert_eq!(count(&world), 10_000);
    world.pass(11_000);
    assert_eq!((count(&world), world.log.len(), world.machine.around.deadlines.len()), (0, 0, 1));
}

#[test]
fn ten_thousand_groups_are_kept_and_expire() {
    let mut world = World::new(&[("offsets.retention.minutes", "60")]);
    for number in 0..10_000 {
        assert_eq!(commit_to(&mut world, named(number), "m"), ErrorCode::None);
    }
    world.fail_over();
    assert_eq!(count(&world), 10_000);
    assert_eq!(world.machine.topics.len(), 1, "a topic's name is there once");
    world.pass(5_000_000);
    assert_eq!(count(&world), 0);
    world.fail_over();
    assert_eq!(count(&world), 0);
}

#[test]
fn there_are_no_more_groups_than_can_be() {
    let mut world = World::new(&[DELAY]);
    for number in 0..GROUPS_MAX {
        world.machine.get_or_make(&named(number)).unwrap();
    }
    let (more, known) = (named(GROUPS_MAX), named(7));
    assert_eq!(commit_to(&mut world, more.clone(), "m"), ErrorCode::CoordinatorNotAvailable);
    let request = JoinGroupRequest { group_id: more.clone(), ..join("", &["range"]) };
    assert_eq!(
        ErrorCode::from_code(world.join(3, request).expect().error_code),
        ErrorCode::CoordinatorNotAvailable
    );
    let request =
        ConsumerGroupHeartbeatRequest { group_id: more, ..Consumer::new("m", &["a"]).request() };
    assert_eq!(
        ErrorCode::from_code(world.consumer(request).error_code),
        ErrorCode::CoordinatorNotAvailable
    );
    assert_eq!(commit_to(&mut world, known, "m"), ErrorCode::None, "those that are there go on");
    assert_eq!(count(&world), GROUPS_MAX);
}

#[test]
fn an_offset_beyond_the_log_is_the_clients_business() {
    let mut world = World::new(&[]);
    let request = commit_request("", -1, &[("a", 0, i64::MAX), ("a", 2, 0)]);
    let response = world.ask(|to| Request::Commit { request, version: 9, to }).expect();
    assert!(response.topics.iter().all(|topic| topic.partitions[0].error_code == 0));
    world.fail_over();
    let request =
        OffsetFetchRequestGroup { group_id: "g".to_owned(), topics: None, ..Default::default() };
    let fetched = world.ask(|to| Request::Fetch { request, require_stable: false, to });
    let offsets: Vec<_> = fetched.expect().topics[0]
        .partitions
        .iter()
        .map(|partition| partition.committed_offset)
        .collect();
    assert_eq!(offsets, [i64::MAX, 0]);
}

/// A client id may be as long as a string can be, and the member id adds to it.
#[test]
fn the_id_of_a_member_whose_client_has_a_long_name_can_be_told() {
    let mut ids = crate::group::Ids { seed: 1, count: 0 };
    let id = ids.member(&"\u{10348}".repeat(8191));
    assert!(id.len() < 8192, "{} bytes", id.len());
}

/// A request may repeat a partition any number of times, and each record contains the group's id.
/// The coordinator refuses the whole request if it would write more than the bound.
#[test]
fn a_request_that_would_write_too_much_is_refused_whole() {
    let mut world = World::new(&[]);
    let group = "g".repeat(1_000);
    assert_eq!(commit_to(&mut world, group.clone(), ""), ErrorCode::None);
    let (written, unknown) = (world.log.len(), ErrorCode::UnknownServerError.code());
    for transaction in [false, true] {
        let mut request = OffsetCommitRequest {
            group_id: group.clone(),
            ..commit_request("", -1, &[("a", 0, 2)])
        };
        let partition = request.topics[0].partitions[0].clone();
        request.topics[0].partitions = vec![partition; 20_000];
        let response = match transaction {
            false => world.ask(|to| Request::Commit { request, version: 9, to }),
            true => world.ask(|to| Request::CommitInTransaction {
                request,
                producer: (ProducerId(7), ProducerEpoch(0)),
                to,
            }),
        };
        let response = response.expect();
        assert!(
            response.topics[0].partitions.iter().all(|partition| partition.error_code == unknown)
        );
    }
    let request = OffsetDeleteRequest {
        group_id: group.clone(),
        topics: vec![OffsetDeleteRequestTopic {
            name: "a".to_owned(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }; 20_000],
        }],
    };
    assert_eq!(world.ask(|to| Request::DeleteOffsets { request, to }).expect().error_code, unknown);
    assert_eq!(world.log.len(), written, "nothing is written");
    assert_eq!(commit_to(&mut world, group, ""), ErrorCode::None);
    assert_eq!(world.log.len(), written + 1);
}

/// The record of a group contains the metadata of all its members.
#[test]
fn members_that_say_too_much_for_one_record_are_refused() {
    let mut world = World::new(&[]);
    let of = |bytes: usize| {
        let mut request = join("", &["range"]);
        request.protocols[0].metadata = vec![0; bytes].into();
        request
    };
    let refused = world.join(3, of(WRITE_BYTES_MAX + 1)).expect();
    assert_eq!(ErrorCode::from_code(refused.error_code), ErrorCode::UnknownServerError);
    let mut first = world.join(3, of(WRITE_BYTES_MAX / 2));
    let refused = world.join(3, of(WRITE_BYTES_MAX / 2 + 1)).expect();
    assert_eq!(ErrorCode::from_code(refused.error_code), ErrorCode::UnknownServerError);
    let mut second = world.join(3, of(WRITE_BYTES_MAX / 2));
    world.pass(7_000);
    let codes = [&mut first, &mut second].map(|join| join.answer().expect("joined").error_code);
    assert_eq!(codes, [0, 0]);
}

/// The members' metadata may be within bounds, and the leader's assignment not. Nothing is written,
/// all members get the error, and join again (`GroupMetadataManager.classicGroupSyncToLeader`).
#[test]
fn an_assignment_that_is_too_large_for_one_record_is_refused_to_all() {
    let mut world = World::new(&[]);
    let of = |bytes: usize| {
        let mut request = join("", &["range"]);
        request.protocols[0].metadata = vec![0; bytes].into();
        request
    };
    let mut joins =
        [world.join(3, of(WRITE_BYTES_MAX / 4)), world.join(3, of(WRITE_BYTES_MAX / 4))];
    world.pass(7_000);
    let joined = joins.each_mut().map(|join| join.answer().expect("joined"));
    let leader = joined.iter().position(|member| member.member_id == member.leader).unwrap();
    let [leader, other] = [&joined[leader].member_id, &joined[1 - leader].member_id];
    let generation = joined[0].generation_id;

    let waits = world.sync(sync(other, generation, &[]));
    let mut request = sync(leader, generation, &[leader, other]);
    request.assignments[1].assignment = vec![0; WRITE_BYTES_MAX / 2].into();
    let written = world.log.len();
    let codes = [world.sync(request).expect().error_code, waits.expect().error_code];
    assert_eq!(codes, [ErrorCode::UnknownServerError.code(); 2]);
    assert_eq!(world.log.len(), written, "nothing is written");
    assert_eq!(world.heartbeat(other, generation), ErrorCode::RebalanceInProgress);

    let again = |id: &str| JoinGroupRequest { member_id: id.to_owned(), ..of(8) };
    let mut joins = [world.join(3, again(leader)), world.join(3, again(other))];
    let generation = joins.each_mut().map(|join| join.answer().expect("joined").generation_id)[0];
    let waits = world.sync(sync(other, generation, &[]));
    assert_eq!(world.sync(sync(leader, generation, &[leader, other])).expect().error_code, 0);
    assert_eq!(waits.expect().error_code, 0);
}
