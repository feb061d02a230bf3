//! Valid requests of the group APIs, for the test of every API in every version; and what a group
//! coordinator keeps over a crash.

use bytes::Bytes;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use weir_protocol::messages::leave_group_request::MemberIdentity;
use weir_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use weir_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use weir_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use weir_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use weir_protocol::messages::{
    DeleteGroupsRequest, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, SyncGroupRequest, TxnOffsetCommitRequest,
};

use crate::apis::{ID, NAME};
use crate::support::{Client, Cluster, batch, soon, topic};

/// The name of the coordinators' topic in a test's controller.
pub(crate) const COORDINATORS: &str = "__consumer_offsets";

pub(crate) fn find(version: i16, group: &str) -> FindCoordinatorRequest {
    match version {
        ..4 => FindCoordinatorRequest { key: group.to_owned(), ..Default::default() },
        _ => FindCoordinatorRequest {
            coordinator_keys: vec![group.to_owned()],
            ..Default::default()
        },
    }
}

pub(crate) fn commit(version: i16, group: &str, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition {
        committed_offset: offset,
        committed_metadata: Some("m".to_owned()),
        ..Default::default()
    };
    let topic = match version {
        10.. => OffsetCommitRequestTopic {
            topic_id: ID,
            partitions: vec![partition],
            ..Default::default()
        },
        _ => OffsetCommitRequestTopic {
            name: NAME.to_owned(),
            partitions: vec![partition],
            ..Default::default()
        },
    };
    OffsetCommitRequest { group_id: group.to_owned(), topics: vec![topic], ..Default::default() }
}

pub(crate) fn fetch(version: i16, group: &str) -> OffsetFetchRequest {
    match version {
        ..8 => OffsetFetchRequest {
            group_id: group.to_owned(),
            topics: Some(vec![OffsetFetchRequestTopic {
                name: NAME.to_owned(),
                partition_indexes: vec![0],
            }]),
            ..Default::default()
        },
        _ => OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: group.to_owned(),
                topics: Some(vec![OffsetFetchRequestTopics {
                    name: if version < 10 { NAME.to_owned() } else { String::new() },
                    topic_id: if version < 10 { Default::default() } else { ID },
                    partition_indexes: vec![0],
                }]),
                ..Default::default()
            }],
            ..Default::default()
        },
    }
}

pub(crate) fn delete_offsets(group: &str) -> OffsetDeleteRequest {
    OffsetDeleteRequest {
        group_id: group.to_owned(),
        topics: vec![OffsetDeleteRequestTopic {
            name: NAME.to_owned(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    }
}

pub(crate) fn join(group: &str, member: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".to_owned(),
            metadata: Bytes::from_static(b"abc"),
        }],
        ..Default::default()
    }
}

/// Requests that name the protocol type, from some version on.
pub(crate) trait NamesProtocol {
    fn name(&mut self, _: i16) {}
}

impl NamesProtocol for SyncGroupRequest {
    fn name(&mut self, version: i16) {
        self.protocol_type = (version >= 5).then(|| "consumer".to_owned());
        self.protocol_name = (version >= 5).then(|| "range".to_owned());
    }
}

impl NamesProtocol for HeartbeatRequest {}

impl NamesProtocol for LeaveGroupRequest {}

pub(crate) fn name_protocol(request: &mut impl NamesProtocol, version: i16) {
    request.name(version);
}

/// Retries until the coordinator is available.
pub(crate) async fn found(client: &mut Client, group: &str) {
    soon("a coordinator", async {
        loop {
            let response = client.call(9, &fetch(9, group)).await;
            match ErrorCode::from_code(response.groups[0].error_code) {
                ErrorCode::None => return,
                ErrorCode::CoordinatorLoadInProgress | ErrorCode::NotCoordinator => {
                    tokio::task::yield_now().await
                }
                error => panic!("{error}"),
            }
        }
    })
    .await;
}

async fn joined(client: &mut Client, version: i16, group: &str) -> JoinGroupResponse {
    let answer = client.call(version, &join(group, "")).await;
    if ErrorCode::from_code(answer.error_code) != ErrorCode::MemberIdRequired {
        return answer;
    }
    assert!(version >= 4, "a member id is asked for from version 4 on");
    client.call(version, &join(group, &answer.member_id)).await
}

/// In each version a member joins, gets its own assignment, heartbeats, and leaves.
#[tokio::test]
async fn a_classic_member_lives_through_every_version() {
    let mut cluster =
        Cluster::start(vec![topic(1, NAME, 2, &[]), topic(2, COORDINATORS, 3, &[])]).await;
    cluster.controller.configure("group.initial.rebalance.delay.ms", "0");
    let mut client = cluster.client().await;
    found(&mut client, "g").await;
    for version in 0..=9 {
        let group = format!("g-{version}");
        let answer = joined(&mut client, version, &group).await;
        assert_eq!((answer.error_code, answer.members.len()), (0, 1), "{version}: {answer:?}");
        let member = answer.member_id;
        let mut sync = SyncGroupRequest {
            group_id: group.clone(),
            generation_id: answer.generation_id,
            member_id: member.clone(),
            assignments: vec![
                weir_protocol::messages::sync_group_request::SyncGroupRequestAssignment {
                    member_id: member.clone(),
                    assignment: Bytes::from_static(b"mine"),
                },
            ],
            ..Default::default()
        };
        sync.name(version);
        let synced = client.call(version.min(5), &sync).await;
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"mine"[..]), "{version}");
        let heartbeat = HeartbeatRequest {
            group_id: group.clone(),
            generation_id: answer.generation_id,
            member_id: member.clone(),
            ..Default::default()
        };
        assert_eq!(client.call(version.min(4), &heartbeat).await.error_code, 0, "{version}");
        let leave = match version {
            ..3 => LeaveGroupRequest {
                group_id: group.clone(),
                member_id: member.clone(),
                ..Default::default()
            },
            _ => LeaveGroupRequest {
                group_id: group.clone(),
                members: vec![MemberIdentity { member_id: member.clone(), ..Default::default() }],
                ..Default::default()
            },
        };
        assert_eq!(client.call(version.min(5), &leave).await.error_code, 0, "{version}");
        let gone = client.call(version.min(4), &heartbeat).await;
        assert_eq!(ErrorCode::from_code(gone.error_code), ErrorCode::UnknownMemberId, "{version}");
        // Whether the group exists or not, versions for one member report the error in the
        // response, and versions for several report it per member.
        for group in [group.clone(), format!("never-{version}")] {
            let left = client
                .call(version.min(5), &LeaveGroupRequest { group_id: group, ..leave.clone() })
                .await;
            let of_members: Vec<i16> =
                left.members.iter().map(|member| member.error_code).collect();
            let unknown = ErrorCode::UnknownMemberId.code();
            let expected = if version < 3 { (unknown, vec![]) } else { (0, vec![unknown]) };
            assert_eq!((left.error_code, of_members), expected, "{version}");
        }
    }
    assert!(cluster.broker.stop().await.success());
    assert!(!cluster.broker.log().contains("panic"), "{}", cluster.broker.log());
}

/// The coordinator's records are there after a crash, and no client can write to its topic.
#[tokio::test]
async fn offsets_survive_a_crash_and_only_coordinators_write_them() {
    let mut cluster =
        Cluster::start(vec![topic(1, NAME, 2, &[]), topic(2, COORDINATORS, 3, &[])]).await;
    let mut client = cluster.client().await;
    found(&mut client, "g").await;
    assert_eq!(client.call(9, &commit(9, "g", 7)).await.topics[0].partitions[0].error_code, 0);
    for partition in 0..3 {
        let refused = client.produce(COORDINATORS, partition, -1, batch(&["forged"])).await;
        assert_eq!(ErrorCode::from_code(refused.error_code), ErrorCode::InvalidTopicException);
    }
    cluster.broker.kill().await;
    cluster.restart().await;
    let mut client = cluster.client().await;
    found(&mut client, "g").await;
    let fetched = client.call(9, &fetch(9, "g")).await;
    assert_eq!(fetched.groups[0].topics[0].partitions[0].committed_offset, 7);
}

/// The group with the empty name has no members. But clients may have committed offsets for it, and
/// DeleteGroups can delete those. A request that names a group twice gets one result
/// (`GroupCoordinatorService.deleteGroups`, `KafkaApis.handleDeleteGroupsRequest`).
#[tokio::test]
async fn a_group_without_a_name_can_be_deleted_and_is_so_once() {
    let cluster =
        Cluster::start(vec![topic(1, NAME, 2, &[]), topic(2, COORDINATORS, 1, &[])]).await;
    let mut client = cluster.client().await;
    found(&mut client, "").await;
    assert_eq!(client.call(9, &commit(9, "", 7)).await.topics[0].partitions[0].error_code, 0);
    let request = DeleteGroupsRequest { groups_names: vec![String::new(); 2] };
    for error in [ErrorCode::None, ErrorCode::GroupIdNotFound] {
        let deleted = client.call(2, &request).await;
        assert_eq!(deleted.results.len(), 1, "{deleted:?}");
        assert_eq!(ErrorCode::from_code(deleted.results[0].error_code), error);
    }
}

/// The error code of each partition of the only topic.
macro_rules! codes {
    ($response:expr) => {{
        let topics = $response.topics;
        assert_eq!(topics.len(), 1, "{topics:?}");
        let mut codes: Vec<_> =
            topics[0].partitions.iter().map(|it| (it.partition_index, it.error_code)).collect();
        codes.sort_unstable();
        codes
    }};
}

/// Offsets are committed and deleted only for existing partitions. Other partitions get errors of
/// their own, and the answer names the topic once (`KafkaApis.handleOffsetCommitRequest` and its
/// siblings).
#[tokio::test]
async fn a_partition_that_is_not_there_has_no_offsets() {
    let cluster =
        Cluster::start(vec![topic(1, NAME, 2, &[]), topic(2, COORDINATORS, 1, &[])]).await;
    let mut client = cluster.client().await;
    found(&mut client, "g").await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let expected = [(-1, unknown), (0, 0), (1, 0), (2, unknown), (i32::MAX, unknown)];
    let indexes = expected.map(|(index, _)| index);
    for version in [2, 9, 10] {
        let mut request = commit(version, "g", 7);
        let first = request.topics[0].partitions[0].clone();
        request.topics[0].partitions = indexes
            .map(|partition_index| OffsetCommitRequestPartition {
                partition_index,
                ..first.clone()
            })
            .into();
        assert_eq!(codes!(client.call(version, &request).await), expected, "version {version}");
    }
    let mut request = delete_offsets("g");
    request.topics[0].partitions =
        indexes.map(|partition_index| OffsetDeleteRequestPartition { partition_index }).into();
    assert_eq!(codes!(client.call(0, &request).await), expected);
    // The same holds in a transaction. The broker does not verify the transaction when no partition
    // is left to commit.
    let request = TxnOffsetCommitRequest {
        transactional_id: "t".to_owned(),
        group_id: "g".to_owned(),
        topics: vec![TxnOffsetCommitRequestTopic {
            name: NAME.to_owned(),
            partitions: [-1, 2]
                .map(|partition_index| TxnOffsetCommitRequestPartition {
                    partition_index,
                    ..Default::default()
                })
                .into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(codes!(client.call(3, &request).await), [(-1, unknown), (2, unknown)]);
}

/// Committed metadata can be a thousand times larger than the four bytes that request it.
#[tokio::test]
async fn a_partition_is_answered_once_however_often_it_is_named() {
    let cluster =
        Cluster::start(vec![topic(1, NAME, 2, &[]), topic(2, COORDINATORS, 1, &[])]).await;
    let mut client = cluster.client().await;
    found(&mut client, "g").await;
    assert_eq!(client.call(10, &commit(10, "g", 7)).await.topics[0].partitions[0].error_code, 0);
    for version in [7, 9, 10] {
        let mut request = fetch(version, "g");
        for topic in request.topics.iter_mut().flatten() {
            topic.partition_indexes = vec![0; 1_000];
        }
        for topic in request.groups.iter_mut().flat_map(|group| group.topics.iter_mut().flatten()) {
            topic.partition_indexes = vec![0; 1_000];
        }
        let response = client.call(version, &request).await;
        let one = response
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .map(|partition| partition.committed_offset);
        let many = response
            .groups
            .iter()
            .flat_map(|group| &group.topics)
            .flat_map(|topic| &topic.partitions);
        let offsets: Vec<i64> =
            one.chain(many.map(|partition| partition.committed_offset)).collect();
        assert_eq!(offsets, [7], "version {version}");
    }
}

/// A new topic under the same name has none of the old topic's offsets, by id or by name, even if
/// no broker saw the deletion (`OffsetMetadataManager.isMismatchedTopicId`, `onTopicsDeleted`).
#[tokio::test]
async fn a_topic_that_is_made_anew_has_no_offsets() {
    let cluster =
        Cluster::start(vec![topic(1, NAME, 2, &[]), topic(2, COORDINATORS, 1, &[])]).await;
    let mut client = cluster.client().await;
    found(&mut client, "g").await;
    assert_eq!(client.call(10, &commit(10, "g", 7)).await.topics[0].partitions[0].error_code, 0);
    cluster.controller.remake(topic(3, NAME, 2, &[]));
    let mut request = fetch(10, "g");
    let by_id = &mut request.groups[0].topics.as_mut().unwrap()[0];
    by_id.topic_id = uuid::Uuid::from_bytes([3; 16]);
    let fetched = soon("the topic is known", async {
        loop {
            let response = client.call(10, &request).await;
            let partition = response.groups[0].topics[0].partitions[0].clone();
            if ErrorCode::from_code(partition.error_code) != ErrorCode::UnknownTopicId {
                return partition;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!((fetched.error_code, fetched.committed_offset), (0, -1));
    // By name this holds once the coordinator has the new metadata.
    soon("the offset goes", async {
        while client.call(9, &fetch(9, "g")).await.groups[0].topics[0].partitions[0]
            .committed_offset
            != -1
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut request = fetch(10, "g");
    request.groups[0].topics = None;
    assert_eq!(client.call(10, &request).await.groups[0].topics, []);
}

/// The coordinator compares all protocols of all members.
#[tokio::test]
async fn a_member_offers_no_more_protocols_than_any_client_has() {
    let cluster =
        Cluster::start(vec![topic(1, NAME, 1, &[]), topic(2, COORDINATORS, 1, &[])]).await;
    cluster.controller.configure("group.initial.rebalance.delay.ms", "0");
    let mut client = cluster.client().await;
    found(&mut client, "g").await;
    let mut request = join("g", "");
    for (count, error) in [(101, ErrorCode::InconsistentGroupProtocol), (100, ErrorCode::None)] {
        let protocol = |index: usize| JoinGroupRequestProtocol {
            name: format!("p{index}"),
            metadata: Bytes::new(),
        };
        request.protocols = (0..count).map(protocol).collect();
        let answer = client.call(3, &request).await;
        assert_eq!(ErrorCode::from_code(answer.error_code), error);
    }
}
