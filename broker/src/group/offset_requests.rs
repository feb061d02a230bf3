//! PURE: OffsetCommit, OffsetFetch and OffsetDelete (`OffsetMetadataManager` in Apache Kafka).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use weir_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use weir_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use weir_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use weir_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use weir_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitValue, OffsetDeleteRequest,
    OffsetDeleteResponse,
};
use weir_protocol::reset_marks;

use std::sync::Arc;

use uuid::Uuid;
use weir_protocol::types::ProducerId;

use super::offsets::{Committed, NEW_ERRORS_VERSION};
use super::{Groups, Kind, Phase, Settings, record};
use crate::coordinator::{Now, Outcome, WRITE_BYTES_MAX};

/// Bytes of an offset record besides names and metadata, with room to spare.
const OFFSET_BYTES: usize = 64;

impl Groups {
    /// Commits offsets, at once or with the producer's transaction.
    pub(super) fn commit_in(
        &mut self,
        request: OffsetCommitRequest,
        version: i16,
        transaction: Option<ProducerId>,
        now: Now,
        outcome: &mut Outcome,
    ) -> OffsetCommitResponse {
        let topics = request.topics.iter();
        let offsets = topics.flat_map(|topic| {
            topic
                .partitions
                .iter()
                .map(|partition| (topic.name.as_str(), partition.committed_metadata.as_deref()))
        });
        if written(&request.group_id, offsets) > WRITE_BYTES_MAX {
            return refuse_commit(&request.topics, ErrorCode::UnknownServerError);
        }
        if let Err(error) = self.check_commit(&request, version, transaction.is_some()) {
            return refuse_commit(&request.topics, error);
        }
        if let Err(error) = self.check_room_for_commit(&request, transaction, now) {
            self.forget_if_void(&request.group_id);
            return refuse_commit(&request.topics, error);
        }
        let is_reset = request.member_id == reset_marks::MEMBER;
        if !request.member_id.is_empty() && !is_reset && request.generation_id_or_member_epoch >= 0
        {
            // A commit extends the session like a heartbeat.
            let _ = self.with_classic(&request.group_id, now, outcome, |group, turn| {
                group.heard_of(&request.member_id, turn)
            });
        }
        let expire_ms = (request.retention_time_ms >= 0)
            .then(|| now.wall_ms.saturating_add(request.retention_time_ms));
        let mut response = OffsetCommitResponse::default();
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let error = if has_too_much_metadata(partition, &self.around.settings) {
                    ErrorCode::OffsetMetadataTooLarge
                } else {
                    let value = value(partition, &topic, now, expire_ms);
                    outcome.records.push(record::offset(
                        &request.group_id,
                        &topic.name,
                        partition.partition_index,
                        Some(&value),
                    ));
                    self.keep(
                        &request.group_id,
                        &topic.name,
                        partition.partition_index,
                        value,
                        transaction,
                    )
                };
                partitions.push(OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: error.code(),
                });
            }
            response.topics.push(OffsetCommitResponseTopic {
                name: topic.name,
                topic_id: topic.topic_id,
                partitions,
            });
        }
        // Removes a group that was created for offsets of which none was accepted.
        self.forget_if_void(&request.group_id);
        response
    }

    /// Keeps a committed offset, after all earlier ones.
    pub(super) fn keep(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        value: OffsetCommitValue,
        transaction: Option<ProducerId>,
    ) -> ErrorCode {
        let topic = self.topic(topic);
        let Some(group) = self.groups.get_mut(group) else {
            return ErrorCode::UnknownServerError;
        };
        self.place = self.place.next();
        let committed = Committed::new(value, self.place);
        match transaction {
            None => group.offsets.insert(&topic, partition, committed),
            Some(producer) => {
                group.offsets.insert_pending(producer, &topic, partition, committed);
                let id = Arc::clone(&group.id);
                self.transactions.entry(producer).or_default().insert(id);
            }
        }
        ErrorCode::None
    }

    /// Checks that the group accepts the commit. Creates an unknown group for a committer without
    /// membership.
    fn check_commit(
        &mut self,
        request: &OffsetCommitRequest,
        version: i16,
        transactional: bool,
    ) -> Result<(), ErrorCode> {
        let (member, instance) = (request.member_id.as_str(), request.group_instance_id.as_deref());
        let generation = request.generation_id_or_member_epoch;
        if member == reset_marks::MEMBER && !transactional {
            return self.check_marks(request);
        }
        let Some(group) = self.groups.get(&*request.group_id) else {
            return match generation {
                ..0 => self.get_or_make(&request.group_id).map(drop),
                _ if version >= NEW_ERRORS_VERSION && !transactional => {
                    Err(ErrorCode::GroupIdNotFound)
                }
                _ => Err(ErrorCode::IllegalGeneration),
            };
        };
        match &group.kind {
            Kind::Classic(group) => group.check_commit(member, instance, generation, transactional),
            Kind::Consumer(group) => {
                let settings = &self.around.settings;
                let partitions = request.topics.iter().flat_map(|topic| {
                    // Partitions with too much metadata are refused on their own, so they are not
                    // checked.
                    let taken = topic
                        .partitions
                        .iter()
                        .filter(move |partition| !has_too_much_metadata(partition, settings));
                    taken.map(move |partition| (topic.topic_id, partition.partition_index))
                });
                group.check_commit(request, version, transactional, partitions)
            }
        }
    }

    /// Checks that a reset, or the mark of a deletion, is accepted (see [`reset_marks`]).
    fn check_marks(&mut self, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        let says_deletion = |topic: &OffsetCommitRequestTopic| {
            topic.name == reset_marks::TOPIC
                && topic
                    .partitions
                    .iter()
                    .all(|partition| partition.partition_index == reset_marks::DELETION)
        };
        if request.topics.iter().all(says_deletion) {
            let is_there = self.groups.contains_key(&*request.group_id);
            return if is_there { Ok(()) } else { Err(ErrorCode::GroupIdNotFound) };
        }
        let group = self.get_or_make(&request.group_id)?;
        if group.is_empty() { Ok(()) } else { Err(ErrorCode::NonEmptyGroup) }
    }

    /// The id of the requested topic. Without an id it is the topic that has the name now.
    fn meant(&self, name: &str, id: Uuid) -> Uuid {
        match id.is_nil() {
            false => id,
            true => self.around.image.topic_by_name(name).map_or(id, |topic| topic.id.0),
        }
    }

    pub(super) fn fetch(
        &self,
        request: OffsetFetchRequestGroup,
        require_stable: bool,
    ) -> OffsetFetchResponseGroup {
        let group = self.groups.get(&*request.group_id);
        if let Some(Kind::Consumer(consumers)) = group.map(|group| &group.kind)
            && let Err(error) =
                consumers.check_fetch(request.member_id.as_deref(), request.member_epoch)
        {
            return OffsetFetchResponseGroup {
                group_id: request.group_id,
                error_code: error.code(),
                ..Default::default()
            };
        }
        let nothing = super::offsets::Offsets::default();
        let offsets = group.map_or(&nothing, |group| &group.offsets);
        let topics = match request.topics {
            Some(topics) => topics
                .into_iter()
                .map(|topic| {
                    let meant = self.meant(&topic.name, topic.topic_id);
                    let find = |index: &i32| match require_stable
                        && offsets.is_unstable(&topic.name, *index)
                    {
                        _ if topic.name == reset_marks::TOPIC => marked(*index, offsets),
                        true => unstable(*index),
                        false => fetched(
                            *index,
                            offsets
                                .get(&topic.name, *index)
                                .filter(|committed| committed.is_for(meant)),
                        ),
                    };
                    OffsetFetchResponseTopics {
                        partitions: topic.partition_indexes.iter().map(find).collect(),
                        name: topic.name,
                        topic_id: topic.topic_id,
                    }
                })
                .collect(),
            None => offsets
                .topics()
                .filter(|(name, _)| ***name != *reset_marks::TOPIC)
                .map(|(name, partitions)| OffsetFetchResponseTopics {
                    name: name.to_string(),
                    partitions: partitions
                        .iter()
                        .filter(|(_, committed)| committed.is_for(self.meant(name, Uuid::nil())))
                        .map(|(index, committed)| {
                            match require_stable && offsets.is_unstable(name, *index) {
                                true => unstable(*index),
                                false => fetched(*index, Some(committed)),
                            }
                        })
                        .collect(),
                    ..Default::default()
                })
                .collect(),
        };
        OffsetFetchResponseGroup { group_id: request.group_id, topics, ..Default::default() }
    }

    pub(super) fn delete_offsets(
        &mut self,
        request: OffsetDeleteRequest,
        outcome: &mut Outcome,
    ) -> OffsetDeleteResponse {
        let refused = |error: ErrorCode| OffsetDeleteResponse {
            error_code: error.code(),
            ..Default::default()
        };
        let topics = request.topics.iter();
        let offsets =
            topics.flat_map(|topic| topic.partitions.iter().map(|_| (topic.name.as_str(), None)));
        if written(&request.group_id, offsets) > WRITE_BYTES_MAX {
            return refused(ErrorCode::UnknownServerError);
        }
        let Some(group) = self.groups.get_mut(&*request.group_id) else {
            return refused(ErrorCode::GroupIdNotFound);
        };
        match &group.kind {
            Kind::Classic(classic) if !classic.is(Phase::Empty) && !classic.is_of_consumers() => {
                return refused(ErrorCode::NonEmptyGroup);
            }
            Kind::Classic(_) | Kind::Consumer(_) => {}
        }
        let mut response = OffsetDeleteResponse::default();
        for topic in request.topics {
            let is_subscribed = group.is_subscribed(&topic.name);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let index = partition.partition_index;
                if !is_subscribed && group.offsets.forget(&topic.name, index) {
                    outcome.records.push(record::offset(
                        &request.group_id,
                        &topic.name,
                        index,
                        None,
                    ));
                }
                let error =
                    if is_subscribed { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
                partitions.push(OffsetDeleteResponsePartition {
                    partition_index: index,
                    error_code: error.code(),
                });
            }
            response.topics.push(OffsetDeleteResponseTopic { name: topic.name, partitions });
        }
        self.forget_if_void(&request.group_id);
        response
    }
}

fn has_too_much_metadata(partition: &OffsetCommitRequestPartition, settings: &Settings) -> bool {
    let size = partition.committed_metadata.as_ref().map_or(0, String::len);
    size > settings.offset_metadata_bytes_max
}

fn value(
    partition: &OffsetCommitRequestPartition,
    topic: &OffsetCommitRequestTopic,
    now: Now,
    expire_ms: Option<i64>,
) -> OffsetCommitValue {
    OffsetCommitValue {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.clone().unwrap_or_default(),
        commit_timestamp: now.wall_ms,
        expire_timestamp: expire_ms.unwrap_or(-1),
        // The format with an expiry has no topic id, so another coordinator would not know it.
        topic_id: if expire_ms.is_some() { Uuid::nil() } else { topic.topic_id },
    }
}

/// The result for a partition of which an open transaction may commit another offset.
fn unstable(index: i32) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        error_code: ErrorCode::UnstableOffsetCommit.code(),
        ..fetched(index, None)
    }
}

/// The mark in a slot (see [`reset_marks`]).
fn marked(slot: i32, offsets: &super::offsets::Offsets) -> OffsetFetchResponsePartitions {
    let mut answer = fetched(slot, offsets.get(reset_marks::TOPIC, slot));
    if answer.committed_offset < 0 && reset_marks::is_mark(slot) {
        answer.committed_offset = reset_marks::NO_MARK;
    }
    answer
}

fn fetched(index: i32, committed: Option<&Committed>) -> OffsetFetchResponsePartitions {
    match committed {
        None => OffsetFetchResponsePartitions {
            partition_index: index,
            committed_offset: -1,
            committed_leader_epoch: -1,
            metadata: Some(String::new()),
            ..Default::default()
        },
        Some(committed) => OffsetFetchResponsePartitions {
            partition_index: index,
            committed_offset: committed.offset,
            committed_leader_epoch: committed.leader_epoch,
            metadata: Some(committed.metadata.to_string()),
            ..Default::default()
        },
    }
}

/// The most bytes of these offsets' records: topic and metadata of each. Every record contains the
/// group's id, and a request may repeat a partition any number of times.
fn written<'a>(group: &str, offsets: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> usize {
    offsets
        .map(|(topic, metadata)| {
            OFFSET_BYTES + group.len() + topic.len() + metadata.map_or(0, str::len)
        })
        .sum()
}

/// The response to a refused commit.
pub(crate) fn refuse_commit(
    topics: &[OffsetCommitRequestTopic],
    error: ErrorCode,
) -> OffsetCommitResponse {
    let topic = |topic: &OffsetCommitRequestTopic| OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| OffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: error.code(),
            })
            .collect(),
    };
    OffsetCommitResponse { topics: topics.iter().map(topic).collect(), ..Default::default() }
}
