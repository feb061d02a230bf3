//! Clients' requests from the lines of a scenario. Defaults: group `g`, no instance, a session
//! timeout of 10 s and a rebalance timeout of 60 s.

use bytes::Bytes;
use uuid::Uuid;
use weir_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use weir_protocol::messages::join_group_request::JoinGroupRequestProtocol;
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
use weir_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use weir_protocol::messages::{
    ConsumerGroupHeartbeatRequest, HeartbeatRequest, JoinGroupRequest, OffsetCommitRequest,
    OffsetDeleteRequest, SyncGroupRequest,
};
use weir_scenario::EventArgs;
use weir_settings::{Configs, broker_key};

use super::embedded::{Partitions, assignment, by_topic, subscription};
use super::names::Names;
use super::topics::{Topic, partition, partitions, topic_id};
use crate::group::Client;

pub(super) fn group(words: &EventArgs<'_>) -> String {
    words.text("group").unwrap_or("g").to_owned()
}

fn instance(words: &EventArgs<'_>) -> Option<String> {
    words.text("instance").map(str::to_owned)
}

fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The names in the value of a key; empty without the key.
pub(super) fn names_of(words: &EventArgs<'_>, key: &str) -> Vec<String> {
    words.text(key).map(list).unwrap_or_default()
}

fn parsed(words: &EventArgs<'_>, text: &str) -> Partitions {
    partitions(text).unwrap_or_else(|| words.fail(&format!("{text:?} are no partitions")))
}

/// Parses bytes such as `0x00ff`.
fn bytes(words: &EventArgs<'_>, text: &str) -> Option<Bytes> {
    let digits = text.strip_prefix("0x")?;
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes = (0..digits.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>();
    Some(bytes.unwrap_or_else(|| words.fail(&format!("{text:?} are no bytes"))).into())
}

/// The client, with this version unless the line has another.
pub(super) fn client(words: &EventArgs<'_>, version: i16) -> Client {
    Client {
        id: words.text("client").unwrap_or("client").to_owned(),
        host: "/127.0.0.1".to_owned(),
        version: words.number("version").unwrap_or(version),
    }
}

/// `join [MEMBER]`: a consumer with its `topics=`, `owned=`, `generation=` and `rack=`, or with the
/// metadata in `says=` instead.
pub(super) fn join(words: &mut EventArgs<'_>, names: &Names) -> JoinGroupRequest {
    let member = words.next_if(|_| true).map(|name| names.id(name)).unwrap_or_default();
    let owned = words.text("owned").map(|text| parsed(words, text)).unwrap_or_default();
    let (generation, rack) = (words.number("generation").unwrap_or(-1), words.text("rack"));
    let metadata = match (words.text("topics"), words.text("says")) {
        (Some(topics), None) => subscription(&list(topics), &owned, generation, rack),
        (None, Some(says)) => {
            bytes(words, says).unwrap_or_else(|| Bytes::copy_from_slice(says.as_bytes()))
        }
        (None, None) => Bytes::new(),
        (Some(_), Some(_)) => words.fail("it says its topics or something else"),
    };
    let protocol = |name: String| JoinGroupRequestProtocol { name, metadata: metadata.clone() };
    JoinGroupRequest {
        group_id: group(words),
        session_timeout_ms: words.number("session").unwrap_or(10_000),
        rebalance_timeout_ms: words.number("rebalance").unwrap_or(60_000),
        member_id: member,
        group_instance_id: instance(words),
        protocol_type: words.text("type").unwrap_or("consumer").to_owned(),
        protocols: list(words.text("protocols").unwrap_or("range"))
            .into_iter()
            .map(protocol)
            .collect(),
        ..Default::default()
    }
}

/// `sync MEMBER GENERATION`: a group leader adds its assignments as `give=MEMBER:PARTITIONS`, and
/// user `data=`.
pub(super) fn sync(words: &mut EventArgs<'_>, names: &Names) -> SyncGroupRequest {
    let (member, generation) = (names.id(words.next()), words.next_number());
    let data = words.text("data").map(|data| Bytes::copy_from_slice(data.as_bytes()));
    let given = |text: &str| {
        let Some((to, given)) = text.split_once(':') else { words.fail("give=MEMBER:PARTITIONS") };
        SyncGroupRequestAssignment {
            member_id: names.id(to),
            assignment: bytes(words, given)
                .unwrap_or_else(|| assignment(&parsed(words, given), data.clone())),
        }
    };
    SyncGroupRequest {
        group_id: group(words),
        generation_id: generation,
        member_id: member,
        group_instance_id: instance(words),
        protocol_type: words.text("type").map(str::to_owned),
        protocol_name: words.text("protocol").map(str::to_owned),
        assignments: words.texts("give").into_iter().map(given).collect(),
    }
}

/// `heartbeat MEMBER GENERATION`.
pub(super) fn heartbeat(words: &mut EventArgs<'_>, names: &Names) -> HeartbeatRequest {
    HeartbeatRequest {
        member_id: names.id(words.next()),
        generation_id: words.next_number(),
        group_id: group(words),
        group_instance_id: instance(words),
    }
}

/// `leave [MEMBER,MEMBER]`.
pub(super) fn leave(words: &mut EventArgs<'_>, names: &Names) -> Vec<MemberIdentity> {
    let members = words.next_if(|_| true).map_or_else(|| vec![String::new()], list);
    let member = |name: String| MemberIdentity {
        member_id: names.id(&name),
        group_instance_id: instance(words),
        ..Default::default()
    };
    members.into_iter().map(member).collect()
}

/// `consumer MEMBER EPOCH`, where `''` is no id. A join, in epoch 0, owns nothing, and has a
/// rebalance timeout of 30 s. `owned=unsaid` and `timeout=-1` omit the field.
pub(super) fn consumer(words: &mut EventArgs<'_>, names: &Names) -> ConsumerGroupHeartbeatRequest {
    let (member, epoch) = (names.id(words.next()).replace("''", ""), words.next_number());
    let joins = epoch == 0;
    let owned = match words.text("owned") {
        None if joins => Some(Partitions::new()),
        None | Some("unsaid") => None,
        Some(text) => Some(parsed(words, text)),
    };
    let topic = |(topic, partitions): (String, Vec<i32>)| TopicPartitions {
        topic_id: topic_id(&topic),
        partitions,
    };
    let text = |key: &str| words.text(key).map(str::to_owned);
    ConsumerGroupHeartbeatRequest {
        group_id: group(words),
        member_id: member,
        member_epoch: epoch,
        instance_id: instance(words),
        rack_id: text("rack"),
        rebalance_timeout_ms: words.number("timeout").unwrap_or(if joins { 30_000 } else { -1 }),
        subscribed_topic_names: words.text("topics").map(list),
        subscribed_topic_regex: text("regex"),
        server_assignor: text("assignor"),
        topic_partitions: owned.map(|owned| by_topic(&owned).into_iter().map(topic).collect()),
    }
}

/// The name and the id of the topic with this label.
fn named(label: &str) -> (String, Uuid) {
    (label.split('@').next().unwrap_or_default().to_owned(), topic_id(label))
}

/// `[MEMBER GENERATION] a-0=7:metadata`, with the leader's `epoch=`, and the time to keep it,
/// `retention=`. With `ids=no` the topic's id is unknown, as in old records.
pub(super) fn commit(words: &mut EventArgs<'_>, names: &Names) -> OffsetCommitRequest {
    let member = words.next_if(|_| true).map(|name| names.id(name));
    let generation = if member.is_some() { words.next_number() } else { -1 };
    let (epoch, retention_time_ms) =
        (words.number("epoch").unwrap_or(-1), words.number("retention").unwrap_or(-1));
    let (group_id, group_instance_id) = (group(words), instance(words));
    let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
    for (key, offset) in words.pairs() {
        let Some((label, index)) = partition(key) else {
            if ["epoch", "retention", "group", "instance", "version", "ids"].contains(&key) {
                continue;
            }
            words.fail(&format!("{key:?} is no partition"));
        };
        let (offset, metadata) = offset.split_once(':').unwrap_or((offset, ""));
        let partition = OffsetCommitRequestPartition {
            partition_index: index,
            committed_offset: offset
                .parse()
                .unwrap_or_else(|_| words.fail(&format!("{offset:?} is no number"))),
            committed_leader_epoch: epoch,
            committed_metadata: Some(metadata.to_owned()),
        };
        let (name, id) = named(&label);
        let topic_id = if words.text("ids") == Some("no") { Uuid::nil() } else { id };
        match topics.iter_mut().find(|topic| topic.name == name && topic.topic_id == topic_id) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(OffsetCommitRequestTopic {
                name,
                topic_id,
                partitions: vec![partition],
            }),
        }
    }
    OffsetCommitRequest {
        group_id,
        generation_id_or_member_epoch: generation,
        member_id: member.unwrap_or_default(),
        group_instance_id,
        retention_time_ms,
        topics,
    }
}

/// `fetch [MEMBER EPOCH] of=PARTITIONS`, or all offsets without `of=`. `by=id` names topics by
/// their ids.
pub(super) fn fetch(words: &mut EventArgs<'_>, names: &Names) -> OffsetFetchRequestGroup {
    let member = words.next_if(|word| word != "stable").map(|name| names.id(name));
    let epoch = if member.is_some() { words.next_number() } else { -1 };
    let by_id = words.text("by") == Some("id");
    let topic = |(label, partition_indexes): (String, Vec<i32>)| {
        let (name, id) = named(&label);
        OffsetFetchRequestTopics {
            name,
            topic_id: if by_id { id } else { Uuid::nil() },
            partition_indexes,
        }
    };
    let topics = words.text("of").map(|text| by_topic(&parsed(words, text)));
    OffsetFetchRequestGroup {
        group_id: group(words),
        member_id: member,
        member_epoch: epoch,
        topics: topics.map(|topics| topics.into_iter().map(topic).collect()),
    }
}

/// `delete-offsets PARTITIONS`.
pub(super) fn delete_offsets(words: &mut EventArgs<'_>) -> OffsetDeleteRequest {
    let text = words.next();
    let partition = |partition_index| OffsetDeleteRequestPartition { partition_index };
    let topic = |(name, partitions): (String, Vec<i32>)| OffsetDeleteRequestTopic {
        name,
        partitions: partitions.into_iter().map(partition).collect(),
    };
    OffsetDeleteRequest {
        group_id: group(words),
        topics: by_topic(&parsed(words, text)).into_iter().map(topic).collect(),
    }
}

/// `a:3 b:2`.
pub(super) fn topics(words: &mut EventArgs<'_>) -> Vec<Topic> {
    let mut topics = Vec::new();
    while let Some(text) = words.next_if(|_| true) {
        topics.push(
            Topic::said(text).unwrap_or_else(|| words.fail(&format!("{text:?} is no topic"))),
        );
    }
    topics
}

/// Settings under Kafka's names.
pub(super) fn configs(words: &EventArgs<'_>) -> Configs {
    let setting = |(key, value): (&str, &str)| match broker_key(key) {
        Some(_) => (key.to_owned(), value.to_owned()),
        None => words.fail(&format!("there is no setting {key:?}")),
    };
    words.pairs().into_iter().map(setting).collect()
}

/// `one:1,two:1`: members with their generations or epochs.
pub(super) fn heard_of(words: &EventArgs<'_>, key: &str) -> Vec<(String, i32)> {
    let member = |text: &String| {
        let (name, epoch) = text.split_once(':')?;
        Some((name.to_owned(), epoch.parse().ok()?))
    };
    let parsed = |text: String| {
        member(&text)
            .unwrap_or_else(|| words.fail(&format!("{text:?} is no member and generation")))
    };
    names_of(words, key).into_iter().map(parsed).collect()
}
