//! The observation of a group: requests to its coordinator and to the leaders of its partitions, as
//! any client may send them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, Bytes};
use weir_protocol::batch::BatchHeader;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use weir_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use weir_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use weir_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerProtocolAssignment, DescribeGroupsRequest, FetchRequest,
    ListOffsetsRequest, Message as _, OffsetFetchRequest,
};
use weir_protocol::reset_marks;

use super::lag;
use super::marks::{Mark, Marks};
use super::observed::{Log, Member, Observed, Partition};
use crate::kafka::{Client, KafkaError, check};

/// The special timestamps of ListOffsets: the log start offset, and the high watermark.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// The most batches that one look reads for their timestamps, for the partitions with the largest
/// lag. Producers choose the size of a batch; it is read once for each committed offset.
const AGES_MAX: usize = 32;

/// A classic member in a group of the consumer protocol
/// (`ConsumerGroupDescribeResponse.MemberType`).
const CLASSIC_MEMBER: i8 = 0;

/// What to observe of a group.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The group's id.
    pub group: String,
    /// Topics whose partitions are all observed.
    pub topics: BTreeSet<String>,
    /// The topics that the resource names; their partitions count without a committed offset.
    pub named: Vec<String>,
    /// The timestamp for which to look up offsets, in milliseconds.
    pub at_ms: Option<i64>,
    /// Whether to read the marks of resets.
    pub marks: bool,
}

/// The committed offset of a partition, and the timestamp of the first record that was not
/// consumed.
pub type Ages = BTreeMap<Partition, (i64, i64)>;

/// Observes a group.
///
/// # Errors
/// When its coordinator does not answer. If a partition's leader does not answer, only that
/// partition is unknown.
pub async fn observe(
    client: &Client,
    question: &Question,
    ages: &mut Ages,
) -> Result<Observed, KafkaError> {
    let coordinator = client.coordinator(&question.group).await?;
    let mut observed = Observed { coordinator: Some(coordinator), ..Observed::default() };
    describe(client, coordinator, &question.group, &mut observed).await?;
    committed(client, coordinator, &question.group, &mut observed).await?;
    if question.marks {
        observed.marks = marks(client, coordinator, &question.group).await?;
    }
    let state = client.state();
    for topic in &question.topics {
        match state.topic_by_name(topic) {
            None => drop(observed.unknown_topics.insert(topic.clone())),
            Some(found) => {
                for (index, _) in (0..).zip(&found.partitions) {
                    observed.partitions.entry((topic.clone(), index)).or_default();
                }
            }
        }
    }
    let assigned: Vec<Partition> =
        observed.members.iter().flat_map(|member| member.partitions.iter().cloned()).collect();
    for partition in assigned {
        observed.partitions.entry(partition).or_default();
    }
    // Offsets of a deleted topic mean nothing.
    observed.partitions.retain(|(topic, _), _| state.topic_by_name(topic).is_some());
    let all: Vec<Partition> = observed.partitions.keys().cloned().collect();
    let starts = offsets_at(client, &all, EARLIEST).await;
    let ends = offsets_at(client, &all, LATEST).await;
    for (partition, log) in &mut observed.partitions {
        log.start = starts.get(partition).copied();
        log.end = ends.get(partition).copied();
    }
    if let Some(at_ms) = question.at_ms {
        observed.at_time = offsets_at(client, &all, at_ms).await;
        for (partition, offset) in &mut observed.at_time {
            // No record has that timestamp or a later one.
            if *offset < 0 {
                *offset = ends.get(partition).copied().unwrap_or(*offset);
            }
        }
        observed.at_time.retain(|_, offset| *offset >= 0);
    }
    fetch_ages(client, question, &mut observed, ages).await;
    Ok(observed)
}

async fn describe(
    client: &Client,
    coordinator: i32,
    group: &str,
    observed: &mut Observed,
) -> Result<(), KafkaError> {
    let request =
        ConsumerGroupDescribeRequest { group_ids: vec![group.to_owned()], ..Default::default() };
    let response = client.ask(coordinator, 1, &request).await?;
    let Some(found) = response.groups.into_iter().next() else {
        return Err(KafkaError::Code("describe the group", ErrorCode::UnknownServerError));
    };
    if ErrorCode::from_code(found.error_code) == ErrorCode::GroupIdNotFound {
        return describe_classic(client, coordinator, group, observed).await;
    }
    check("describe the group", found.error_code)?;
    observed.state = found.group_state;
    "Consumer".clone_into(&mut observed.protocol);
    observed.assignor = found.assignor_name;
    observed.members = found
        .members
        .into_iter()
        .map(|member| {
            let assigned = member.assignment.topic_partitions.into_iter();
            Member {
                id: member.member_id,
                instance: member.instance_id,
                client_id: member.client_id,
                consumer_protocol: member.member_type != CLASSIC_MEMBER,
                partitions: assigned
                    .flat_map(|topic| {
                        let name = topic.topic_name;
                        topic.partitions.into_iter().map(move |index| (name.clone(), index))
                    })
                    .collect(),
            }
        })
        .collect();
    Ok(())
}

async fn describe_classic(
    client: &Client,
    coordinator: i32,
    group: &str,
    observed: &mut Observed,
) -> Result<(), KafkaError> {
    let request = DescribeGroupsRequest { groups: vec![group.to_owned()], ..Default::default() };
    let response = client.ask(coordinator, 5, &request).await?;
    let Some(found) = response.groups.into_iter().next() else {
        return Err(KafkaError::Code("describe the group", ErrorCode::UnknownServerError));
    };
    check("describe the group", found.error_code)?;
    observed.state = found.group_state;
    if !found.protocol_type.is_empty() {
        "Classic".clone_into(&mut observed.protocol);
    }
    observed.assignor = found.protocol_data;
    observed.members = found
        .members
        .into_iter()
        .map(|member| Member {
            id: member.member_id,
            instance: member.group_instance_id,
            client_id: member.client_id,
            consumer_protocol: false,
            partitions: assignment(member.member_assignment),
        })
        .collect();
    Ok(())
}

/// The partitions in a classic member's assignment. The broker does not validate these bytes:
/// invalid ones mean no partitions.
fn assignment(mut bytes: Bytes) -> BTreeSet<Partition> {
    if bytes.len() < 2 {
        return BTreeSet::new();
    }
    let version = bytes.get_i16().clamp(0, *ConsumerProtocolAssignment::VERSIONS.end());
    let Ok(assignment) = ConsumerProtocolAssignment::decode(&mut bytes, version) else {
        return BTreeSet::new();
    };
    let topics = assignment.assigned_partitions.into_iter();
    topics
        .flat_map(|topic| {
            let name = topic.topic;
            topic.partitions.into_iter().map(move |index| (name.clone(), index))
        })
        .collect()
}

async fn committed(
    client: &Client,
    coordinator: i32,
    group: &str,
    observed: &mut Observed,
) -> Result<(), KafkaError> {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.to_owned(),
            topics: None,
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = client.ask(coordinator, 8, &request).await?;
    for group in response.groups {
        check("fetch the committed offsets", group.error_code)?;
        for topic in group.topics {
            for partition in
                topic.partitions.into_iter().filter(|partition| partition.committed_offset >= 0)
            {
                let log = Log { committed: Some(partition.committed_offset), ..Log::default() };
                observed.partitions.insert((topic.name.clone(), partition.partition_index), log);
            }
        }
    }
    Ok(())
}

/// The marks of resets; `None` if the coordinator's version has none.
async fn marks(
    client: &Client,
    coordinator: i32,
    group: &str,
) -> Result<Option<Marks>, KafkaError> {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.to_owned(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: reset_marks::TOPIC.to_owned(),
                partition_indexes: (0..reset_marks::SLOTS).collect(),
                ..Default::default()
            }]),
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = client.ask(coordinator, 8, &request).await?;
    let mut found = Vec::new();
    for group in response.groups {
        check("fetch the marks of resets", group.error_code)?;
        for partition in group.topics.into_iter().flat_map(|topic| topic.partitions) {
            check("fetch the marks of resets", partition.error_code)?;
            match partition.committed_offset {
                ..reset_marks::NO_MARK => return Ok(None),
                reset_marks::NO_MARK => {}
                mark => found.push(Mark { number: partition.committed_leader_epoch, mark }),
            }
        }
    }
    Ok(Some(Marks::new(found)))
}

/// Partitions by their leader, without those that have none.
fn by_leader<'a>(
    client: &Client,
    partitions: impl Iterator<Item = &'a Partition>,
) -> BTreeMap<i32, BTreeMap<String, Vec<i32>>> {
    let state = client.state();
    let mut leaders: BTreeMap<i32, BTreeMap<String, Vec<i32>>> = BTreeMap::new();
    for (topic, index) in partitions {
        let leader = state
            .topic_by_name(topic)
            .and_then(|found| found.partitions.get(usize::try_from(*index).ok()?))
            .and_then(|partition| partition.leader);
        if let Some(leader) = leader {
            leaders.entry(leader.0).or_default().entry(topic.clone()).or_default().push(*index);
        }
    }
    leaders
}

/// The offsets for a timestamp, from the leaders that answer; -1 if no record is that new.
async fn offsets_at(
    client: &Client,
    partitions: &[Partition],
    timestamp: i64,
) -> BTreeMap<Partition, i64> {
    let mut found = BTreeMap::new();
    for (leader, topics) in by_leader(client, partitions.iter()) {
        let topics = topics.into_iter().map(|(name, partitions)| ListOffsetsTopic {
            name,
            partitions: partitions
                .into_iter()
                .map(|partition_index| ListOffsetsPartition {
                    partition_index,
                    timestamp,
                    ..Default::default()
                })
                .collect(),
        });
        let request =
            ListOffsetsRequest { replica_id: -1, topics: topics.collect(), ..Default::default() };
        let Ok(response) = client.ask(leader, 7, &request).await else { continue };
        for topic in response.topics {
            for partition in
                topic.partitions.into_iter().filter(|partition| partition.error_code == 0)
            {
                found.insert((topic.name.clone(), partition.partition_index), partition.offset);
            }
        }
    }
    found
}

/// Reads missing timestamps of records that were not consumed, for the partitions with the largest
/// lag first.
async fn fetch_ages(
    client: &Client,
    question: &Question,
    observed: &mut Observed,
    ages: &mut Ages,
) {
    let named = !question.named.is_empty();
    let behind = lag::counted(observed, &question.named).filter_map(|(partition, log)| {
        Some((lag::messages(log, named), lag::position(log, named)?, partition.clone()))
    });
    let mut behind: Vec<_> = behind.filter(|(messages, ..)| *messages > 0).collect();
    behind.sort_by_key(|(messages, ..)| std::cmp::Reverse(*messages));
    let wanted: BTreeMap<Partition, i64> =
        behind.iter().map(|(_, position, partition)| (partition.clone(), *position)).collect();
    ages.retain(|partition, (offset, _)| wanted.get(partition) == Some(offset));
    let unknown = behind.iter().filter(|(_, _, partition)| !ages.contains_key(partition));
    let unknown: Vec<(Partition, i64)> = unknown
        .take(AGES_MAX)
        .map(|(_, position, partition)| (partition.clone(), *position))
        .collect();
    for (partition, offset) in unknown {
        if let Some(ms) = time_of(client, &partition, offset).await {
            ages.insert(partition, (offset, ms));
        }
    }
    for (partition, log) in &mut observed.partitions {
        log.oldest_ms = ages.get(partition).map(|(_, ms)| *ms);
    }
}

/// The timestamp of the first batch at or after an offset; fetches one batch.
async fn time_of(client: &Client, partition: &Partition, offset: i64) -> Option<i64> {
    let leader = *by_leader(client, std::iter::once(partition)).keys().next()?;
    let request = FetchRequest {
        replica_id: -1,
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: 1,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: partition.0.clone(),
            partitions: vec![FetchPartition {
                partition: partition.1,
                fetch_offset: offset,
                partition_max_bytes: 1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = client.ask(leader, 12, &request).await.ok()?;
    let found = response.responses.into_iter().next()?.partitions.into_iter().next()?;
    let records = found.records.filter(|_| found.error_code == 0)?;
    // Producers without a clock send negative timestamps.
    BatchHeader::parse(&records).ok().map(|batch| batch.base_timestamp).filter(|ms| *ms >= 0)
}
