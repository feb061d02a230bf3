//! A group coordinator that a test asks, and the requests of its clients.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;
use weir_protocol::controller as rpc;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use weir_protocol::messages::leave_group_request::MemberIdentity;
use weir_protocol::messages::list_groups_response::ListedGroup;
use weir_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use weir_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use weir_protocol::types::ControllerEpoch;

use crate::coordinator::harness::Harness;
use crate::group::{Client, ConsumerHeartbeat, Groups, Join, Request};
use crate::metadata::MetadataImage;

pub(super) use crate::coordinator::harness::Asked;

/// A group coordinator, as a test asks it.
pub(super) type World = Harness<Groups>;

impl World {
    pub(super) fn new(configs: &[(&str, &str)]) -> Self {
        Self::with_topics(configs, &[("a", 3), ("b", 2)])
    }

    pub(super) fn with_topics(configs: &[(&str, &str)], topics: &[(&str, usize)]) -> Self {
        let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self::begin(configs, image(topics))
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

    /// The topics are these now.
    pub(super) fn topics(&mut self, topics: &[(&str, usize)]) {
        self.set_image(image(topics));
    }

    pub(super) fn join(&mut self, version: i16, request: JoinGroupRequest) -> Asked<JoinGroupResponse> {
        let client = Client {
            id: "client".to_owned(),
            host: "/127.0.0.1".to_owned(),
            version,
        };
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
        self.ask(|to| Request::Leave {
            group: "g".to_owned(),
            members,
            to,
        })
        .expect()
    }

    pub(super) fn consumer(&mut self, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        let client = Client {
            id: "client".to_owned(),
            host: "/127.0.0.1".to_owned(),
            version: 1,
        };
        self.ask(|to| Request::ConsumerHeartbeat(ConsumerHeartbeat { client, request, to }))
            .expect()
    }

    /// The state of group `g`, as it is listed.
    pub(super) fn state(&mut self) -> String {
        self.listed().map_or_else(|| "none".to_owned(), |group| group.group_state)
    }

    /// The protocol of group `g`, as it is listed.
    pub(super) fn kind(&mut self) -> String {
        self.listed().map_or_else(|| "none".to_owned(), |group| group.group_type)
    }

    fn listed(&mut self) -> Option<ListedGroup> {
        let listed = self.ask(|to| Request::List {
            states: Vec::new(),
            types: Vec::new(),
            to,
        });
        listed.expect().into_iter().find(|group| group.group_id == "g")
    }
}

pub(super) fn topic_id(name: &str) -> Uuid {
    Uuid::from_u128(name.bytes().fold(1, |id, byte| id << 8 | u128::from(byte)))
}

fn image(topics: &[(&str, usize)]) -> MetadataImage {
    let topic = |(name, count): &(&str, usize)| rpc::Topic {
        id: topic_id(name).as_bytes().to_vec(),
        name: (*name).to_owned(),
        internal: name.starts_with("__"),
        partitions: (0..*count)
            .map(|index| rpc::Partition {
                index: index as i32,
                replicas: vec![0],
                isr: vec![0],
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    // Each image has a version of its own.
    static VERSION: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let update = rpc::MetadataUpdate {
        version: VERSION.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        full: true,
        topics: topics.iter().map(topic).collect(),
        ..Default::default()
    };
    MetadataImage::default().after(ControllerEpoch(1), &update).unwrap().0
}

/// A JoinGroup to group `g`, by a consumer that can do these protocols.
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

/// The same by a static member.
pub(super) fn join_static(member: &str, instance: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_instance_id: Some(instance.to_owned()),
        ..join(member, &["range"])
    }
}

/// A SyncGroup, in which each member is given its name and the generation.
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
