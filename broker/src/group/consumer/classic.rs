//! PURE: members of the classic protocol in a group of the consumer protocol (KIP-848, "Online
//! migration"; `classicGroupJoinToConsumerGroup` and its siblings in Apache Kafka).
//!
//! Their generation is their member epoch. JoinGroup carries the partitions that they own, and the
//! response to SyncGroup their assignment. When that must change, a heartbeat asks them to join
//! again: to revoke partitions, or because partitions have become free. None of them leads.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::leave_group_request::MemberIdentity;
use weir_protocol::messages::leave_group_response::MemberResponse;
use weir_protocol::messages::{
    ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};

use super::member::Classic;
use super::reconcile::{State, pairs};
use super::{ConsumerGroup, Downgrade, Member};
use crate::group::classic::{Join, MEMBER_ID_REQUIRED, assigned, refused_join};
use crate::group::client::Client;
use crate::group::deadlines::Due;
use crate::group::decision::DecisionContext;
use crate::group::embedded::{self, CONSUMER};

/// The result of a JoinGroup.
type Joined = Result<JoinGroupResponse, (String, ErrorCode)>;

impl ConsumerGroup {
    /// Handles a JoinGroup whose session timeout was checked.
    pub(in crate::group) fn join_classic(&mut self, join: Join, turn: &mut DecisionContext<'_>) {
        let Join { client, request, to } = join;
        let answer = self.joined(&client, &request, turn);
        turn.outcome
            .reply(to, answer.unwrap_or_else(|(member, error)| refused_join(&member, error)));
    }

    fn joined(
        &mut self,
        client: &Client,
        request: &JoinGroupRequest,
        turn: &mut DecisionContext<'_>,
    ) -> Joined {
        let is_first = request.member_id.is_empty();
        let id: Arc<str> = match request.member_id.as_str() {
            "" => turn.ids.uuid().to_string().into(),
            id => id.into(),
        };
        let refuse = |error: ErrorCode| (request.member_id.clone(), error);
        self.check_room(&id, turn.settings).map_err(|refusal| refuse(refusal.error))?;
        if !self.supports(request) {
            return Err(refuse(ErrorCode::InconsistentGroupProtocol));
        }
        let instance = request.group_instance_id.as_deref();
        if is_first && instance.is_none() && client.version >= MEMBER_ID_REQUIRED {
            return Err((id.to_string(), ErrorCode::MemberIdRequired));
        }
        let known = instance.and_then(|instance| self.statics.get(instance)).cloned();
        match &known {
            None if instance.is_some() && !is_first => {
                return Err(refuse(ErrorCode::UnknownMemberId));
            }
            Some(known) if !is_first && *known != id => {
                return Err(refuse(ErrorCode::FencedInstanceId));
            }
            _ => {}
        }
        // All protocols of a consumer carry the same subscription.
        let subscription =
            request.protocols.first().and_then(|first| embedded::subscription(&first.metadata));
        // Kafka calls an unreadable subscription an illegal state.
        let subscription = subscription.ok_or_else(|| refuse(ErrorCode::UnknownServerError))?;
        let was_mixed = known.as_ref().is_some_and(|known| !self.is_classic(known));
        if let Some(known) = known.filter(|known| *known != id) {
            self.take_over(&known, &id, turn);
        }
        let subscribes_anew = self.subscribe(&id, client, request, &subscription, turn);
        let downgrades = was_mixed && self.may_be_classic(turn.settings);
        if !downgrades {
            self.assign_anew(turn);
        }
        // If the group becomes a classic one, and its target assignment is outdated, its leader
        // assigns anew.
        let rebalances = downgrades && self.target_epoch < self.epoch;
        if !rebalances {
            let owned = embedded::owned(&subscription, turn.image);
            self.reconcile(&id, Some(&owned), subscribes_anew, turn);
        }
        if downgrades {
            self.downgrade =
                Some(if rebalances { Downgrade::Rebalancing } else { Downgrade::Stable });
        } else {
            self.heard_of(&id, turn);
            self.expect_sync(&id, request.rebalance_timeout_ms, turn);
        }
        let member = self.members.get(&id);
        Ok(JoinGroupResponse {
            member_id: id.to_string(),
            generation_id: member.map_or(-1, |member| member.current.epoch),
            protocol_type: Some(CONSUMER.to_owned()),
            protocol_name: Some(
                request.protocols.first().map(|first| first.name.clone()).unwrap_or_default(),
            ),
            ..Default::default()
        })
    }

    /// Takes up the joining member and its subscription; returns whether the subscription has
    /// changed.
    fn subscribe(
        &mut self,
        id: &Arc<str>,
        client: &Client,
        request: &JoinGroupRequest,
        subscription: &ConsumerProtocolSubscription,
        turn: &mut DecisionContext<'_>,
    ) -> bool {
        let before = self.members.get(id).cloned();
        let is_new = before.is_none();
        let before = before.unwrap_or_else(|| Member::new(Arc::clone(id)));
        let mut member = before.clone();
        member.client_id = client.id.as_str().into();
        member.client_host = client.host.as_str().into();
        if let Some(instance) = request.group_instance_id.as_deref() {
            member.instance = Some(instance.into());
        }
        if let Some(rack) = subscription.rack_id.as_deref().filter(|rack| !rack.is_empty()) {
            member.rack = Some(rack.into());
        }
        if request.rebalance_timeout_ms != -1 {
            member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        }
        member.topics = subscription.topics.iter().map(|topic| topic.as_str().into()).collect();
        // Consumers of the classic protocol resolve regular expressions themselves.
        member.regex = None;
        member.classic = Some(Classic::new(request));
        member.due.clear();
        let wants_other = member.topics != before.topics || member.regex != before.regex;
        if is_new || !member.says_the_same(&before) {
            self.set_member(member, turn.outcome);
        } else if let Some(known) = self.members.get_mut(id) {
            known.due.clear();
        }
        let topics_changed = self.look_at_topics(wants_other, turn);
        if wants_other || topics_changed {
            self.bump(turn);
        }
        wants_other
    }

    /// Whether a member with these protocols could join: every member of the classic protocol must
    /// support one of them (`ConsumerGroup.supportsClassicProtocols`).
    fn supports(&self, request: &JoinGroupRequest) -> bool {
        request.protocol_type == CONSUMER
            && request.protocols.iter().any(|protocol| self.spoken.by_all(&protocol.name))
    }

    fn is_classic(&self, id: &str) -> bool {
        self.members.get(id).is_some_and(|member| member.classic.is_some())
    }

    /// The member of the classic protocol with this id, instance id and generation.
    fn classic_member(
        &self,
        id: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(&Member, &Classic), ErrorCode> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(known) if **known != *id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        let member = self.members.get(id).ok_or(ErrorCode::UnknownMemberId)?;
        let classic = member.classic.as_ref().ok_or(ErrorCode::UnknownMemberId)?;
        member.check_epoch(generation)?;
        Ok((member, classic))
    }

    /// Handles a SyncGroup: the response has the member's assignment.
    ///
    /// # Errors
    /// The error for the member.
    pub(in crate::group) fn sync_classic(
        &mut self,
        request: &SyncGroupRequest,
        turn: &mut DecisionContext<'_>,
    ) -> Result<SyncGroupResponse, ErrorCode> {
        let (member, classic) = self.classic_member(
            &request.member_id,
            request.group_instance_id.as_deref(),
            request.generation_id,
        )?;
        let differs = |asked: Option<&str>, own: Option<&str>| asked.is_some() && asked != own;
        if differs(request.protocol_type.as_deref(), Some(CONSUMER))
            || differs(request.protocol_name.as_deref(), classic.protocol())
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let id = Arc::clone(&member.id);
        // A member that must revoke partitions has joined in this rebalance. It gets the rest, and
        // joins again on its own.
        if self.is_behind(member, turn) && member.current.state != State::Unrevoked {
            self.expect_join(&id, turn);
            return Err(ErrorCode::RebalanceInProgress);
        }
        let spoken =
            classic.protocols.first().map(|(_, metadata)| metadata.clone()).unwrap_or_default();
        let assignment = embedded::assigned(&member.current.assigned, &spoken, turn.image);
        if let Some(member) = self.members.get_mut(&id) {
            member.due.sync.clear();
        }
        self.heard_of(&id, turn);
        Ok(assigned(
            &assignment,
            request.protocol_type.as_deref(),
            request.protocol_name.as_deref(),
        ))
    }

    /// Handles a Heartbeat.
    pub(in crate::group) fn heartbeat_classic(
        &mut self,
        request: &HeartbeatRequest,
        turn: &mut DecisionContext<'_>,
    ) -> ErrorCode {
        let instance = request.group_instance_id.as_deref();
        let (id, joins_again) =
            match self.classic_member(&request.member_id, instance, request.generation_id) {
                Err(error) => return error,
                Ok((member, _)) => (Arc::clone(&member.id), self.is_to_join(member, turn)),
            };
        self.heard_of(&id, turn);
        if !joins_again {
            return ErrorCode::None;
        }
        self.expect_join(&id, turn);
        ErrorCode::RebalanceInProgress
    }

    /// Whether the member has not reached the target, or its join would compute a new one. Apache
    /// Kafka leaves that to members of the consumer protocol. A group without any would wait for
    /// one.
    fn is_behind(&self, member: &Member, turn: &DecisionContext<'_>) -> bool {
        member.current.epoch < self.target_epoch
            || (member.current.epoch < self.epoch && self.may_assign(turn))
    }

    /// Whether the member must join again, to get or to revoke partitions.
    fn is_to_join(&self, member: &Member, turn: &DecisionContext<'_>) -> bool {
        let current = &member.current;
        self.is_behind(member, turn)
            || match current.state {
                State::Stable => false,
                State::Unrevoked => true,
                State::Unreleased => {
                    let has = |(topic, partition): (uuid::Uuid, i32)| {
                        current.assigned.get(&topic).is_some_and(|own| own.contains(&partition))
                    };
                    let target = self.targets.get(&member.id);
                    let mut awaited =
                        target.into_iter().flat_map(pairs).filter(|partition| !has(*partition));
                    !awaited.any(|partition| self.owners.contains_key(&partition))
                }
            }
    }

    /// Sets the deadline for joining again, unless it is set.
    fn expect_join(&mut self, id: &Arc<str>, turn: &mut DecisionContext<'_>) {
        let Some(member) = self.members.get_mut(id) else { return };
        if !member.due.join.is_set() {
            let at = turn.in_ms(member.rebalance_timeout_ms);
            let due = Due::Rebalance(Arc::clone(&self.id), Arc::clone(id));
            member.due.join.set(at, due, turn.deadlines);
        }
    }

    /// Sets the deadline for SyncGroup after a join.
    fn expect_sync(
        &mut self,
        id: &Arc<str>,
        rebalance_timeout_ms: i32,
        turn: &mut DecisionContext<'_>,
    ) {
        let at = turn.in_ms(rebalance_timeout_ms);
        if let Some(member) = self.members.get_mut(id) {
            let due = Due::Rebalance(Arc::clone(&self.id), Arc::clone(id));
            member.due.sync.set(at, due, turn.deadlines);
        }
    }

    /// Handles a LeaveGroup of members, or of an administrator, who may name static members by
    /// instance id alone.
    pub(in crate::group) fn leave_classic(
        &mut self,
        members: Vec<MemberIdentity>,
        turn: &mut DecisionContext<'_>,
    ) -> Vec<MemberResponse> {
        let mut leaving = BTreeSet::new();
        let mut answers = Vec::with_capacity(members.len());
        for identity in members {
            let error = match self.identified(&identity) {
                Ok(id) => {
                    leaving.insert(id);
                    ErrorCode::None
                }
                Err(error) => error,
            };
            answers.push(MemberResponse {
                member_id: identity.member_id,
                group_instance_id: identity.group_instance_id,
                error_code: error.code(),
            });
        }
        self.fence_all(&leaving, turn);
        answers
    }

    fn identified(&self, identity: &MemberIdentity) -> Result<Arc<str>, ErrorCode> {
        let Some(instance) = identity.group_instance_id.as_deref() else {
            let member = self.members.get(identity.member_id.as_str());
            return member.map(|member| Arc::clone(&member.id)).ok_or(ErrorCode::UnknownMemberId);
        };
        let id = self.statics.get(instance).ok_or(ErrorCode::UnknownMemberId)?;
        match identity.member_id.as_str() {
            "" => Ok(Arc::clone(id)),
            asked if *asked == **id => Ok(Arc::clone(id)),
            _ => Err(ErrorCode::FencedInstanceId),
        }
    }
}
