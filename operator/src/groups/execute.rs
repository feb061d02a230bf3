//! The actions on a group, through requests of the public protocol as any administrator uses them.

use std::collections::BTreeMap;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::leave_group_request::MemberIdentity;
use weir_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use weir_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use weir_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use weir_protocol::messages::{
    ConsumerGroupHeartbeatRequest, DeleteGroupsRequest, LeaveGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
};
use weir_protocol::reset_marks;

use super::marks::Mark;
use super::observed::{Member, Partition};
use crate::kafka::{Client, KafkaError, check};

/// The most groups in one request.
const GROUPS_AT_ONCE: usize = 500;

/// The member epoch of a leaving member of the consumer protocol (KIP-848).
const LEAVES: i32 = -1;

/// Removes members. For the classic protocol it sends LeaveGroup, as Kafka's
/// `removeMembersFromConsumerGroup` does. In Kafka, LeaveGroup does not apply to members of the
/// consumer protocol; for these it sends the heartbeat with which a member leaves. A running
/// consumer learns of it at its next heartbeat and joins again.
///
/// # Errors
/// When a member remains.
pub async fn evict(client: &Client, group: &str, members: &[Member]) -> Result<(), KafkaError> {
    let coordinator = client.coordinator(group).await?;
    let classic = members.iter().filter(|member| !member.consumer_protocol);
    let identities: Vec<MemberIdentity> = classic
        .map(|member| MemberIdentity {
            member_id: member.id.clone(),
            group_instance_id: member.instance.clone(),
            reason: Some("evicted by the reset of a ConsumerGroup".to_owned()),
        })
        .collect();
    if !identities.is_empty() {
        let request = LeaveGroupRequest {
            group_id: group.to_owned(),
            members: identities,
            ..Default::default()
        };
        let response = client.ask(coordinator, 5, &request).await?;
        check("remove members", response.error_code)?;
        for member in response.members {
            left(member.error_code)?;
        }
    }
    for member in members.iter().filter(|member| member.consumer_protocol) {
        let request = ConsumerGroupHeartbeatRequest {
            group_id: group.to_owned(),
            member_id: member.id.clone(),
            member_epoch: LEAVES,
            instance_id: member.instance.clone(),
            ..Default::default()
        };
        left(client.ask(coordinator, 1, &request).await?.error_code)?;
    }
    Ok(())
}

/// A member that has left already counts as removed.
fn left(code: i16) -> Result<(), KafkaError> {
    match ErrorCode::from_code(code) {
        ErrorCode::UnknownMemberId | ErrorCode::GroupIdNotFound => Ok(()),
        _ => check("remove a member", code),
    }
}

fn grouped<T>(all: impl Iterator<Item = (Partition, T)>) -> BTreeMap<String, Vec<(i32, T)>> {
    let mut topics: BTreeMap<String, Vec<(i32, T)>> = BTreeMap::new();
    for ((topic, partition), value) in all {
        topics.entry(topic).or_default().push((partition, value));
    }
    topics
}

/// Commits offsets and a mark in one request, which the coordinator writes as a whole or not at
/// all. It refuses the request if the group has members.
///
/// # Errors
/// When it was not written.
pub async fn commit(
    client: &Client,
    group: &str,
    offsets: BTreeMap<Partition, i64>,
    mark: Mark,
) -> Result<(), KafkaError> {
    let coordinator = client.coordinator(group).await?;
    let offset = |(partition_index, committed_offset)| OffsetCommitRequestPartition {
        partition_index,
        committed_offset,
        ..Default::default()
    };
    let mut topics: Vec<OffsetCommitRequestTopic> = grouped(offsets.into_iter())
        .into_iter()
        .map(|(name, partitions)| OffsetCommitRequestTopic {
            name,
            partitions: partitions.into_iter().map(offset).collect(),
            ..Default::default()
        })
        .collect();
    topics.push(OffsetCommitRequestTopic {
        name: reset_marks::TOPIC.to_owned(),
        partitions: vec![OffsetCommitRequestPartition {
            committed_leader_epoch: mark.number,
            ..offset((mark.slot(), mark.mark))
        }],
        ..Default::default()
    });
    let request = OffsetCommitRequest {
        group_id: group.to_owned(),
        member_id: reset_marks::MEMBER.to_owned(),
        generation_id_or_member_epoch: 0,
        topics,
        ..Default::default()
    };
    let response = client.send_once(coordinator, 8, &request).await?;
    let mut partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
    partitions.try_for_each(|partition| check("commit the offsets", partition.error_code))
}

/// Deletes committed offsets.
///
/// # Errors
/// When an offset remains.
pub async fn forget(
    client: &Client,
    group: &str,
    partitions: Vec<Partition>,
) -> Result<(), KafkaError> {
    let coordinator = client.coordinator(group).await?;
    let topics = grouped(partitions.into_iter().map(|partition| (partition, ()))).into_iter();
    let request = OffsetDeleteRequest {
        group_id: group.to_owned(),
        topics: topics
            .map(|(name, partitions)| OffsetDeleteRequestTopic {
                name,
                partitions: partitions
                    .into_iter()
                    .map(|(partition_index, ())| OffsetDeleteRequestPartition { partition_index })
                    .collect(),
            })
            .collect(),
    };
    let response = client.ask(coordinator, 0, &request).await?;
    if ErrorCode::from_code(response.error_code) == ErrorCode::GroupIdNotFound {
        return Ok(());
    }
    check("delete offsets", response.error_code)?;
    let mut partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
    partitions.try_for_each(|partition| check("delete offsets", partition.error_code))
}

/// Deletes a group with its offsets. A group that does not exist counts as deleted.
///
/// # Errors
/// When it remains, for instance because it has members.
pub async fn delete(client: &Client, group: &str) -> Result<(), KafkaError> {
    let coordinator = client.coordinator(group).await?;
    let request = DeleteGroupsRequest { groups_names: vec![group.to_owned()] };
    let response = client.ask(coordinator, 2, &request).await?;
    match response.results.first().map(|result| ErrorCode::from_code(result.error_code)) {
        Some(ErrorCode::None | ErrorCode::GroupIdNotFound) => Ok(()),
        Some(code) => Err(KafkaError::Code("delete the group", code)),
        None => Err(KafkaError::Code("delete the group", ErrorCode::UnknownServerError)),
    }
}

/// Records in the group itself that it is to be deleted once it has no members, or that it is not.
///
/// # Errors
/// When it was not written, for instance because the coordinator's version has no such mark.
pub async fn mark_deletion(client: &Client, group: &str, delete: bool) -> Result<(), KafkaError> {
    let coordinator = client.coordinator(group).await?;
    let request = OffsetCommitRequest {
        group_id: group.to_owned(),
        member_id: reset_marks::MEMBER.to_owned(),
        generation_id_or_member_epoch: 0,
        topics: vec![OffsetCommitRequestTopic {
            name: reset_marks::TOPIC.to_owned(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: reset_marks::DELETION,
                committed_offset: if delete { reset_marks::DELETE } else { reset_marks::NO_MARK },
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = client.ask(coordinator, 8, &request).await?;
    let mut partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
    partitions.try_for_each(|partition| check("mark the group for deletion", partition.error_code))
}

/// The groups with a mark for deletion.
///
/// # Errors
/// When a broker does not answer: the list would be incomplete.
pub async fn marked_for_deletion(client: &Client) -> Result<Vec<String>, KafkaError> {
    let mut marked = Vec::new();
    for broker in client.brokers() {
        for some in list_on(client, broker).await?.chunks(GROUPS_AT_ONCE) {
            let question = |group: &String| OffsetFetchRequestGroup {
                group_id: group.clone(),
                topics: Some(vec![OffsetFetchRequestTopics {
                    name: reset_marks::TOPIC.to_owned(),
                    partition_indexes: vec![reset_marks::DELETION],
                    ..Default::default()
                }]),
                ..Default::default()
            };
            let request = OffsetFetchRequest {
                groups: some.iter().map(question).collect(),
                ..Default::default()
            };
            for group in client.ask(broker, 8, &request).await?.groups {
                check("look for groups that are to be deleted", group.error_code)?;
                let mut partitions = group.topics.iter().flat_map(|topic| &topic.partitions);
                if partitions.any(|partition| partition.committed_offset == reset_marks::DELETE) {
                    marked.push(group.group_id);
                }
            }
        }
    }
    Ok(marked)
}

/// The ids of all consumer groups, in order.
///
/// # Errors
/// When a broker does not answer: the list would be incomplete.
pub async fn list(client: &Client) -> Result<Vec<String>, KafkaError> {
    let mut all = Vec::new();
    for broker in client.brokers() {
        all.extend(list_on(client, broker).await?);
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// The consumer groups that a broker coordinates.
async fn list_on(client: &Client, broker: i32) -> Result<Vec<String>, KafkaError> {
    let response = client.ask(broker, 5, &ListGroupsRequest::default()).await?;
    check("list groups", response.error_code)?;
    let consumers = response
        .groups
        .into_iter()
        .filter(|group| matches!(group.protocol_type.as_str(), "consumer" | ""));
    Ok(consumers.map(|group| group.group_id).collect())
}
