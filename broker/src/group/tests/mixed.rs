//! Groups of the consumer protocol with members of the classic one: errors, time limits, static
//! members, and offsets.

use bytes::Bytes;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use weir_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use weir_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest,
};
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::classic_client::{Classic, settle};
use super::consumer::Consumer;
use super::world::{Asked, World, commit_request, sync};
use crate::group::Request;

const DELAY: (&str, &str) = ("group.initial.rebalance.delay.ms", "100");

fn code(response: &JoinGroupResponse) -> ErrorCode {
    ErrorCode::from_code(response.error_code)
}

/// A group with one member of each protocol, which share five partitions.
fn mixed(configs: &[(&str, &str)]) -> (World, Classic, Consumer) {
    let mut world = World::new(&[&[DELAY], configs].concat());
    let mut old = Classic::new(&["a", "b"], true);
    settle(&mut world, &mut [&mut old]);
    let mut new = Consumer::new("new", &["a", "b"]);
    for _ in 0..5 {
        assert_eq!(new.beat(&mut world).error_code, 0);
        settle(&mut world, &mut [&mut old]);
    }
    assert_eq!((world.state().as_str(), old.owned.len() + new.count(), old.lost), ("Stable", 5, 0));
    (world, old, new)
}

fn beat(world: &mut World, member: &str, instance: Option<&str>, generation: i32) -> ErrorCode {
    let request = HeartbeatRequest {
        group_id: "g".to_owned(),
        generation_id: generation,
        member_id: member.to_owned(),
        group_instance_id: instance.map(str::to_owned),
    };
    world.ask(|to| Request::Heartbeat { request, to }).expect()
}

#[test]
fn each_case_has_its_own_error() {
    let (mut world, old, new) = mixed(&[("group.consumer.max.size", "3")]);
    let (id, generation) = (old.id.clone(), old.generation);
    for (member, instance, at, error) in [
        (id.as_str(), None, generation, ErrorCode::None),
        (&id, None, generation - 1, ErrorCode::IllegalGeneration),
        ("nobody", None, generation, ErrorCode::UnknownMemberId),
        ("new", None, new.epoch, ErrorCode::UnknownMemberId),
        (&id, Some("i"), generation, ErrorCode::UnknownMemberId),
    ] {
        assert_eq!(beat(&mut world, member, instance, at), error, "{member} {instance:?} {at}");
    }
    let with =
        |member: &str, at, protocol_type: Option<&str>, protocol: Option<&str>| SyncGroupRequest {
            protocol_type: protocol_type.map(str::to_owned),
            protocol_name: protocol.map(str::to_owned),
            ..sync(member, at, &[])
        };
    for (request, error) in [
        (with(&id, generation, None, None), ErrorCode::None),
        (with(&id, generation, Some("consumer"), Some("cooperative-sticky")), ErrorCode::None),
        (with(&id, generation, Some("connect"), None), ErrorCode::InconsistentGroupProtocol),
        (with(&id, generation, None, Some("range")), ErrorCode::InconsistentGroupProtocol),
        (with(&id, generation + 1, None, None), ErrorCode::IllegalGeneration),
        (with("nobody", generation, None, None), ErrorCode::UnknownMemberId),
        (with("new", new.epoch, None, None), ErrorCode::UnknownMemberId),
    ] {
        assert_eq!(ErrorCode::from_code(world.sync(request).expect().error_code), error);
    }
    let written = world.log.len();
    let fresh = Classic::new(&["a"], true).request();
    let renamed = |name: &str, metadata: Bytes| JoinGroupRequest {
        member_id: "x".to_owned(),
        protocols: vec![JoinGroupRequestProtocol { name: name.to_owned(), metadata }],
        ..fresh.clone()
    };
    let good = fresh.protocols[0].metadata.clone();
    for (request, error) in [
        (fresh.clone(), ErrorCode::MemberIdRequired),
        (renamed("range", good.clone()), ErrorCode::InconsistentGroupProtocol),
        (renamed("cooperative-sticky", Bytes::from_static(b"\0")), ErrorCode::UnknownServerError),
        (
            JoinGroupRequest {
                protocol_type: "connect".to_owned(),
                ..renamed("cooperative-sticky", good.clone())
            },
            ErrorCode::InconsistentGroupProtocol,
        ),
        (
            JoinGroupRequest {
                group_instance_id: Some("i".to_owned()),
                ..renamed("cooperative-sticky", good.clone())
            },
            ErrorCode::UnknownMemberId,
        ),
    ] {
        assert_eq!(code(&world.join(9, request).expect()), error);
    }
    assert_eq!(world.log.len(), written, "nothing has come of it");
    assert_eq!(
        code(&world.join(9, renamed("cooperative-sticky", good.clone())).expect()),
        ErrorCode::None
    );
    let full =
        JoinGroupRequest { member_id: "y".to_owned(), ..renamed("cooperative-sticky", good) };
    assert_eq!(code(&world.join(9, full).expect()), ErrorCode::GroupMaxSizeReached);
    assert_eq!(
        world.leave("nobody", None).members[0].error_code,
        ErrorCode::UnknownMemberId.code()
    );
    assert_eq!(world.leave("", Some("i")).members[0].error_code, ErrorCode::UnknownMemberId.code());
}

#[test]
fn who_does_not_join_sync_or_heartbeat_in_time_is_out() {
    // It sends heartbeats but does not join again. The rebalance timeout counts from the first
    // request to do so.
    let (mut world, old, mut new) = mixed(&[]);
    world.topics(&[("a", 5), ("b", 2)]);
    new.beat(&mut world);
    for _ in 0..11 {
        assert_eq!(world.heartbeat(&old.id, old.generation), ErrorCode::RebalanceInProgress);
        world.pass(5_000);
        new.beat(&mut world);
    }
    assert_eq!(world.heartbeat(&old.id, old.generation), ErrorCode::RebalanceInProgress);
    world.pass(6_000);
    assert_eq!(world.heartbeat(&old.id, old.generation), ErrorCode::UnknownMemberId);

    // It joins but does not sync.
    let (mut world, old, mut new) = mixed(&[]);
    let joined = world.join(9, old.request()).expect();
    for _ in 0..13 {
        world.pass(5_000);
        new.beat(&mut world);
        world.heartbeat(&old.id, joined.generation_id);
    }
    assert_eq!(world.heartbeat(&old.id, joined.generation_id), ErrorCode::UnknownMemberId);

    // It joins and syncs in time, and then sends no heartbeat for its own session timeout.
    let (mut world, old, mut new) = mixed(&[]);
    let joined = world.join(9, old.request()).expect();
    assert_eq!(world.sync(sync(&old.id, joined.generation_id, &[])).expect().error_code, 0);
    for _ in 0..14 {
        world.pass(5_000);
        assert_eq!(new.beat(&mut world).error_code, 0);
        assert_eq!(world.heartbeat(&old.id, joined.generation_id), ErrorCode::None);
    }
    world.fail_over();
    world.pass(9_000);
    assert_eq!(world.heartbeat(&old.id, joined.generation_id), ErrorCode::None);
    world.pass(10_000);
    assert_eq!(world.heartbeat(&old.id, joined.generation_id), ErrorCode::UnknownMemberId);
    assert_eq!(world.kind(), "consumer", "the other member is there");
}

#[test]
fn the_last_member_of_the_consumer_protocol_leaves_the_group_to_the_others() {
    // The member leaves, is removed, or its session expires. Another coordinator may take over
    // before the others know.
    for (how, fails_over) in [(0, false), (1, false), (2, false), (0, true), (1, true), (2, true)] {
        let (mut world, mut old, mut new) = mixed(&[]);
        match how {
            0 => {
                new.epoch = -1;
                assert_eq!(new.beat(&mut world).error_code, 0);
            }
            1 => assert_eq!(world.leave("new", None).members[0].error_code, 0),
            _ => {
                for _ in 0..10 {
                    world.pass(5_000);
                    world.heartbeat(&old.id, old.generation);
                }
            }
        }
        assert_eq!(world.kind(), "classic");
        if fails_over {
            world.fail_over();
        }
        settle(&mut world, &mut [&mut old]);
        assert_eq!((old.owned.len(), old.lost, world.state().as_str()), (5, 0, "Stable"));
        world.fail_over();
        assert_eq!(
            (world.kind().as_str(), world.heartbeat(&old.id, old.generation)),
            ("classic", ErrorCode::None)
        );
    }
    // If the settings forbid the downgrade, the group stays one of the consumer protocol.
    for configs in [("group.consumer.migration.policy", "upgrade"), ("group.max.size", "1")] {
        let (mut world, mut old, mut new) = mixed(&[configs]);
        let mut another = Classic::new(&["a", "b"], true);
        settle(&mut world, &mut [&mut old, &mut another]);
        new.beat(&mut world);
        new.epoch = -1;
        assert_eq!(new.beat(&mut world).error_code, 0);
        settle(&mut world, &mut [&mut old, &mut another]);
        assert_eq!((world.kind().as_str(), old.owned.len() + another.owned.len()), ("consumer", 5));
    }
}

#[test]
fn a_static_member_goes_on_in_the_other_protocol() {
    let mut world = World::new(&[DELAY]);
    let named = |name| {
        let mut member = Classic::new(&["a", "b"], true);
        member.instance = Some(name);
        member
    };
    let (mut one, mut two) = (named("i-1"), named("i-2"));
    settle(&mut world, &mut [&mut one, &mut two]);
    // Restarted with the other protocol; it need not have left.
    let mut new = Consumer::new("new", &["a", "b"]);
    new.request.instance_id = Some("i-2".to_owned());
    assert_eq!(
        (new.beat(&mut world).error_code, new.count()),
        (0, two.owned.len()),
        "it has what it had"
    );
    assert_eq!(beat(&mut world, &two.id, Some("i-2"), two.generation), ErrorCode::FencedInstanceId);
    assert_eq!(
        beat(&mut world, &one.id, Some("i-1"), one.generation),
        ErrorCode::None,
        "nobody else is disturbed"
    );
    let impostor = Consumer::new("other", &["a", "b"]);
    let mut request = impostor.request();
    request.instance_id = Some("i-2".to_owned());
    assert_eq!(
        ErrorCode::from_code(world.consumer(request).error_code),
        ErrorCode::UnreleasedInstanceId
    );
    world.fail_over();
    // And back: the group is a classic one again, with the same assignment.
    let mut back = named("i-2");
    back.turn(&mut world);
    assert_eq!(world.kind(), "classic");
    assert_eq!(ErrorCode::from_code(new.beat(&mut world).error_code), ErrorCode::GroupIdNotFound);
    settle(&mut world, &mut [&mut one, &mut back]);
    assert_eq!(
        (one.owned.len() + back.owned.len(), back.owned.clone(), one.lost, back.lost),
        (5, two.owned, 0, 0)
    );
    world.fail_over();
    settle(&mut world, &mut [&mut one, &mut back]);
    assert_eq!((world.state().as_str(), one.lost, back.lost), ("Stable", 0, 0));

    // Another subscription causes a rebalance.
    let mut new = Consumer::new("new", &["a", "b"]);
    new.request.instance_id = Some("i-2".to_owned());
    assert_eq!(new.beat(&mut world).error_code, 0);
    let mut other = Classic::new(&["a"], true);
    other.instance = Some("i-2");
    other.turn(&mut world);
    assert_eq!((world.kind().as_str(), world.state().as_str()), ("classic", "PreparingRebalance"));
    settle(&mut world, &mut [&mut one, &mut other]);
    assert_eq!(one.owned.len() + other.owned.len(), 5);
}

#[test]
fn members_of_the_classic_protocol_commit_in_their_generation() {
    let (mut world, old, new) = mixed(&[]);
    let mut committed = |member: &str, generation, version, transactional: bool| {
        let request = commit_request(member, generation, &[("a", 0, 1)]);
        let producer = (ProducerId(7), ProducerEpoch(0));
        let response = match transactional {
            true => world.ask(|to| Request::CommitInTransaction { request, producer, to }),
            false => world.ask(|to| Request::Commit { request, version, to }),
        };
        ErrorCode::from_code(response.expect().topics[0].partitions[0].error_code)
    };
    for (member, generation, version, error) in [
        (old.id.as_str(), old.generation, 8, ErrorCode::None),
        (&old.id, old.generation, 9, ErrorCode::None),
        (&old.id, old.generation - 1, 9, ErrorCode::IllegalGeneration),
        ("new", new.epoch, 8, ErrorCode::UnsupportedVersion),
        ("new", new.epoch, 9, ErrorCode::None),
        ("new", new.epoch - 1, 9, ErrorCode::StaleMemberEpoch),
        ("nobody", new.epoch, 9, ErrorCode::UnknownMemberId),
        ("", -1, 9, ErrorCode::UnknownMemberId),
    ] {
        assert_eq!(
            committed(member, generation, version, false),
            error,
            "{member} {generation} {version}"
        );
    }
    for (member, generation, error) in [
        (old.id.as_str(), old.generation, ErrorCode::None),
        (&old.id, old.generation + 1, ErrorCode::IllegalGeneration),
        ("new", new.epoch, ErrorCode::None),
        ("new", new.epoch + 1, ErrorCode::IllegalGeneration),
        ("", -1, ErrorCode::None),
    ] {
        assert_eq!(
            committed(member, generation, 5, true),
            error,
            "{member} {generation} in a transaction"
        );
    }
    for (member, epoch, error) in [
        (Some(old.id.clone()), old.generation, ErrorCode::None),
        (Some(old.id.clone()), old.generation + 1, ErrorCode::IllegalGeneration),
        (Some("new".to_owned()), new.epoch + 1, ErrorCode::StaleMemberEpoch),
        (None, -1, ErrorCode::None),
    ] {
        let request = OffsetFetchRequestGroup {
            group_id: "g".to_owned(),
            member_id: member,
            member_epoch: epoch,
            ..Default::default()
        };
        let response: Asked<_> =
            world.ask(|to| Request::Fetch { request, require_stable: false, to });
        assert_eq!(ErrorCode::from_code(response.expect().error_code), error);
    }
}

#[test]
fn a_mixed_group_is_described_as_one_of_the_consumer_protocol() {
    let (mut world, old, new) = mixed(&[]);
    let described = world.ask(|to| Request::DescribeConsumers { group: "g".to_owned(), to });
    let described = described.expect();
    let types: Vec<_> = described
        .members
        .iter()
        .map(|member| (member.member_id.as_str(), member.member_type))
        .collect();
    let mut expected = [(old.id.as_str(), 0), (new.id, 1)];
    expected.sort_unstable();
    assert_eq!((described.error_code, types), (0, expected.to_vec()));
    let classic = world.ask(|to| Request::Describe { group: "g".to_owned(), version: 6, to });
    assert_eq!(ErrorCode::from_code(classic.expect().error_code), ErrorCode::GroupIdNotFound);
}
