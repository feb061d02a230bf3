//! Responses as lines of a scenario.

use bytes::Bytes;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup as DescribedConsumers,
};
use weir_protocol::messages::describe_groups_response::DescribedGroup;
use weir_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions,
};
use weir_protocol::messages::{
    ConsumerGroupHeartbeatResponse, JoinGroupResponse, LeaveGroupResponse, OffsetCommitResponse,
    OffsetDeleteResponse, SyncGroupResponse,
};

use super::names::Names;
use super::topics::{say, say_ids};
use crate::group::embedded;

pub(super) fn error(code: i16) -> String {
    ErrorCode::from_code(code).name().to_owned()
}

fn error_and(code: i16, message: Option<&String>) -> String {
    message.map_or_else(|| error(code), |message| format!("{}: {message}", error(code)))
}

/// Bytes that are no message of consumers: as text if they are, else as digits.
fn raw(bytes: &Bytes) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|char| char.is_ascii_graphic()) => format!("{text:?}"),
        _ => bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    }
}

/// A member's metadata: `(a,b)` with its owned partitions; empty if there is none.
pub(super) fn metadata(bytes: &Bytes) -> String {
    let Some(said) = embedded::subscription(bytes) else {
        return if bytes.is_empty() { String::new() } else { format!("({})", raw(bytes)) };
    };
    let owned = said.owned_partitions.iter();
    let has = match say(owned.map(|owned| (owned.topic.as_str(), owned.partitions.as_slice()))) {
        nothing if nothing == "nothing" => String::new(),
        owned => format!(" has {owned}"),
    };
    format!("({}{has})", said.topics.join(","))
}

/// The assignment from the group leader to a member.
pub(super) fn assignment(bytes: &Bytes) -> String {
    match embedded::assignment(bytes) {
        _ if bytes.is_empty() => "no word".to_owned(),
        None => raw(bytes),
        Some(said) => {
            let topics = said.assigned_partitions.iter();
            let partitions =
                say(topics.map(|topic| (topic.topic.as_str(), topic.partitions.as_slice())));
            said.user_data
                .map_or(partitions.clone(), |data| format!("{partitions} and {}", raw(&data)))
        }
    }
}

/// A member's name, with its instance id.
pub(super) fn member(id: &str, instance: Option<&String>, names: &mut Names) -> String {
    let name = names.name(id);
    instance.map_or(name.clone(), |instance| format!("{name}/{instance}"))
}

fn spoken(protocol_type: Option<&String>, protocol: Option<&String>) -> String {
    let protocol = protocol.map_or("none", |name| name.as_str());
    match protocol_type.map(String::as_str) {
        Some("consumer") => format!("protocol {protocol}"),
        other => format!(
            "protocol {protocol} of type {}",
            other.filter(|name| !name.is_empty()).unwrap_or("none")
        ),
    }
}

pub(super) fn join(answer: &JoinGroupResponse, names: &mut Names) -> String {
    if answer.error_code != 0 {
        return error(answer.error_code);
    }
    let spoken = spoken(answer.protocol_type.as_ref(), answer.protocol_name.as_ref());
    let leader = match answer.leader.as_str() {
        "" => "no leader".to_owned(),
        id => format!("leader {}", names.name(id)),
    };
    let members = answer.members.iter().map(|told| {
        let name = member(&told.member_id, told.group_instance_id.as_ref(), names);
        format!(" {name}{}", metadata(&told.metadata))
    });
    let members: String = members.collect();
    let members = if members.is_empty() { members } else { format!(", members{members}") };
    let skips = if answer.skip_assignment { ", nothing to assign" } else { "" };
    format!("generation {}, {spoken}, {leader}{members}{skips}", answer.generation_id)
}

pub(super) fn sync(answer: &SyncGroupResponse) -> String {
    if answer.error_code != 0 {
        return error(answer.error_code);
    }
    let spoken = match (&answer.protocol_type, &answer.protocol_name) {
        (None, None) => String::new(),
        (protocol_type, protocol) => {
            format!(", {}", spoken(protocol_type.as_ref(), protocol.as_ref()))
        }
    };
    format!("{}{spoken}", assignment(&answer.assignment))
}

pub(super) fn leave(answer: &LeaveGroupResponse, names: &mut Names) -> Vec<String> {
    let of_member = |told: &weir_protocol::messages::leave_group_response::MemberResponse| {
        let name = member(&told.member_id, told.group_instance_id.as_ref(), names);
        format!("{name}: {}", error(told.error_code))
    };
    let refused = (answer.error_code != 0).then(|| error(answer.error_code));
    refused.into_iter().chain(answer.members.iter().map(of_member)).collect()
}

pub(super) fn consumer(answer: &ConsumerGroupHeartbeatResponse, names: &mut Names) -> String {
    if answer.error_code != 0 {
        return error_and(
            answer.error_code,
            answer.error_message.as_ref().map(|text| names.within(text)).as_ref(),
        );
    }
    let assigned = answer.assignment.as_ref().map_or_else(String::new, |assignment| {
        let topics = assignment.topic_partitions.iter();
        format!(
            ", has {}",
            say_ids(topics.map(|topic| (topic.topic_id, topic.partitions.as_slice())))
        )
    });
    let interval = match answer.heartbeat_interval_ms {
        0 => String::new(),
        ms => format!(", again in {ms} ms"),
    };
    format!("epoch {}{interval}{assigned}", answer.member_epoch)
}

pub(super) fn commit(answer: &OffsetCommitResponse) -> String {
    let partitions = answer.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| {
            format!("{}-{} {}", topic.name, partition.partition_index, error(partition.error_code))
        })
    });
    partitions.collect::<Vec<_>>().join(", ")
}

pub(super) fn fetch(answer: &OffsetFetchResponseGroup) -> String {
    if answer.error_code != 0 {
        return error(answer.error_code);
    }
    let committed = |topic: &str, partition: &OffsetFetchResponsePartitions| {
        let name = format!("{topic}-{}", partition.partition_index);
        if partition.error_code != 0 {
            return format!("{name} {}", error(partition.error_code));
        }
        offset(
            &name,
            partition.committed_offset,
            partition.committed_leader_epoch,
            partition.metadata.as_deref().unwrap_or("null"),
        )
    };
    let topics = answer.topics.iter();
    let all: Vec<String> = topics
        .flat_map(|topic| {
            topic.partitions.iter().map(|partition| committed(&topic.name, partition))
        })
        .collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

/// `a-0 = 7`, with the leader epoch and the metadata of the commit.
pub(super) fn offset(partition: &str, offset: i64, epoch: i32, metadata: &str) -> String {
    let epoch = if epoch < 0 { String::new() } else { format!(" epoch {epoch}") };
    let metadata = if metadata.is_empty() { String::new() } else { format!(" {metadata:?}") };
    format!("{partition} = {offset}{epoch}{metadata}")
}

pub(super) fn delete_offsets(answer: &OffsetDeleteResponse) -> String {
    if answer.error_code != 0 {
        return error(answer.error_code);
    }
    let partitions = answer.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| {
            format!("{}-{} {}", topic.name, partition.partition_index, error(partition.error_code))
        })
    });
    partitions.collect::<Vec<_>>().join(", ")
}

pub(super) fn describe(answer: &DescribedGroup, names: &mut Names) -> Vec<String> {
    if answer.error_code != 0 {
        return vec![format!(
            "{}, {}",
            error_and(answer.error_code, answer.error_message.as_ref()),
            answer.group_state
        )];
    }
    let spoken = spoken(
        Some(&answer.protocol_type),
        Some(&answer.protocol_data).filter(|name| !name.is_empty()),
    );
    let members = answer.members.iter().map(|told| {
        let name = member(&told.member_id, told.group_instance_id.as_ref(), names);
        let (says, has) = (metadata(&told.member_metadata), assignment(&told.member_assignment));
        format!("{name}{says} of {}{} has {has}", told.client_id, told.client_host)
    });
    let members: Vec<String> = members.collect();
    [format!("{}, {spoken}", answer.group_state)].into_iter().chain(members).collect()
}

pub(super) fn describe_consumers(answer: &DescribedConsumers, names: &mut Names) -> Vec<String> {
    if answer.error_code != 0 {
        return vec![error_and(answer.error_code, answer.error_message.as_ref())];
    }
    let partitions = |assignment: &Assignment| {
        let topics = assignment.topic_partitions.iter();
        say(topics.map(|topic| (topic.topic_name.as_str(), topic.partitions.as_slice())))
    };
    let members = answer.members.iter().map(|told| {
        let name = member(&told.member_id, told.instance_id.as_ref(), names);
        let regex = told
            .subscribed_topic_regex
            .as_ref()
            .map_or_else(String::new, |regex| format!(" and {regex}"));
        let rack =
            told.rack_id.as_ref().map_or_else(String::new, |rack| format!(" in rack {rack}"));
        let classic = if told.member_type == 0 { " classic" } else { "" };
        let (has, target) = (partitions(&told.assignment), partitions(&told.target_assignment));
        format!(
            "{name}({}{regex}){rack}{classic} epoch {} has {has} of {target}",
            told.subscribed_topic_names.join(","),
            told.member_epoch
        )
    });
    let members: Vec<String> = members.collect();
    let (epoch, target) = (answer.group_epoch, answer.assignment_epoch);
    let group = format!(
        "{}, epoch {epoch}, target {target}, assignor {}",
        answer.group_state, answer.assignor_name
    );
    [group].into_iter().chain(members).collect()
}
