//! Written records as lines of a scenario.

use std::collections::BTreeMap;

use uuid::Uuid;
use weir_protocol::messages::group_metadata_value::MemberMetadata;
use weir_protocol::messages::{
    ConsumerGroupCurrentMemberAssignmentValue, ConsumerGroupMemberMetadataValue,
    GroupMetadataValue, OffsetCommitValue,
};

use super::names::Names;
use super::say::{assignment, member, metadata, offset};
use super::topics::say_ids;
use crate::coordinator::Logged;
use crate::coordinator::harness::Entry;
use crate::group::record::{Change, read};

/// The line of a record; `None` for a marker, which the transaction coordinator writes.
pub(super) fn say(entry: &Entry, names: &mut Names) -> Option<String> {
    let Entry::Record(record, transaction) = entry else { return None };
    let logged =
        Logged { key: &record.key, value: record.value.as_deref(), transaction: *transaction };
    let (key, value) = match read(&logged).unwrap() {
        Change::Offset(key, value) => {
            let partition = format!("{}-{}", key.topic, key.partition);
            let value = value.map(|value| offset_value(&partition, &value));
            (
                format!("offset {}", key.group),
                value.or_else(|| Some(format!("{partition} tombstone"))),
            )
        }
        Change::Group(key, value) => {
            (format!("group {}", key.group), value.map(|value| group(&value, names)))
        }
        Change::Epoch(key, value) => {
            (format!("epoch {}", key.group_id), value.map(|value| value.epoch.to_string()))
        }
        Change::TargetEpoch(key, value) => (
            format!("target-epoch {}", key.group_id),
            value.map(|value| value.assignment_epoch.to_string()),
        ),
        Change::Member(key, value) => (
            format!("member {} {}", key.group_id, names.name(&key.member_id)),
            value.map(|value| consumer(&value)),
        ),
        Change::Target(key, value) => {
            let value = value.map(|value| {
                let topics = value.topic_partitions.iter();
                say_ids(topics.map(|topic| (topic.topic_id, topic.partitions.as_slice())))
            });
            (format!("target {} {}", key.group_id, names.name(&key.member_id)), value)
        }
        Change::Current(key, value) => (
            format!("current {} {}", key.group_id, names.name(&key.member_id)),
            value.map(|value| current(&value)),
        ),
        Change::Regex(key, value) => (
            format!("regex {} {}", key.group_id, key.regular_expression),
            value.map(|value| {
                format!(
                    "means {}",
                    if value.topics.is_empty() {
                        "nothing".to_owned()
                    } else {
                        value.topics.join(",")
                    }
                )
            }),
        ),
        Change::Unknown => ("something else".to_owned(), None),
    };
    let transaction = transaction
        .map_or_else(String::new, |(producer, _)| format!(" in the transaction of {}", producer.0));
    Some(format!("* {key} {}{transaction}", value.unwrap_or_else(|| "tombstone".to_owned())))
}

fn offset_value(partition: &str, value: &OffsetCommitValue) -> String {
    let expires = match value.expire_timestamp {
        ..0 => String::new(),
        at => format!(" expires after {} ms", at - value.commit_timestamp),
    };
    format!("{}{expires}", offset(partition, value.offset, value.leader_epoch, &value.metadata))
}

fn group(value: &GroupMetadataValue, names: &mut Names) -> String {
    let spoken = match value.protocol_type.as_str() {
        "consumer" => String::new(),
        other => format!(" of type {other:?}"),
    };
    let protocol = value
        .protocol
        .as_ref()
        .map_or_else(String::new, |protocol| format!(" protocol {protocol}"));
    let leader = value
        .leader
        .as_ref()
        .map_or_else(|| " no leader".to_owned(), |id| format!(" leader {}", names.name(id)));
    let of_member = |told: &MemberMetadata| {
        let name = member(&told.member_id, told.group_instance_id.as_ref(), names);
        format!(" {name}{}={}", metadata(&told.subscription), assignment(&told.assignment))
    };
    let members: String = value.members.iter().map(of_member).collect();
    let members =
        if members.is_empty() { " no members".to_owned() } else { format!(" members{members}") };
    format!("generation {}{spoken}{protocol}{leader}{members}", value.generation)
}

fn consumer(value: &ConsumerGroupMemberMetadataValue) -> String {
    let said = |what: &str, value: &Option<String>| {
        value.as_ref().map_or_else(String::new, |value| format!(" {what} {value}"))
    };
    let classic = value.classic_member_metadata.as_ref().map_or_else(String::new, |classic| {
        let protocols: Vec<&str> =
            classic.supported_protocols.iter().map(|protocol| protocol.name.as_str()).collect();
        format!(" classic {} session {}", protocols.join(","), classic.session_timeout_ms)
    });
    let topics = match value.subscribed_topic_names.as_slice() {
        [] => "none".to_owned(),
        names => names.join(","),
    };
    format!(
        "topics {topics}{}{}{}{} rebalance {}{classic}",
        said("regex", &value.subscribed_topic_regex),
        said("instance", &value.instance_id),
        said("rack", &value.rack_id),
        said("assignor", &value.server_assignor),
        value.rebalance_timeout_ms
    )
}

fn current(value: &ConsumerGroupCurrentMemberAssignmentValue) -> String {
    let state = match value.state {
        1 => "STABLE",
        2 => "UNREVOKED_PARTITIONS",
        3 => "UNRELEASED_PARTITIONS",
        _ => "UNKNOWN",
    };
    let has = say_ids(
        value.assigned_partitions.iter().map(|topic| (topic.topic_id, topic.partitions.as_slice())),
    );
    let revoking = match value.partitions_pending_revocation.as_slice() {
        [] => String::new(),
        topics => format!(
            " revoking {}",
            say_ids(topics.iter().map(|topic| (topic.topic_id, topic.partitions.as_slice())))
        ),
    };
    format!(
        "epoch {} after {} {state} has {has}{revoking}{}",
        value.member_epoch,
        value.previous_member_epoch,
        since(value)
    )
}

/// The assignment epochs that differ from the member epoch (KIP-1251).
fn since(value: &ConsumerGroupCurrentMemberAssignmentValue) -> String {
    let mut by_epoch: BTreeMap<i32, BTreeMap<Uuid, Vec<i32>>> = BTreeMap::new();
    for topic in value.assigned_partitions.iter().chain(&value.partitions_pending_revocation) {
        let epochs = topic.assignment_epochs.as_deref().unwrap_or_default();
        assert_eq!(epochs.len(), topic.partitions.len());
        for (index, epoch) in
            topic.partitions.iter().zip(epochs).filter(|(_, epoch)| **epoch != value.member_epoch)
        {
            by_epoch.entry(*epoch).or_default().entry(topic.topic_id).or_default().push(*index);
        }
    }
    let said = by_epoch.iter().map(|(epoch, topics)| {
        let topics = topics.iter().map(|(id, indexes)| (*id, indexes.as_slice()));
        format!(", {} since {epoch}", say_ids(topics))
    });
    said.collect()
}
