//! PURE: SyncGroup and Heartbeat (`GroupMetadataManager.classicGroupSync` and
//! `classicGroupHeartbeat` in Apache Kafka).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{HeartbeatRequest, SyncGroupRequest, SyncGroupResponse};

use super::answers::{assigned, refused_sync};
use super::{ClassicGroup, Phase};
use crate::coordinator::ReplyTo;
use crate::group::decision::DecisionContext;

impl ClassicGroup {
    pub(in crate::group) fn sync(
        &mut self,
        request: SyncGroupRequest,
        to: ReplyTo<SyncGroupResponse>,
        turn: &mut DecisionContext<'_>,
    ) {
        if let Err(error) = self.check_sync(&request) {
            return turn.outcome.reply(to, refused_sync(error));
        }
        let id = request.member_id.as_str();
        match self.phase {
            Phase::Empty => turn.outcome.reply(to, refused_sync(ErrorCode::UnknownMemberId)),
            Phase::PreparingRebalance => {
                turn.outcome.reply(to, refused_sync(ErrorCode::RebalanceInProgress))
            }
            Phase::CompletingRebalance => {
                self.synced(id);
                if let Some(member) = self.members.get_mut(id) {
                    // The member has repeated its request, so the earlier one needs no answer.
                    member.answer_sync(turn.outcome, refused_sync(ErrorCode::RebalanceInProgress));
                    member.awaits_sync = Some(to);
                }
                if self.is_leader(id) {
                    self.assign(request, turn);
                }
            }
            Phase::Stable => {
                self.synced(id);
                let assignment = self
                    .members
                    .get(id)
                    .map(|member| member.assignment.clone())
                    .unwrap_or_default();
                let answer =
                    assigned(&assignment, self.protocol_type.as_deref(), self.protocol.as_deref());
                turn.outcome.reply(to, answer);
                self.heard_of(id, turn);
            }
        }
    }

    fn check_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |asked: Option<&str>, own: Option<&str>| matches!((asked, own), (Some(asked), Some(own)) if asked != own);
        if differs(request.protocol_type.as_deref(), self.protocol_type.as_deref())
            || differs(request.protocol_name.as_deref(), self.protocol.as_deref())
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn synced(&mut self, id: &str) {
        self.pending_sync.remove(id);
        if self.pending_sync.is_empty() {
            self.sync_ends = None;
        }
    }

    /// Applies the leader's assignment; a member without an entry gets an empty one. An assignment
    /// that exceeds the group's record or the free memory is refused to all members, and they join
    /// again (`GroupMetadataManager.appendGroupMetadataErrorToResponseError`).
    fn assign(&mut self, request: SyncGroupRequest, turn: &mut DecisionContext<'_>) {
        let before: usize = self.members.values().map(|member| member.assignment.len()).sum();
        let asked: usize = request.assignments.iter().map(|one| one.assignment.len()).sum();
        let has_room = turn.memory.has_room_for(asked.saturating_sub(before), turn.now);
        self.members.unassign();
        for one in request.assignments.iter().filter(|_| has_room) {
            self.members.assign(&one.member_id, Bytes::copy_from_slice(&one.assignment));
        }
        if !has_room || !self.can_be_written() {
            self.members.unassign();
            let error = match has_room {
                true => ErrorCode::UnknownServerError,
                false => ErrorCode::CoordinatorNotAvailable,
            };
            self.answer_syncs(error, turn);
            return self.prepare_rebalance(turn);
        }
        self.enter(Phase::Stable, turn);
        turn.outcome.records.push(self.record());
        self.answer_syncs(ErrorCode::None, turn);
    }

    pub(in crate::group) fn heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        turn: &mut DecisionContext<'_>,
    ) -> ErrorCode {
        if let Err(error) =
            self.check_member(&request.member_id, request.group_instance_id.as_deref())
        {
            return error;
        }
        if request.generation_id != self.generation {
            return ErrorCode::IllegalGeneration;
        }
        match self.phase {
            Phase::Empty => ErrorCode::UnknownMemberId,
            Phase::PreparingRebalance => {
                self.heard_of(&request.member_id, turn);
                ErrorCode::RebalanceInProgress
            }
            Phase::CompletingRebalance | Phase::Stable => {
                self.heard_of(&request.member_id, turn);
                ErrorCode::None
            }
        }
    }
}
