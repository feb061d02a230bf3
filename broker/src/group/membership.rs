//! PURE: requests of members in either protocol to a group in either protocol, and groups that
//! change their protocol (KIP-848, "Online migration").
//!
//! A group without members adopts the protocol of its next member. A classic group with members
//! becomes a consumer group when a member of the consumer protocol joins. It becomes classic again
//! when the last such member has left. `group.consumer.migration.policy` may forbid either.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use tracing::info;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::leave_group_request::MemberIdentity;
use weir_protocol::messages::leave_group_response::MemberResponse;
use weir_protocol::messages::{
    HeartbeatRequest, LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};

use super::classic::{ClassicGroup, Phase};
use super::consumer::{self, ConsumerGroup, Refusal, WhyNot, refuse};
use super::{ConsumerHeartbeat, DecisionContext, Group, Groups, Join, Kind, record, refused_sync};
use crate::coordinator::{Now, Outcome, ReplyTo};

impl Group {
    /// Turns a consumer group without members into a classic one.
    fn make_classic(&mut self, outcome: &mut Outcome) {
        if let Kind::Consumer(consumers) = &self.kind
            && consumers.is_empty()
        {
            consumers.tombstones(outcome);
            self.kind = Kind::Classic(Box::new(ClassicGroup::new(Arc::clone(&self.id))));
        }
    }

    /// Turns the group into a consumer group, for the member that sent this heartbeat. The caller
    /// has made all checks of the heartbeat.
    ///
    /// # Errors
    /// Why the group cannot be converted; it then stays unchanged.
    fn make_consumer(
        &mut self,
        heartbeat: &ConsumerHeartbeat,
        turn: &mut DecisionContext<'_>,
    ) -> Result<(), Refusal> {
        let Kind::Classic(classic) = &mut self.kind else { return Ok(()) };
        let consumers = if classic.is(Phase::Empty) {
            if classic.phase_since_ms.is_some() {
                turn.outcome.records.push(record::group(&self.id, None));
            }
            ConsumerGroup::new(Arc::clone(&self.id))
        } else {
            let consumers = upgraded(classic, turn)?;
            consumers.check_room(&heartbeat.request.member_id, turn.settings)?;
            classic.send_away(turn);
            turn.outcome.records.push(record::group(&self.id, None));
            consumers.records(turn);
            info!(group = %self.id, members = classic.members.len(), "a classic group goes on in the consumer protocol");
            consumers
        };
        self.kind = Kind::Consumer(Box::new(consumers));
        if let Kind::Consumer(consumers) = &mut self.kind {
            consumers.loaded(turn);
        }
        Ok(())
    }

    /// Carries out a change of protocol that was decided during another request.
    fn convert_if_decided(&mut self, turn: &mut DecisionContext<'_>) {
        if let Kind::Consumer(consumers) = &mut self.kind
            && let Some(how) = consumers.take_downgrade()
        {
            let classic = consumers.convert(how, turn);
            info!(group = %self.id, members = classic.members.len(), "a group of the consumer protocol goes on in the classic one");
            self.kind = Kind::Classic(Box::new(classic));
        }
    }
}

/// The consumer group from a classic group with members (`validateOnlineUpgrade` and
/// `convertToConsumerGroup`).
fn upgraded(classic: &ClassicGroup, turn: &DecisionContext<'_>) -> Result<ConsumerGroup, Refusal> {
    let because = |why: &str| {
        let message =
            format!("Cannot upgrade classic group {} to consumer group because {why}", classic.id);
        refuse(ErrorCode::GroupIdNotFound, message)
    };
    if !turn.settings.migration.upgrades() {
        return because("online upgrade is disabled.");
    }
    if !classic.is_of_consumers() {
        return because("the group does not use the consumer embedded protocol.");
    }
    if classic.members.len() > turn.settings.consumer_group_size_max {
        return because("the group size exceeds the consumer group maximum size.");
    }
    ConsumerGroup::of_classic(classic, turn.image).or_else(|why| match why {
        WhyNot::Malformed => because("the embedded consumer protocol is malformed."),
        WhyNot::CustomAssignor => because(
            "an unsupported custom assignor is in use. Please refer to the documentation or switch to a default assignor before re-attempting the upgrade.",
        ),
    })
}

impl Groups {
    /// Runs `act` with a classic group.
    pub(super) fn with_classic<R>(
        &mut self,
        id: &str,
        now: Now,
        outcome: &mut Outcome,
        act: impl FnOnce(&mut ClassicGroup, &mut DecisionContext<'_>) -> R,
    ) -> Result<R, ErrorCode> {
        let group = self.groups.get_mut(id).ok_or(ErrorCode::GroupIdNotFound)?;
        let Kind::Classic(classic) = &mut group.kind else {
            return Err(ErrorCode::GroupIdNotFound);
        };
        let result = act(classic, &mut self.around.turn(now, outcome));
        group.count();
        self.forget_if_void(id);
        Ok(result)
    }

    /// Runs `act` with a consumer group, which may become a classic one by it.
    pub(super) fn with_consumers<R>(
        &mut self,
        id: &str,
        now: Now,
        outcome: &mut Outcome,
        act: impl FnOnce(&mut ConsumerGroup, &mut DecisionContext<'_>) -> R,
    ) -> Result<R, ErrorCode> {
        let group = self.groups.get_mut(id).ok_or(ErrorCode::GroupIdNotFound)?;
        let Kind::Consumer(consumers) = &mut group.kind else {
            return Err(ErrorCode::GroupIdNotFound);
        };
        let turn = &mut self.around.turn(now, outcome);
        let result = act(consumers, turn);
        group.convert_if_decided(turn);
        group.count();
        Ok(result)
    }

    fn is_of_consumer_protocol(&self, id: &str) -> bool {
        matches!(self.groups.get(id).map(|group| &group.kind), Some(Kind::Consumer(_)))
    }

    pub(super) fn consumer_heartbeat(
        &mut self,
        heartbeat: ConsumerHeartbeat,
        now: Now,
        outcome: &mut Outcome,
    ) {
        let id = heartbeat.request.group_id.clone();
        let checked = heartbeat.check().and_then(|()| self.check_room_for(&heartbeat, now));
        let checked = checked.and_then(|()| match heartbeat.request.member_epoch {
            0 => self.get_or_upgrade(&heartbeat, now, outcome),
            _ => Ok(()),
        });
        let result = checked.and_then(|()| {
            let result = self
                .with_consumers(&id, now, outcome, |group, turn| group.heartbeat(&heartbeat, turn));
            result.unwrap_or_else(|error| refuse(error, format!("Group {id} not found.")))
        });
        outcome.reply(heartbeat.to, result.unwrap_or_else(consumer::Refusal::answer));
    }

    fn get_or_upgrade(
        &mut self,
        heartbeat: &ConsumerHeartbeat,
        now: Now,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        let id = &heartbeat.request.group_id;
        if let Err(error) = self.get_or_make(id) {
            return refuse(error, "There are too many groups.");
        }
        match self.groups.get_mut(&**id) {
            Some(group) => group.make_consumer(heartbeat, &mut self.around.turn(now, outcome)),
            None => Ok(()),
        }
    }

    pub(super) fn join(&mut self, join: Join, now: Now, outcome: &mut Outcome) {
        let id = join.request.group_id.clone();
        let mut turn = self.around.turn(now, outcome);
        let timeout = join.request.session_timeout_ms;
        if timeout < turn.settings.session_timeout_ms_min
            || timeout > turn.settings.session_timeout_ms_max
        {
            return join.refuse(&mut turn, ErrorCode::InvalidSessionTimeout);
        }
        if !join.request.member_id.is_empty() && !self.groups.contains_key(&*id) {
            return join.refuse(&mut turn, ErrorCode::UnknownMemberId);
        }
        if !self.has_room_for_join(&join, now) {
            let turn = &mut self.around.turn(now, outcome);
            return join.refuse(turn, ErrorCode::CoordinatorNotAvailable);
        }
        match self.get_or_make(&id) {
            Ok(group) => group.make_classic(outcome),
            Err(error) => return join.refuse(&mut self.around.turn(now, outcome), error),
        }
        // The group exists, because it was just created.
        let _ = if self.is_of_consumer_protocol(&id) {
            self.with_consumers(&id, now, outcome, |group, turn| group.join_classic(join, turn))
        } else {
            self.with_classic(&id, now, outcome, |group, turn| group.join(join, turn))
        };
    }

    pub(super) fn sync(
        &mut self,
        request: SyncGroupRequest,
        to: ReplyTo<SyncGroupResponse>,
        now: Now,
        outcome: &mut Outcome,
    ) {
        let id = request.group_id.clone();
        if self.is_of_consumer_protocol(&id) {
            let answer = self.with_consumers(&id, now, outcome, |group, turn| {
                group.sync_classic(&request, turn)
            });
            let answer = answer.unwrap_or(Err(ErrorCode::UnknownMemberId));
            outcome.reply(to, answer.unwrap_or_else(refused_sync));
        } else if self.groups.contains_key(&*id) {
            let _ =
                self.with_classic(&id, now, outcome, |group, turn| group.sync(request, to, turn));
        } else {
            outcome.reply(to, refused_sync(ErrorCode::UnknownMemberId));
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        now: Now,
        outcome: &mut Outcome,
    ) -> ErrorCode {
        let id = &request.group_id;
        let answer = if self.is_of_consumer_protocol(id) {
            self.with_consumers(id, now, outcome, |group, turn| {
                group.heartbeat_classic(request, turn)
            })
        } else {
            self.with_classic(id, now, outcome, |group, turn| group.heartbeat(request, turn))
        };
        answer.unwrap_or(ErrorCode::UnknownMemberId)
    }

    pub(super) fn leave(
        &mut self,
        id: &str,
        members: Vec<MemberIdentity>,
        now: Now,
        outcome: &mut Outcome,
    ) -> LeaveGroupResponse {
        let members = if self.is_of_consumer_protocol(id) {
            self.with_consumers(id, now, outcome, |group, turn| group.leave_classic(members, turn))
        } else if self.groups.contains_key(id) {
            self.with_classic(id, now, outcome, |group, turn| group.leave(members, turn))
        } else {
            // An unknown group has no members.
            let unknown = |identity: MemberIdentity| MemberResponse {
                member_id: identity.member_id,
                group_instance_id: identity.group_instance_id,
                error_code: ErrorCode::UnknownMemberId.code(),
            };
            Ok(members.into_iter().map(unknown).collect())
        };
        LeaveGroupResponse {
            error_code: members.as_ref().err().map_or(0, |error| error.code()),
            members: members.unwrap_or_default(),
            ..Default::default()
        }
    }
}
