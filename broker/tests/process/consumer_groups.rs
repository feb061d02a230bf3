//! Members of the consumer protocol (KIP-848) in a cluster that has finalised it: every version,
//! and rack-aware assignment.

use std::collections::{BTreeMap, BTreeSet};

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::consumer_group_describe_response::DescribedGroup;
use weir_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use weir_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};

use crate::apis::{ID, NAME};
use crate::groups::{COORDINATORS, found};
use crate::support::{Brokers, Client, Cluster, Launch, placed_topic, soon, topic};

/// The feature of the protocol, and the level that turns it on.
pub(crate) const FEATURE: (&str, u32) = ("group.version", 1);
/// The member epochs of a join and of a leave.
const JOINS: i32 = 0;
const LEAVES: i32 = -1;

/// The heartbeat of a member that subscribes to the test topic. From version 1 on the member
/// chooses its own id.
pub(crate) fn heartbeat(group: &str, member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    let joins = epoch == JOINS;
    ConsumerGroupHeartbeatRequest {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        member_epoch: epoch,
        rebalance_timeout_ms: if joins { 60_000 } else { -1 },
        subscribed_topic_names: joins.then(|| vec![NAME.to_owned()]),
        topic_partitions: joins.then(Vec::new),
        ..Default::default()
    }
}

pub(crate) fn describe(group: &str) -> ConsumerGroupDescribeRequest {
    ConsumerGroupDescribeRequest { group_ids: vec![group.to_owned()], ..Default::default() }
}

async fn described(client: &mut Client, version: i16, group: &str) -> DescribedGroup {
    client.call(version, &describe(group)).await.groups.remove(0)
}

/// The partitions of the test topic in a member's assignment, if the response has one.
fn assigned(answer: &ConsumerGroupHeartbeatResponse) -> Option<Vec<i32>> {
    let topics = &answer.assignment.as_ref()?.topic_partitions;
    assert!(topics.iter().all(|topic| topic.topic_id == ID), "{answer:?}");
    Some(topics.iter().flat_map(|topic| topic.partitions.clone()).collect())
}

/// Without the feature, members cannot join and groups cannot be described.
#[tokio::test]
async fn the_protocol_is_refused_before_it_is_finalised() {
    let cluster =
        Cluster::start(vec![topic(1, NAME, 2, &[]), topic(2, COORDINATORS, 1, &[])]).await;
    let mut client = cluster.client().await;
    found(&mut client, "g").await;
    for version in 0..=1 {
        let refused = client.call(version, &heartbeat("g", "m", JOINS)).await;
        assert_eq!(
            ErrorCode::from_code(refused.error_code),
            ErrorCode::UnsupportedVersion,
            "{version}"
        );
        let refused = described(&mut client, version, "g").await;
        assert_eq!(
            ErrorCode::from_code(refused.error_code),
            ErrorCode::UnsupportedVersion,
            "{version}"
        );
    }
    // Level 0 counts as not finalised.
    cluster.controller.finalise(FEATURE.0, 0);
    let refused = client.call(1, &heartbeat("g", "m", JOINS)).await;
    assert_eq!(ErrorCode::from_code(refused.error_code), ErrorCode::UnsupportedVersion);
}

/// In each version a member joins, gets all partitions, acknowledges them, is described, and
/// leaves.
#[tokio::test]
async fn a_member_of_the_consumer_protocol_lives_through_every_version() {
    let mut cluster =
        Cluster::start(vec![topic(1, NAME, 2, &[]), topic(2, COORDINATORS, 3, &[])]).await;
    cluster.controller.finalise(FEATURE.0, FEATURE.1);
    let mut client = cluster.client().await;
    found(&mut client, "g").await;
    is_finalised(&mut client).await;
    for version in 0..=1 {
        let group = format!("g-{version}");
        let name = if version == 0 { "" } else { "a-name-of-its-own" };
        let joined = client.call(version, &heartbeat(&group, name, JOINS)).await;
        assert_eq!((joined.error_code, joined.member_epoch), (0, 2), "{version}: {joined:?}");
        assert_eq!(assigned(&joined), Some(vec![0, 1]), "{version}: {joined:?}");
        assert!(joined.heartbeat_interval_ms > 0, "{version}: {joined:?}");
        let member = joined.member_id.unwrap();
        match version {
            0 => assert!(!member.is_empty(), "the coordinator makes up its id"),
            _ => assert_eq!(member, name),
        }
        let mut has = heartbeat(&group, &member, 2);
        has.topic_partitions = Some(vec![TopicPartitions { topic_id: ID, partitions: vec![0, 1] }]);
        let heard = client.call(version, &has).await;
        assert_eq!((heard.error_code, heard.member_epoch), (0, 2), "{version}: {heard:?}");
        let found = described(&mut client, version, &group).await;
        assert_eq!(
            (
                found.error_code,
                found.group_state.as_str(),
                found.group_epoch,
                found.assignment_epoch
            ),
            (0, "Stable", 2, 2),
            "{version}: {found:?}"
        );
        assert_eq!(
            (found.assignor_name.as_str(), found.members.len()),
            ("uniform", 1),
            "{version}"
        );
        let described_member = &found.members[0];
        assert_eq!(
            (&described_member.member_id, described_member.member_epoch),
            (&member, 2),
            "{version}"
        );
        assert_eq!(described_member.subscribed_topic_names, [NAME], "{version}");
        for assignment in [&described_member.assignment, &described_member.target_assignment] {
            assert_eq!(assignment.topic_partitions[0].topic_name, NAME, "{version}");
            assert_eq!(assignment.topic_partitions[0].partitions, [0, 1], "{version}");
        }
        // The member type exists from version 1 on; 1 means the consumer protocol.
        assert_eq!(described_member.member_type, if version == 0 { -1 } else { 1 }, "{version}");
        let stale = client.call(version, &heartbeat(&group, &member, 7)).await;
        assert_eq!(
            ErrorCode::from_code(stale.error_code),
            ErrorCode::FencedMemberEpoch,
            "{version}"
        );
        let left = client.call(version, &heartbeat(&group, &member, LEAVES)).await;
        assert_eq!((left.error_code, left.member_epoch), (0, LEAVES), "{version}: {left:?}");
        let gone = client.call(version, &heartbeat(&group, &member, 1)).await;
        assert_eq!(ErrorCode::from_code(gone.error_code), ErrorCode::UnknownMemberId, "{version}");
        let found = described(&mut client, version, &group).await;
        assert_eq!(
            (found.error_code, found.group_state.as_str(), found.members.len()),
            (0, "Empty", 0),
            "{version}"
        );
    }
    assert!(cluster.broker.stop().await.success());
    assert!(!cluster.broker.log().contains("panic"), "{}", cluster.broker.log());
}

/// Waits until the broker has the feature in its metadata.
pub(crate) async fn is_finalised(client: &mut Client) {
    soon("the feature", async {
        while described(client, 1, "nobody").await.error_code
            == ErrorCode::UnsupportedVersion.code()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The assignor knows the racks of a partition's replicas: it prefers a member in one of them.
#[tokio::test]
async fn members_get_the_partitions_of_their_racks() {
    let racks = ["north", "east", "south"];
    let in_its_rack = |launch: Launch| Launch {
        rack: racks[usize::try_from(launch.id).unwrap()].to_owned(),
        ..launch
    };
    let brokers =
        Brokers::start_with(3, vec![placed_topic(2, COORDINATORS, 1, &[0], &[])], in_its_rack)
            .await;
    brokers.controller.finalise(FEATURE.0, FEATURE.1);
    let mut client = brokers.client(0).await;
    found(&mut client, "racks").await;
    is_finalised(&mut client).await;
    // All members join before the topic exists, so no member has a partition to keep.
    let mut epochs = BTreeMap::new();
    for (member, rack) in [("a", "north"), ("b", "east"), ("c", "south")] {
        let mut joins = heartbeat("racks", member, JOINS);
        joins.rack_id = Some(rack.to_owned());
        let joined = client.call(1, &joins).await;
        assert_eq!(
            (joined.error_code, assigned(&joined)),
            (0, Some(vec![])),
            "{member}: {joined:?}"
        );
        epochs.insert(member, joined.member_epoch);
    }
    // Without racks the first partition would go to the first member.
    let mut orders = placed_topic(1, NAME, 3, &[0], &[]);
    for (partition, broker) in orders.partitions.iter_mut().zip([1, 2, 0]) {
        (partition.leader, partition.replicas, partition.isr) =
            (broker, vec![broker], vec![broker]);
    }
    brokers.controller.create(orders);
    for (member, partition) in [("a", 2), ("b", 0), ("c", 1)] {
        let told = soon("an assignment", told(&mut client, member, epochs[member])).await;
        assert_eq!(assigned(&told), Some(vec![partition]), "{member}: {told:?}");
    }
    let found = described(&mut client, 1, "racks").await;
    let told: BTreeSet<_> =
        found.members.iter().filter_map(|member| member.rack_id.as_deref()).collect();
    assert_eq!(told, BTreeSet::from(racks), "{found:?}");
}

/// Heartbeats until a response assigns partitions.
async fn told(client: &mut Client, member: &str, mut epoch: i32) -> ConsumerGroupHeartbeatResponse {
    loop {
        let answer = client.call(1, &heartbeat("racks", member, epoch)).await;
        assert_eq!(answer.error_code, 0, "{answer:?}");
        if assigned(&answer).is_some_and(|partitions| !partitions.is_empty()) {
            return answer;
        }
        epoch = answer.member_epoch;
        tokio::task::yield_now().await;
    }
}
