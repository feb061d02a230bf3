//! PURE: JoinGroup (`GroupMetadataManager.classicGroupJoinToClassicGroup` in Apache Kafka, check by
//! check).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::join_group_response::JoinGroupResponseMember;
use weir_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use super::answers::{refused_join, refused_sync};
use super::member::{Member, protocols};
use super::{ClassicGroup, Pending, Phase};
use crate::coordinator::{ReplyTo, WRITE_BYTES_MAX};
use crate::group::client::Client;
use crate::group::decision::DecisionContext;

/// How long a member without a first response may be silent: its client does not know its member
/// id, so it cannot send heartbeats.
const NEW_MEMBER_MS: i32 = 5 * 60 * 1000;

/// The first version in which a member must join again with the id that it was given (KIP-394).
pub(in crate::group) const MEMBER_ID_REQUIRED: i16 = 4;
/// The first version whose response can tell a static leader to skip the assignment (KIP-814).
const SKIP_ASSIGNMENT: i16 = 9;

/// A JoinGroup.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) client: Client,
    pub(crate) request: JoinGroupRequest,
    pub(crate) to: ReplyTo<JoinGroupResponse>,
}

impl Join {
    pub(in crate::group) fn refuse(self, turn: &mut DecisionContext<'_>, error: ErrorCode) {
        let answer = refused_join(&self.request.member_id, error);
        turn.outcome.reply(self.to, answer);
    }
}

impl ClassicGroup {
    pub(in crate::group) fn join(&mut self, join: Join, turn: &mut DecisionContext<'_>) {
        if !self.has_room_for(&join.request.member_id, turn) {
            let id = join.request.member_id.clone();
            self.remove(&id, turn);
            turn.outcome.reply(join.to, refused_join("", ErrorCode::GroupMaxSizeReached));
            return;
        }
        let names: Vec<&str> =
            join.request.protocols.iter().map(|protocol| protocol.name.as_str()).collect();
        if !self.supports(&join.request.protocol_type, &names) {
            return join.refuse(turn, ErrorCode::InconsistentGroupProtocol);
        }
        if !self.can_be_written_with(&join.request) {
            return join.refuse(turn, ErrorCode::UnknownServerError);
        }
        if join.request.member_id.is_empty() {
            self.join_new(join, turn);
        } else {
            self.join_again(join, turn);
        }
    }

    /// Whether the group has room for this member (`acceptJoiningMember`).
    fn has_room_for(&self, member: &str, turn: &DecisionContext<'_>) -> bool {
        let max = turn.settings.group_size_max;
        match self.phase {
            Phase::Empty => self.pending.len() < max || self.pending.contains_key(member),
            Phase::PreparingRebalance => {
                let awaiting = |member: &Member| member.awaits_join.is_some();
                self.members.get(member).is_some_and(awaiting)
                    || self.members.values().filter(|member| awaiting(member)).count() < max
            }
            Phase::CompletingRebalance | Phase::Stable => {
                self.members.contains_key(member) || self.members.len() < max
            }
        }
    }

    /// Whether the group's record, which contains the metadata of all members, stays within
    /// [`WRITE_BYTES_MAX`] with this member. In Apache Kafka such a group fails at each SyncGroup,
    /// with the same error.
    fn can_be_written_with(&self, request: &JoinGroupRequest) -> bool {
        let others = self.members.values().filter(|member| *member.id != *request.member_id);
        let others: usize =
            others.flat_map(|member| &member.protocols).map(|(_, metadata)| metadata.len()).sum();
        let own: usize = request.protocols.iter().map(|protocol| protocol.metadata.len()).sum();
        others + own <= WRITE_BYTES_MAX
    }

    fn join_new(&mut self, join: Join, turn: &mut DecisionContext<'_>) {
        let prefix = join.request.group_instance_id.as_deref().unwrap_or(&join.client.id);
        let id: Arc<str> = turn.ids.member(prefix).into();
        if let Some(instance) = join.request.group_instance_id.as_deref() {
            return match self.statics.get(instance).cloned() {
                Some(known) => self.replace(&known, id, join, turn),
                None => self.add(id, join, turn),
            };
        }
        if join.client.version >= MEMBER_ID_REQUIRED {
            let until = turn.in_ms(join.request.session_timeout_ms);
            let mut pending = Pending::default();
            pending.session.extend(until, &self.id, &id, turn.deadlines);
            let answer = refused_join(&id, ErrorCode::MemberIdRequired);
            self.await_member(id, pending);
            turn.outcome.reply(join.to, answer);
            return;
        }
        self.add(id, join, turn);
    }

    fn join_again(&mut self, join: Join, turn: &mut DecisionContext<'_>) {
        let id: Arc<str> = join.request.member_id.as_str().into();
        if self.pending.contains_key(&id) {
            return self.add(id, join, turn);
        }
        if let Err(error) = self.check_member(&id, join.request.group_instance_id.as_deref()) {
            return join.refuse(turn, error);
        }
        let is_same = self.members.get(&id).is_some_and(|member| member.matches(&join.request));
        match self.phase {
            Phase::PreparingRebalance => self.update(&id, join, turn),
            // Probably it missed the response with the new generation.
            Phase::CompletingRebalance if is_same => {
                turn.outcome.reply(join.to, self.joined(&id, false))
            }
            // A leader may join again because the topics have changed.
            Phase::Stable if is_same && !self.is_leader(&id) => {
                let answer = JoinGroupResponse { members: Vec::new(), ..self.joined(&id, false) };
                turn.outcome.reply(join.to, answer);
            }
            Phase::CompletingRebalance | Phase::Stable => self.update(&id, join, turn),
            Phase::Empty => join.refuse(turn, ErrorCode::UnknownMemberId),
        }
    }

    fn add(&mut self, id: Arc<str>, join: Join, turn: &mut DecisionContext<'_>) {
        let known =
            self.members.values().next().map(|member| member.protocols.clone()).unwrap_or_default();
        let mut member = Member::new(Arc::clone(&id), &join.client, &join.request, &known);
        member.awaits_join = Some(join.to);
        // The session timeout of the request counts once the member knows its id.
        let until = turn.in_ms(NEW_MEMBER_MS);
        self.forget_pending(&id);
        member.session.extend(until, &self.id, &id, turn.deadlines);
        if self.is(Phase::PreparingRebalance) && self.previous == Phase::Empty {
            self.newcomer = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.request.protocol_type.as_str().into());
        }
        if let Some(instance) = &member.instance {
            self.statics.insert(Arc::clone(instance), Arc::clone(&id));
        }
        self.leader.get_or_insert_with(|| Arc::clone(&id));
        self.members.insert(member);
        self.rebalance_or_complete(turn);
    }

    fn update(&mut self, id: &Arc<str>, join: Join, turn: &mut DecisionContext<'_>) {
        self.set(id, join, turn);
        self.rebalance_or_complete(turn);
    }

    fn set(&mut self, id: &Arc<str>, join: Join, turn: &mut DecisionContext<'_>) {
        let Some(known) = self.members.get(id) else { return };
        let said = protocols(&join.request, &known.protocols);
        self.members.say(id, said);
        let Some(member) = self.members.get_mut(id) else { return };
        member.rebalance_timeout_ms = join.request.rebalance_timeout_ms;
        member.session_timeout_ms = join.request.session_timeout_ms;
        // The client has repeated its request, so the earlier one needs no answer.
        member.answer_join(turn.outcome, refused_join(id, ErrorCode::UnknownMemberId));
        member.awaits_join = Some(join.to);
    }

    /// A static member comes back under a new id (`updateStaticMemberThenRebalanceOrCompleteJoin`).
    fn replace(
        &mut self,
        old: &Arc<str>,
        new: Arc<str>,
        join: Join,
        turn: &mut DecisionContext<'_>,
    ) {
        let leader_before = self.leader.clone();
        let Some(mut member) = self.members.remove(old) else { return };
        // A request that waits under the old id is from another client with the same instance id.
        member.answer_join(turn.outcome, refused_join(old, ErrorCode::FencedInstanceId));
        member.answer_sync(turn.outcome, refused_sync(ErrorCode::FencedInstanceId));
        self.pending_sync.remove(old);
        member.id = Arc::clone(&new);
        member.session = Default::default();
        member.client_id = join.client.id.as_str().into();
        member.client_host = join.client.host.as_str().into();
        if let Some(instance) = &member.instance {
            self.statics.insert(Arc::clone(instance), Arc::clone(&new));
        }
        if self.is_leader(old) {
            self.leader = Some(Arc::clone(&new));
        }
        self.members.insert(member);
        let version = join.client.version;
        self.set(&new, join, turn);
        self.heard_of(&new, turn);
        match self.phase {
            Phase::Stable if self.protocol == self.select_protocol() && self.can_be_written() => {
                turn.outcome.records.push(self.record());
                let answer = if version >= SKIP_ASSIGNMENT {
                    self.joined(&new, self.is_leader(&new))
                } else {
                    JoinGroupResponse {
                        members: Vec::new(),
                        leader: leader_before.as_deref().unwrap_or_default().to_owned(),
                        ..self.joined(&new, false)
                    }
                };
                if let Some(member) = self.members.get_mut(&new) {
                    member.is_new = false;
                    member.answer_join(turn.outcome, answer);
                }
            }
            // The leader may have received the member's old id already.
            Phase::CompletingRebalance | Phase::Stable => self.prepare_rebalance(turn),
            Phase::PreparingRebalance | Phase::Empty => self.complete_if_all_joined(turn),
        }
    }

    /// The response for a member of this generation. The leader also gets all members.
    pub(super) fn joined(&self, id: &str, skip_assignment: bool) -> JoinGroupResponse {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let member = |member: &Member| JoinGroupResponseMember {
            member_id: member.id.to_string(),
            group_instance_id: member.instance.as_deref().map(str::to_owned),
            metadata: member.metadata(protocol),
        };
        let members = match self.is_leader(id) {
            true => self.members.values().map(member).collect(),
            false => Vec::new(),
        };
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.as_deref().map(str::to_owned),
            protocol_name: Some(protocol.to_owned()),
            leader: self.leader.as_deref().unwrap_or_default().to_owned(),
            skip_assignment,
            member_id: id.to_owned(),
            members,
            ..Default::default()
        }
    }
}
