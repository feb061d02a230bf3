//! The classic protocol: rebalances, the errors of each case, static members, and failovers.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::JoinGroupResponse;

use super::world::{Asked, World, join, join_static, sync};

const DELAY: (&str, &str) = ("group.initial.rebalance.delay.ms", "3000");

fn code(response: &JoinGroupResponse) -> ErrorCode {
    ErrorCode::from_code(response.error_code)
}

/// Two members, in the order of their ids, in generation 1 with their assignments.
fn stable(world: &mut World) -> [String; 2] {
    let mut joins = [world.join(3, join("", &["range", "roundrobin"])), world.join(3, join("", &["range"]))];
    world.pass(6_000);
    let answers = joins.each_mut().map(|join| join.answer().expect("joined"));
    assert_eq!(answers.each_ref().map(|answer| answer.generation_id), [1, 1]);
    let leader = answers[0].leader.clone();
    let ids = answers.map(|answer| answer.member_id);
    assert_eq!(world.state(), "CompletingRebalance");
    let follower = ids.iter().find(|id| **id != leader).unwrap().clone();
    let mut waiting = world.sync(sync(&follower, 1, &[]));
    assert!(waiting.answer().is_none(), "the leader has not said anything yet");
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    let led = world.sync(sync(&leader, 1, &names)).expect();
    assert_eq!(led.assignment, format!("{leader}@1"));
    assert_eq!(waiting.expect().assignment, format!("{follower}@1"));
    assert_eq!(world.state(), "Stable");
    let mut ids = ids;
    ids.sort();
    // The leader first.
    if ids[0] != leader {
        ids.swap(0, 1);
    }
    ids
}

#[test]
fn the_first_rebalance_waits_for_those_who_keep_coming_and_no_longer_than_a_rebalance_may_take() {
    let mut world = World::new(&[DELAY]);
    let mut first = world.join(3, join("", &["range"]));
    world.pass(2_999);
    assert!(first.answer().is_none());
    let mut second = world.join(3, join("", &["range"]));
    world.pass(1);
    assert!(first.answer().is_none(), "somebody came: it is put off");
    world.pass(3_000);
    let answers = [first.answer().unwrap(), second.answer().unwrap()];
    let leaders: Vec<_> = answers.iter().filter(|answer| answer.leader == answer.member_id).collect();
    assert_eq!((leaders.len(), leaders[0].members.len()), (1, 2), "the leader alone is told of all");
    assert_eq!(world.state(), "CompletingRebalance");

    let mut world = World::new(&[DELAY]);
    let mut joins: Vec<Asked<_>> = Vec::new();
    for _ in 0..40 {
        joins.push(world.join(3, join("", &["range"])));
        world.pass(2_000);
    }
    assert!(joins[0].answer().is_some(), "after the rebalance timeout of 60 s at the latest");
}

#[test]
fn a_member_comes_back_with_the_id_that_it_was_given() {
    let mut world = World::new(&[DELAY]);
    let refused = world.join(4, join("", &["range"])).expect();
    assert_eq!(code(&refused), ErrorCode::MemberIdRequired);
    assert!(refused.member_id.starts_with("client-"));
    let mut joined = world.join(4, join(&refused.member_id, &["range"]));
    world.pass(3_000);
    assert_eq!(joined.answer().unwrap().member_id, refused.member_id);
    // One that does not come back is forgotten, and so is the group.
    let mut world = World::new(&[DELAY]);
    world.join(4, join("", &["range"])).expect();
    world.pass(10_000);
    assert_eq!((world.state(), world.log.len()), ("none".to_owned(), 0));
    assert_eq!(code(&world.join(4, join("nobody", &["range"])).expect()), ErrorCode::UnknownMemberId);
}

#[test]
fn each_case_has_its_own_error() {
    let mut world = World::new(&[DELAY]);
    let [leader, follower] = stable(&mut world);
    for (request, error) in [
        (join("", &["sticky"]), ErrorCode::InconsistentGroupProtocol),
        (join("", &[]), ErrorCode::InconsistentGroupProtocol),
        (join("nobody", &["range"]), ErrorCode::UnknownMemberId),
    ] {
        assert_eq!(code(&world.join(3, request).expect()), error);
    }
    for timeout in [5_999, 1_800_001, -1] {
        let request = weir_protocol::messages::JoinGroupRequest {
            session_timeout_ms: timeout,
            ..join("", &["range"])
        };
        assert_eq!(code(&world.join(3, request).expect()), ErrorCode::InvalidSessionTimeout);
    }
    let errors = [
        (world.heartbeat(&leader, 1), ErrorCode::None),
        (world.heartbeat(&leader, 0), ErrorCode::IllegalGeneration),
        (world.heartbeat("nobody", 1), ErrorCode::UnknownMemberId),
    ];
    for (answer, expected) in errors {
        assert_eq!(answer, expected);
    }
    let synced = |world: &mut World, member: &str, generation| ErrorCode::from_code(world.sync(sync(member, generation, &[])).expect().error_code);
    assert_eq!(synced(&mut world, &leader, 2), ErrorCode::IllegalGeneration);
    assert_eq!(synced(&mut world, "nobody", 1), ErrorCode::UnknownMemberId);
    assert_eq!(synced(&mut world, &follower, 1), ErrorCode::None, "it may ask again for what it has");
    // The leader joins again: a rebalance, of which the others hear by their heartbeats.
    let mut joining = world.join(3, join(&leader, &["range"]));
    assert!(joining.answer().is_none());
    assert_eq!(world.state(), "PreparingRebalance");
    assert_eq!(world.heartbeat(&follower, 1), ErrorCode::RebalanceInProgress);
    assert_eq!(synced(&mut world, &follower, 1), ErrorCode::RebalanceInProgress);
    assert_eq!(world.leave("nobody", None).members[0].error_code, ErrorCode::UnknownMemberId.code());
}

#[test]
fn a_follower_that_says_nothing_new_starts_no_rebalance() {
    let mut world = World::new(&[DELAY]);
    let [leader, follower] = stable(&mut world);
    let same = world.machine.groups["g"].kind_of_classic().members[&*follower].protocols.clone();
    let names: Vec<&str> = same.iter().map(|(name, _)| &**name).collect();
    let again = world.join(3, join(&follower, &names)).expect();
    assert_eq!((again.generation_id, again.leader, again.members.len()), (1, leader.clone(), 0));
    assert_eq!(world.state(), "Stable");
    // Something new does.
    let mut changed = world.join(3, join(&follower, &["range", "sticky"]));
    assert!(changed.answer().is_none());
    assert_eq!(world.heartbeat(&leader, 1), ErrorCode::RebalanceInProgress);
    let led = world.join(3, join(&leader, &["range"])).expect();
    assert_eq!((led.generation_id, led.members.len()), (2, 2));
    assert_eq!(changed.expect().generation_id, 2);
}

#[test]
fn who_does_not_come_or_sync_or_is_not_heard_of_is_out() {
    let mut world = World::new(&[DELAY]);
    let [leader, follower] = stable(&mut world);
    // The follower does not join: the join phase ends without it.
    let mut joining = world.join(3, join(&leader, &["range"]));
    for _ in 0..9 {
        world.pass(5_000);
        world.heartbeat(&follower, 1);
    }
    assert!(joining.answer().is_none());
    world.pass(20_000);
    let led = joining.answer().unwrap();
    assert_eq!((led.generation_id, led.members.len()), (2, 1));
    assert_eq!(world.heartbeat(&follower, 1), ErrorCode::UnknownMemberId);
    // The leader does not sync, though it is heard of.
    for _ in 0..14 {
        world.pass(5_000);
        world.heartbeat(&leader, 2);
    }
    assert_eq!(world.heartbeat(&leader, 2), ErrorCode::UnknownMemberId);
    assert_eq!(world.state(), "Empty");

    // A session ends.
    let mut world = World::new(&[DELAY]);
    let [leader, follower] = stable(&mut world);
    world.pass(6_000);
    assert_eq!(world.heartbeat(&leader, 1), ErrorCode::None);
    world.pass(6_000);
    assert_eq!(world.heartbeat(&leader, 1), ErrorCode::RebalanceInProgress);
    assert_eq!(world.heartbeat(&follower, 1), ErrorCode::UnknownMemberId);
    // Who waits for the group is not expected to be heard of.
    let mut joined = world.join(3, join(&leader, &["range"]));
    assert_eq!(joined.answer().unwrap().generation_id, 2);
}

#[test]
fn a_protocol_is_chosen_that_all_can_do() {
    let mut world = World::new(&[DELAY]);
    let mut joins = [
        world.join(3, join("", &["sticky", "range", "roundrobin"])),
        world.join(3, join("", &["roundrobin", "range"])),
        world.join(3, join("", &["roundrobin", "sticky", "range"])),
    ];
    world.pass(10_000);
    for join in &mut joins {
        assert_eq!(join.answer().unwrap().protocol_name.as_deref(), Some("roundrobin"));
    }
}

#[test]
fn a_group_has_no_more_members_than_it_may() {
    let mut world = World::new(&[DELAY, ("group.max.size", "2")]);
    let mut joins = [world.join(3, join("", &["range"])), world.join(3, join("", &["range"]))];
    assert_eq!(code(&world.join(3, join("", &["range"])).expect()), ErrorCode::GroupMaxSizeReached);
    world.pass(10_000);
    let [first, second] = joins.each_mut().map(|join| join.answer().unwrap());
    assert_eq!(code(&world.join(3, join("", &["range"])).expect()), ErrorCode::GroupMaxSizeReached);
    // Those who are in stay in.
    let mut again = [
        world.join(3, join(&first.member_id, &["range", "x"])),
        world.join(3, join(&second.member_id, &["range"])),
    ];
    assert_eq!(again[0].answer().unwrap().generation_id, 2);
    assert_eq!(again[1].answer().unwrap().generation_id, 2);
}

#[test]
fn a_static_member_keeps_its_assignment_and_fences_another_one_of_its_name() {
    let mut world = World::new(&[DELAY]);
    let mut joins = [world.join(9, join_static("", "one")), world.join(9, join_static("", "two"))];
    world.pass(6_000);
    let answers = joins.each_mut().map(|join| join.answer().unwrap());
    let leader = answers[0].leader.clone();
    let is_leader = |answer: &&JoinGroupResponse| answer.member_id == leader;
    let (led, followed) = (
        answers.iter().find(is_leader).unwrap(),
        answers.iter().find(|answer| !is_leader(answer)).unwrap(),
    );
    let led_instance = if answers[0].member_id == leader { "one" } else { "two" };
    let names = [led.member_id.as_str(), followed.member_id.as_str()];
    world.sync(sync(&leader, 1, &names)).expect();
    let written = world.log.len();
    // The leader comes back: the same generation, and nothing to be assigned anew (KIP-814).
    let back = world.join(9, join_static("", led_instance)).expect();
    assert_eq!(
        (code(&back), back.generation_id, back.skip_assignment, back.members.len()),
        (ErrorCode::None, 1, true, 2)
    );
    assert_ne!(back.member_id, leader);
    assert_eq!(world.log.len(), written + 1, "its new id is written down before it is told");
    assert_eq!(world.state(), "Stable");
    let assignment = world.sync(sync(&back.member_id, 1, &[])).expect().assignment;
    assert_eq!(assignment, format!("{leader}@1"));
    // Its older self is fenced.
    let request = weir_protocol::messages::HeartbeatRequest {
        group_id: "g".to_owned(),
        generation_id: 1,
        member_id: leader.clone(),
        group_instance_id: Some(led_instance.to_owned()),
    };
    let fenced = world.ask(|to| crate::group::Request::Heartbeat { request, to }).expect();
    assert_eq!(fenced, ErrorCode::FencedInstanceId);
    assert_eq!(
        code(&world.join(9, join_static(&leader, led_instance)).expect()),
        ErrorCode::FencedInstanceId
    );
    // An administrator removes it by its name.
    assert_eq!(world.leave("", Some(led_instance)).members[0].error_code, 0);
    assert_eq!(world.heartbeat(&back.member_id, 1), ErrorCode::UnknownMemberId);
    assert_eq!(world.state(), "PreparingRebalance");
}

#[test]
fn a_new_coordinator_knows_what_was_answered() {
    let mut world = World::new(&[DELAY]);
    let [leader, follower] = stable(&mut world);
    world.fail_over();
    assert_eq!(world.state(), "Stable");
    for member in [&leader, &follower] {
        assert_eq!(world.heartbeat(member, 1), ErrorCode::None);
        assert_eq!(world.sync(sync(member, 1, &[])).expect().assignment, format!("{member}@1"));
    }
    // In the middle of a rebalance: the members find the generation that they had.
    let mut joining = world.join(3, join(&leader, &["range"]));
    assert!(joining.answer().is_none());
    world.fail_over();
    assert_eq!(world.heartbeat(&follower, 1), ErrorCode::None);
    assert_eq!(world.heartbeat(&leader, 1), ErrorCode::None);
    let mut again = world.join(3, join(&leader, &["range"]));
    let mut other = world.join(3, join(&follower, &["range"]));
    assert_eq!(again.answer().unwrap().generation_id, 2);
    assert_eq!(other.answer().unwrap().generation_id, 2);
    // Sessions begin anew, and end.
    world.fail_over();
    world.pass(10_000);
    world.pass(61_000);
    assert_eq!(world.state(), "Empty");
    world.fail_over();
    assert_eq!(world.state(), "Empty");
}
