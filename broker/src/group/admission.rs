//! PURE: the check that there is memory for a joining member, or for committed offsets
//! ([`super::memory`]).
//!
//! A refusal is COORDINATOR_NOT_AVAILABLE, on which clients retry. GROUP_MAX_SIZE_REACHED would end
//! them, although the memory may belong to another group and be free soon.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{
    ConsumerGroupHeartbeatRequest, JoinGroupRequest, OffsetCommitRequest,
};
use weir_protocol::types::ProducerId;

use super::client::Client;
use super::decision::PREFIX_CHARS_MAX;
use super::memory::{MEMBER_BYTES, NAME_BYTES, PROTOCOL_BYTES};
use super::{ConsumerHeartbeat, Groups, Join, Kind, Refusal, refuse};
use crate::coordinator::Now;

fn length(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}

/// The bytes that the sender of this request takes as a member.
fn bytes_of_join(client: &Client, request: &JoinGroupRequest) -> usize {
    let protocols = request.protocols.iter();
    let said = protocols.map(|said| PROTOCOL_BYTES + said.name.len() + said.metadata.len());
    let prefix = client.id.len().max(length(&request.group_instance_id)).min(4 * PREFIX_CHARS_MAX);
    MEMBER_BYTES
        + request.member_id.len().max(prefix)
        + client.id.len()
        + client.host.len()
        + length(&request.group_instance_id)
        + said.sum::<usize>()
}

/// The bytes that the sender of this request takes as a member, by the fields of the request.
fn bytes_of_heartbeat(client: &Client, request: &ConsumerGroupHeartbeatRequest) -> usize {
    let topics = request.subscribed_topic_names.iter().flatten();
    MEMBER_BYTES
        + request.member_id.len()
        + client.id.len()
        + client.host.len()
        + length(&request.instance_id)
        + length(&request.rack_id)
        + length(&request.server_assignor)
        + length(&request.subscribed_topic_regex)
        + topics.map(|name| NAME_BYTES + name.len()).sum::<usize>()
}

impl Groups {
    /// The bytes of this member's earlier fields; for a static member those of its predecessor.
    fn bytes_of_member(&self, group: &str, id: &str, instance: Option<&str>) -> usize {
        match self.groups.get(group).map(|group| &group.kind) {
            Some(Kind::Classic(group)) => group.bytes_of_member(id, instance),
            Some(Kind::Consumer(group)) => group.bytes_of_member(id, instance),
            None => 0,
        }
    }

    /// Whether there is memory for a joining member.
    pub(super) fn has_room_for_join(&self, join: &Join, now: Now) -> bool {
        let request = &join.request;
        let instance = request.group_instance_id.as_deref();
        let known = self.bytes_of_member(&request.group_id, &request.member_id, instance);
        let asked = bytes_of_join(&join.client, request);
        self.around.memory.members.has_room_for(asked.saturating_sub(known), now)
    }

    /// Like [`Groups::has_room_for_join`], for a member of the consumer protocol.
    pub(super) fn check_room_for(
        &self,
        heartbeat: &ConsumerHeartbeat,
        now: Now,
    ) -> Result<(), Refusal> {
        let request = &heartbeat.request;
        let instance = request.instance_id.as_deref();
        let known = self.bytes_of_member(&request.group_id, &request.member_id, instance);
        let asked = bytes_of_heartbeat(&heartbeat.client, request);
        // A member that leaves, and an unknown member, take no memory.
        let takes = request.member_epoch == 0 || (request.member_epoch > 0 && known > 0);
        if !takes || self.around.memory.members.has_room_for(asked.saturating_sub(known), now) {
            return Ok(());
        }
        let message = "The members of groups take all the memory that this broker has for them.";
        refuse(ErrorCode::CoordinatorNotAvailable, message)
    }

    /// Checks that there is memory for a commit. One that only repeats what is there needs none.
    /// One in a transaction needs room until its end, and room for what it leaves behind.
    pub(super) fn check_room_for_commit(
        &self,
        request: &OffsetCommitRequest,
        transaction: Option<ProducerId>,
        now: Now,
    ) -> Result<(), ErrorCode> {
        let Some(group) = self.groups.get(&*request.group_id) else { return Ok(()) };
        let (mut more, mut passing) = (group.offsets.more_with_any(), 0);
        for topic in &request.topics {
            more += group.offsets.more_with_topic(&topic.name);
            let name = transaction.map(|producer| (producer, Arc::from(topic.name.as_str())));
            for partition in &topic.partitions {
                let metadata = partition.committed_metadata.as_ref().map_or(0, String::len);
                let index = partition.partition_index;
                more += group.offsets.more_with(&topic.name, index, metadata);
                if let Some((producer, name)) = &name {
                    passing += group.offsets.more_while_pending(*producer, name, index, metadata);
                }
            }
        }
        let memory = &self.around.memory.offsets;
        match memory.has_room_for(more, now) && memory.has_room_for_passing(passing, now) {
            true => Ok(()),
            false => Err(ErrorCode::CoordinatorNotAvailable),
        }
    }
}
