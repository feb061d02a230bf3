//! The memory that the members of all groups on this broker take: what they say of themselves, and
//! what they are assigned.
//!
//! A group has a bound of its own, and there may be any number of groups. Kafka has none for all of
//! them; here a broker gives them a part of its memory ([`crate::memory`]). Each group counts what
//! its members take, as it changes; who would take more than there is left is refused. What the log
//! holds is loaded all the same, and what a member says again it may say.
//!
//! The coordinators of all partitions share the count. Nothing else of them does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tracing::warn;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{ConsumerGroupHeartbeatRequest, JoinGroupRequest};

use super::client::Client;
use super::turn::PREFIX_CHARS_MAX;
use super::{ConsumerHeartbeat, Groups, Join, Kind, Refusal, refuse};
use crate::coordinator::Now;

/// What a member takes besides its names and bytes: what is known of it, its session and its places
/// in maps and queues.
pub(super) const MEMBER_BYTES: usize = 512;

/// What a protocol takes besides its name and what the member says in it.
pub(super) const PROTOCOL_BYTES: usize = 64;

/// What a topic's name takes besides its bytes, in a set of names.
pub(super) const NAME_BYTES: usize = 48;

/// What a partition takes that a member has: who owns it, and since when.
pub(super) const OWNED_BYTES: usize = 128;

/// What a partition takes that a member is to have.
pub(super) const TARGET_BYTES: usize = 32;

/// How often the log says that members are refused.
const LOG_INTERVAL_MS: u64 = 30_000;

/// The part of a broker's memory that is for the members of its groups.
#[derive(Clone, Debug)]
pub(crate) struct MemberMemory(Arc<Count>);

#[derive(Debug)]
struct Count {
    bytes_max: usize,
    used: AtomicUsize,
    /// Before that the log does not say again that it is used up ([`Now::ms`]).
    told_again_at: AtomicU64,
}

/// As much as there is.
impl Default for MemberMemory {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl MemberMemory {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Count {
            bytes_max,
            used: AtomicUsize::new(0),
            told_again_at: AtomicU64::new(0),
        }))
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Whether so much more may be taken. Where not, the log says so now and then.
    pub(super) fn has_room_for(&self, more: usize, now: Now) -> bool {
        let (used, bytes_max) = (self.used_bytes(), self.0.bytes_max);
        if more == 0 || used.saturating_add(more) <= bytes_max {
            return true;
        }
        let again_at = self.0.told_again_at.load(Ordering::Relaxed);
        let next = now.ms.saturating_add(LOG_INTERVAL_MS);
        let turn = (Ordering::Relaxed, Ordering::Relaxed);
        if now.ms >= again_at
            && self.0.told_again_at.compare_exchange(again_at, next, turn.0, turn.1).is_ok()
        {
            warn!(
                used_bytes = used,
                bound_bytes = bytes_max,
                "the members of groups take all the memory that is for them; others are told to come again"
            );
        }
        false
    }

    /// Nothing yet.
    pub(super) fn hold(&self) -> Held {
        Held { memory: self.clone(), bytes: 0 }
    }
}

/// What a group's members take: counted as long as this is there.
pub(super) struct Held {
    memory: MemberMemory,
    bytes: usize,
}

impl Held {
    pub(super) fn set(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.memory.0.used.fetch_add(more, Ordering::Relaxed),
            None => self.memory.0.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed),
        };
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}

fn length(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}

/// What whoever sends this takes as a member.
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

/// What whoever sends this takes as a member, as far as it says so.
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
    /// What this member has said before takes; of a static one, what the one before it has.
    fn bytes_of_member(&self, group: &str, id: &str, instance: Option<&str>) -> usize {
        match self.groups.get(group).map(|group| &group.kind) {
            Some(Kind::Classic(group)) => group.bytes_of_member(id, instance),
            Some(Kind::Consumer(group)) => group.bytes_of_member(id, instance),
            None => 0,
        }
    }

    /// Whether there is room for who joins. COORDINATOR_NOT_AVAILABLE, with which it is refused
    /// where not, has clients come again: GROUP_MAX_SIZE_REACHED ends them, though another group
    /// may be what is too large, and be gone soon.
    pub(super) fn has_room_for_join(&self, join: &Join, now: Now) -> bool {
        let request = &join.request;
        let instance = request.group_instance_id.as_deref();
        let known = self.bytes_of_member(&request.group_id, &request.member_id, instance);
        let asked = bytes_of_join(&join.client, request);
        self.around.memory.has_room_for(asked.saturating_sub(known), now)
    }

    /// As [`Groups::has_room_for_join`], for a member of the consumer protocol.
    pub(super) fn check_room_for(
        &self,
        heartbeat: &ConsumerHeartbeat,
        now: Now,
    ) -> Result<(), Refusal> {
        let request = &heartbeat.request;
        let instance = request.instance_id.as_deref();
        let known = self.bytes_of_member(&request.group_id, &request.member_id, instance);
        let asked = bytes_of_heartbeat(&heartbeat.client, request);
        // Who leaves takes nothing.
        if request.member_epoch < 0
            || self.around.memory.has_room_for(asked.saturating_sub(known), now)
        {
            return Ok(());
        }
        let message = "The members of groups take all the memory that this broker has for them.";
        refuse(ErrorCode::CoordinatorNotAvailable, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_not_counted() {
        let memory = MemberMemory::new(1_000);
        let (mut one, mut two) = (memory.hold(), memory.clone().hold());
        let now = Now::default();
        one.set(700);
        two.set(200);
        assert!(memory.has_room_for(100, now) && !memory.has_room_for(101, now));
        one.set(300);
        assert_eq!(memory.used_bytes(), 500);
        drop(two);
        assert_eq!(memory.used_bytes(), 300);
        one.set(2_000);
        assert!(memory.has_room_for(0, now), "who takes no more goes on");
        drop(one);
        assert_eq!(memory.used_bytes(), 0);
    }
}
