//! Classic groups that a member of the consumer protocol joins: who waits meanwhile, and what cannot be upgraded.

use std::collections::BTreeSet;

use bytes::Bytes;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use weir_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use weir_protocol::messages::{JoinGroupRequest, SyncGroupRequest};

use super::classic_client::{Classic, assignment, settle, subscription};
use super::consumer::Consumer;
use super::world::{World, join, sync};

const DELAY: (&str, &str) = ("group.initial.rebalance.delay.ms", "100");

#[test]
fn who_waits_when_the_group_is_upgraded_is_told_to_join_again() {
    let mut world = World::new(&[DELAY]);
    let (mut one, mut two) = (Classic::new(&["a"], false), Classic::new(&["a"], false));
    settle(&mut world, &mut [&mut one, &mut two]);
    // One waits for the other one to join.
    let changed = Classic::new(&["a", "b"], false);
    let mut joining = world.join(
        9,
        JoinGroupRequest {
            member_id: one.id.clone(),
            ..changed.request()
        },
    );
    assert!(joining.answer().is_none());
    let mut new = Consumer::new("new", &["a", "b"]);
    assert_eq!(new.beat(&mut world).error_code, 0);
    let answer = joining.expect();
    assert_eq!(
        (ErrorCode::from_code(answer.error_code), answer.member_id),
        (ErrorCode::RebalanceInProgress, one.id.clone())
    );

    // One waits for its assignment.
    let mut world = World::new(&[DELAY]);
    let (mut one, mut two) = (Classic::new(&["a"], false), Classic::new(&["a"], false));
    for _ in 0..2 {
        one.turn(&mut world);
        two.turn(&mut world);
    }
    world.pass(1_000);
    let (mut waiting, mut ids) = (Vec::new(), Vec::new());
    for member in [&mut one, &mut two] {
        let answer = member.take_join().unwrap();
        if answer.leader != answer.member_id {
            waiting.push(world.sync(sync(&answer.member_id, 1, &[])));
        }
        ids.push(answer.member_id);
    }
    assert_eq!((waiting.len(), world.state().as_str()), (1, "CompletingRebalance"));
    assert!(waiting[0].answer().is_none());
    let mut new = Consumer::new("new", &["a", "b"]);
    assert_eq!(
        (new.beat(&mut world).error_code, new.epoch, new.count()),
        (0, 2, 2),
        "what the others do not want"
    );
    assert_eq!(
        ErrorCode::from_code(waiting.remove(0).expect().error_code),
        ErrorCode::RebalanceInProgress
    );
    for id in ids {
        assert_eq!(world.heartbeat(&id, 1), ErrorCode::RebalanceInProgress);
    }
}

/// A stable classic group of one member, by what it says and is told.
fn lone(world: &mut World, protocol_type: &str, metadata: Bytes, assignment: Bytes) -> String {
    let request = JoinGroupRequest {
        protocol_type: protocol_type.to_owned(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".to_owned(),
            metadata,
        }],
        ..join("", &[])
    };
    let mut joining = world.join(3, request);
    world.pass(1_000);
    let id = joining.answer().unwrap().member_id;
    let request = SyncGroupRequest {
        assignments: vec![SyncGroupRequestAssignment {
            member_id: id.clone(),
            assignment,
        }],
        ..sync(&id, 1, &[])
    };
    assert_eq!(world.sync(request).expect().error_code, 0);
    id
}

#[test]
fn a_group_that_cannot_be_upgraded_stays_as_it_is() {
    let good = || subscription(&["a".to_owned()], &BTreeSet::new(), -1);
    let given = |data: Option<Bytes>| assignment(&BTreeSet::from([("a".to_owned(), 0)]), data);
    let none: &[(&str, &str)] = &[];
    let disabled: &[(&str, &str)] = &[("group.consumer.migration.policy", "disabled")];
    let downgrade: &[(&str, &str)] = &[("group.consumer.migration.policy", "downgrade")];
    let small: &[(&str, &str)] = &[("group.consumer.max.size", "1")];
    let table = [
        (
            disabled,
            "consumer",
            good(),
            given(None),
            ErrorCode::GroupIdNotFound,
            "online upgrade is disabled.",
        ),
        (
            downgrade,
            "consumer",
            good(),
            given(None),
            ErrorCode::GroupIdNotFound,
            "online upgrade is disabled.",
        ),
        (
            none,
            "connect",
            good(),
            given(None),
            ErrorCode::GroupIdNotFound,
            "does not use the consumer embedded protocol.",
        ),
        (
            none,
            "consumer",
            Bytes::from_static(b"range"),
            given(None),
            ErrorCode::GroupIdNotFound,
            "protocol is malformed.",
        ),
        (
            none,
            "consumer",
            Bytes::new(),
            given(None),
            ErrorCode::GroupIdNotFound,
            "protocol is malformed.",
        ),
        (
            none,
            "consumer",
            good(),
            Bytes::from_static(b"\0\x01\xff"),
            ErrorCode::GroupIdNotFound,
            "protocol is malformed.",
        ),
        (
            none,
            "consumer",
            good(),
            given(Some(Bytes::from_static(b"x"))),
            ErrorCode::GroupIdNotFound,
            "custom assignor is in use.",
        ),
        (
            small,
            "consumer",
            good(),
            given(None),
            ErrorCode::GroupMaxSizeReached,
            "maximum capacity of members.",
        ),
    ];
    for (configs, protocol_type, metadata, assignment, error, message) in table {
        let mut world = World::new(&[&[DELAY], configs].concat());
        let id = lone(&mut world, protocol_type, metadata, assignment);
        let written = world.log.len();
        let refused = Consumer::new("new", &["a"]).beat(&mut world);
        assert_eq!(ErrorCode::from_code(refused.error_code), error);
        let said = refused.error_message.unwrap();
        assert!(said.contains(message), "{said}");
        assert_eq!(
            (world.heartbeat(&id, 1), world.log.len(), world.kind().as_str()),
            (ErrorCode::None, written, "classic")
        );
    }
    let mut world = World::new(&[DELAY, ("group.consumer.migration.policy", "upgrade")]);
    lone(&mut world, "consumer", good(), given(Some(Bytes::new())));
    assert_eq!(Consumer::new("new", &["a"]).beat(&mut world).error_code, 0, "no data is no loss");
    assert_eq!(world.kind(), "consumer");
}
