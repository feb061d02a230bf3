//! Offsets: who may commit, what is fetched, what expires, and what is deleted.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use weir_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use weir_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use weir_protocol::messages::{OffsetCommitRequest, OffsetDeleteRequest};

use super::world::{World, join, sync};
use crate::group::Request;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// A commit of these offsets by a member of group `g`.
pub(super) fn commit_request(member: &str, generation: i32, partitions: &[(&str, i32, i64)]) -> OffsetCommitRequest {
    let topic = |(topic, partition, offset): &(&str, i32, i64)| OffsetCommitRequestTopic {
        name: (*topic).to_owned(),
        partitions: vec![OffsetCommitRequestPartition {
            partition_index: *partition,
            committed_offset: *offset,
            committed_leader_epoch: 4,
            committed_metadata: Some(format!("at {offset}")),
        }],
        ..Default::default()
    };
    OffsetCommitRequest {
        group_id: "g".to_owned(),
        generation_id_or_member_epoch: generation,
        member_id: member.to_owned(),
        topics: partitions.iter().map(topic).collect(),
        ..Default::default()
    }
}

fn commit_as(world: &mut World, version: i16, member: &str, generation: i32, partitions: &[(&str, i32, i64)]) -> Vec<ErrorCode> {
    let request = commit_request(member, generation, partitions);
    let response = world.ask(|to| Request::Commit { request, version, to }).expect();
    let codes = response
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|partition| partition.error_code);
    codes.map(ErrorCode::from_code).collect()
}

fn commit(world: &mut World, partitions: &[(&str, i32, i64)]) -> Vec<ErrorCode> {
    commit_as(world, 9, "", -1, partitions)
}

fn committed(world: &mut World) -> Vec<(String, i32, i64)> {
    let request = OffsetFetchRequestGroup {
        group_id: "g".to_owned(),
        topics: None,
        ..Default::default()
    };
    let response = world
        .ask(|to| Request::Fetch {
            request,
            require_stable: true,
            to,
        })
        .expect();
    response
        .topics
        .into_iter()
        .flat_map(|topic| {
            let name = topic.name;
            topic
                .partitions
                .into_iter()
                .map(move |partition| (name.clone(), partition.partition_index, partition.committed_offset))
        })
        .collect()
}

fn delete_offsets(world: &mut World, topic: &str, partition: i32) -> (ErrorCode, ErrorCode) {
    let request = OffsetDeleteRequest {
        group_id: "g".to_owned(),
        topics: vec![OffsetDeleteRequestTopic {
            name: topic.to_owned(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: partition }],
        }],
    };
    let response = world.ask(|to| Request::DeleteOffsets { request, to }).expect();
    let of_partition = response.topics.first().map_or(0, |topic| topic.partitions[0].error_code);
    (ErrorCode::from_code(response.error_code), ErrorCode::from_code(of_partition))
}

fn delete(world: &mut World) -> ErrorCode {
    let group = "g".to_owned();
    world.ask(|to| Request::Delete { group, to }).expect().0
}

/// A member alone in a group, in generation 1.
fn member(world: &mut World) -> String {
    let mut joining = world.join(3, join("", &["range"]));
    world.pass(10_000);
    let id = joining.answer().unwrap().member_id;
    world.sync(sync(&id, 1, &[&id])).expect();
    id
}

fn keep_alive(world: &mut World, member: &str, ms: u64) {
    for _ in 0..ms / 5_000 {
        world.pass(5_000);
        assert_eq!(world.heartbeat(member, 1), ErrorCode::None);
    }
}

#[test]
fn who_is_no_member_commits_only_to_a_group_without_members() {
    let mut world = World::new(&[]);
    assert_eq!(commit_as(&mut world, 9, "x", 3, &[("a", 0, 1)]), [ErrorCode::GroupIdNotFound]);
    assert_eq!(commit_as(&mut world, 8, "x", 3, &[("a", 0, 1)]), [ErrorCode::IllegalGeneration]);
    assert!(committed(&mut world).is_empty() && world.log.is_empty());
    assert_eq!(commit(&mut world, &[("a", 0, 1), ("a", 2, 3), ("b", 1, 5)]), [ErrorCode::None; 3]);
    let all = [("a".to_owned(), 0, 1), ("a".to_owned(), 2, 3), ("b".to_owned(), 1, 5)];
    assert_eq!(committed(&mut world), all);
    world.fail_over();
    assert_eq!(committed(&mut world), all);
    let id = member(&mut world);
    for (id, generation, error) in [
        ("", -1, ErrorCode::UnknownMemberId),
        ("nobody", 1, ErrorCode::UnknownMemberId),
        (id.as_str(), 0, ErrorCode::IllegalGeneration),
        (id.as_str(), 1, ErrorCode::None),
    ] {
        assert_eq!(commit_as(&mut world, 9, id, generation, &[("a", 0, 9)]), [error]);
    }
    // Between JoinGroup and SyncGroup nobody has anything to commit.
    let mut joining = world.join(3, join(&id, &["range", "x"]));
    assert_eq!(joining.answer().unwrap().generation_id, 2);
    assert_eq!(commit_as(&mut world, 9, &id, 2, &[("a", 0, 9)]), [ErrorCode::RebalanceInProgress]);
}

#[test]
fn metadata_has_a_limit() {
    let mut world = World::new(&[("offset.metadata.max.bytes", "4")]);
    assert_eq!(
        commit(&mut world, &[("a", 0, 1), ("a", 1, 12)]),
        [ErrorCode::None, ErrorCode::OffsetMetadataTooLarge]
    );
    assert_eq!(committed(&mut world), [("a".to_owned(), 0, 1)]);
}

#[test]
fn offsets_expire_when_nobody_needs_them() {
    let mut world = World::new(&[("offsets.retention.minutes", "1440")]);
    commit(&mut world, &[("a", 0, 1)]);
    world.pass(DAY_MS - 700_000);
    commit(&mut world, &[("a", 1, 1)]);
    world.pass(1_400_000);
    assert_eq!(committed(&mut world), [("a".to_owned(), 1, 1)], "a day after its own commit");
    world.pass(DAY_MS);
    assert_eq!((committed(&mut world), world.state()), (vec![], "none".to_owned()));
    world.fail_over();
    assert_eq!(world.state(), "none", "and it is written that they are gone");

    // Those of a group stay as long as it has members, and then as long again.
    let mut world = World::new(&[("offsets.retention.minutes", "60")]);
    let id = member(&mut world);
    commit_as(&mut world, 9, &id, 1, &[("a", 0, 1)]);
    keep_alive(&mut world, &id, 2 * 3_600_000);
    assert_eq!(committed(&mut world).len(), 1);
    world.leave(&id, None);
    world.pass(3_000_000);
    assert_eq!(committed(&mut world).len(), 1);
    world.fail_over();
    world.pass(2_000_000);
    assert_eq!((committed(&mut world), world.state()), (vec![], "none".to_owned()));
}

#[test]
fn a_deleted_topic_takes_its_offsets_along() {
    let mut world = World::new(&[]);
    commit(&mut world, &[("a", 0, 1), ("b", 1, 2)]);
    world.topics(&[("b", 2)]);
    assert_eq!(committed(&mut world), [("b".to_owned(), 1, 2)]);
    world.fail_over();
    assert_eq!(committed(&mut world), [("b".to_owned(), 1, 2)]);
}

#[test]
fn offsets_and_groups_are_deleted_where_nobody_uses_them() {
    let mut world = World::new(&[]);
    assert_eq!(delete(&mut world), ErrorCode::GroupIdNotFound);
    assert_eq!(delete_offsets(&mut world, "a", 0), (ErrorCode::GroupIdNotFound, ErrorCode::None));
    commit(&mut world, &[("a", 0, 1), ("b", 1, 2)]);
    assert_eq!(delete_offsets(&mut world, "a", 0), (ErrorCode::None, ErrorCode::None));
    assert_eq!(delete_offsets(&mut world, "a", 7), (ErrorCode::None, ErrorCode::None));
    assert_eq!(committed(&mut world), [("b".to_owned(), 1, 2)]);
    let id = member(&mut world);
    assert_eq!(delete(&mut world), ErrorCode::NonEmptyGroup);
    // Its subscription cannot be read: it may be subscribed to anything.
    assert_eq!(delete_offsets(&mut world, "b", 1), (ErrorCode::None, ErrorCode::GroupSubscribedToTopic));
    world.leave(&id, None);
    assert_eq!(delete(&mut world), ErrorCode::None);
    assert_eq!((committed(&mut world), world.state()), (vec![], "none".to_owned()));
    world.fail_over();
    assert_eq!((committed(&mut world), world.state()), (vec![], "none".to_owned()));
}
