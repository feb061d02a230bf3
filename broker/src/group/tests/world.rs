//! A group coordinator under test, the requests of its clients, and their form in scenarios.

pub(super) mod embedded;
mod names;
mod records;
mod requests;
mod say;
mod scene;
mod topics;

use std::sync::Arc;

use bytes::Bytes;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use weir_protocol::messages::leave_group_request::MemberIdentity;
use weir_protocol::messages::list_groups_response::ListedGroup;
use weir_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use weir_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use weir_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupResponse, OffsetCommitRequest, SyncGroupRequest,
    SyncGroupResponse,
};
use weir_settings::Configs;

use crate::coordinator::harness::Harness;
use crate::group::{Client, ConsumerHeartbeat, GroupMemory, Groups, Join, Request};
use crate::metadata::MetadataImage;

pub(super) use self::scene::Scene;
pub(super) use self::topics::topic_id;
use self::topics::{Topic, image};
pub(super) use crate::coordinator::harness::Asked;

/// A group coordinator under test.
pub(super) type World = Harness<Groups>;

impl World {
    pub(super) fn new(configs: &[(&str, &str)]) -> Self {
        Self::with_topics(configs, &[("a", 3), ("b", 2)])
    }

    pub(super) fn with_topics(configs: &[(&str, &str)], topics: &[(&str, usize)]) -> Self {
        Self::beside(configs, topics, &GroupMemory::default())
    }

    /// Like [`World::with_topics`], with memory that other worlds share.
    pub(super) fn beside(
        configs: &[(&str, &str)],
        topics: &[(&str, usize)],
        memory: &GroupMemory,
    ) -> Self {
        let configs =
            configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self::begin_with(settings(configs), image_of(topics), memory.clone())
    }

    /// The partitions of these topics.
    pub(super) fn partitions(&self, topics: &[String]) -> Vec<(String, i32)> {
        let found = topics.iter().filter_map(|name| self.image.topic_by_name(name));
        let of = |topic: &Arc<crate::metadata::TopicImage>| {
            (0..topic.partitions.len())
                .map(|index| (topic.name.to_string(), index as i32))
                .collect::<Vec<_>>()
        };
        found.flat_map(of).collect()
    }

    /// Replaces the topics.
    pub(super) fn topics(&mut self, topics: &[(&str, usize)]) {
        self.set_image(image_of(topics));
    }

    pub(super) fn join(
        &mut self,
        version: i16,
        request: JoinGroupRequest,
    ) -> Asked<JoinGroupResponse> {
        let client = Client { id: "client".to_owned(), host: "/127.0.0.1".to_owned(), version };
        self.ask(|to| Request::Join(Join { client, request, to }))
    }

    pub(super) fn sync(&mut self, request: SyncGroupRequest) -> Asked<SyncGroupResponse> {
        self.ask(|to| Request::Sync { request, to })
    }

    pub(super) fn heartbeat(&mut self, member: &str, generation: i32) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: "g".to_owned(),
            generation_id: generation,
            member_id: member.to_owned(),
            ..Default::default()
        };
        self.ask(|to| Request::Heartbeat { request, to }).expect()
    }

    pub(super) fn leave(&mut self, member: &str, instance: Option<&str>) -> LeaveGroupResponse {
        let members = vec![MemberIdentity {
            member_id: member.to_owned(),
            group_instance_id: instance.map(str::to_owned),
            ..Default::default()
        }];
        self.ask(|to| Request::Leave { group: "g".to_owned(), members, to }).expect()
    }

    pub(super) fn consumer(
        &mut self,
        request: ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        let client = Client { id: "client".to_owned(), host: "/127.0.0.1".to_owned(), version: 1 };
        self.ask(|to| Request::ConsumerHeartbeat(ConsumerHeartbeat { client, request, to }))
            .expect()
    }

    /// The state of group `g` in ListGroups.
    pub(super) fn state(&mut self) -> String {
        self.listed().map_or_else(|| "none".to_owned(), |group| group.group_state)
    }

    /// The type of group `g` in ListGroups.
    pub(super) fn kind(&mut self) -> String {
        self.listed().map_or_else(|| "none".to_owned(), |group| group.group_type)
    }

    fn listed(&mut self) -> Option<ListedGroup> {
        let listed = self.ask(|to| Request::List { states: Vec::new(), types: Vec::new(), to });
        listed.expect().into_iter().find(|group| group.group_id == "g")
    }
}

/// The settings of a test. By default assignments are immediate.
fn settings(mut configs: Configs) -> Configs {
    configs
        .entry("group.consumer.assignment.interval.ms".to_owned())
        .or_insert_with(|| "0".to_owned());
    configs
}

fn image_of(topics: &[(&str, usize)]) -> MetadataImage {
    let topics: Vec<Topic> =
        topics.iter().map(|(name, count)| Topic::without_racks(name, *count)).collect();
    image(&topics)
}

/// A JoinGroup to group `g`, from a consumer with these protocols.
pub(super) fn join(member: &str, protocols: &[&str]) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: "g".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        member_id: member.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: protocols
            .iter()
            .map(|name| JoinGroupRequestProtocol {
                name: (*name).to_owned(),
                metadata: Bytes::copy_from_slice(name.as_bytes()),
            })
            .collect(),
        ..Default::default()
    }
}

/// A SyncGroup that assigns each member its id and the generation as text.
pub(super) fn sync(member: &str, generation: i32, to: &[&str]) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: "g".to_owned(),
        generation_id: generation,
        member_id: member.to_owned(),
        assignments: to
            .iter()
            .map(|id| SyncGroupRequestAssignment {
                member_id: (*id).to_owned(),
                assignment: Bytes::from(format!("{id}@{generation}")),
            })
            .collect(),
        ..Default::default()
    }
}

/// A commit of these offsets by a member of group `g`.
pub(super) fn commit_request(
    member: &str,
    generation: i32,
    partitions: &[(&str, i32, i64)],
) -> OffsetCommitRequest {
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
