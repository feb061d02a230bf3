//! PURE: LeaveGroup, by members themselves, and by administrators for static members
//! (`GroupMetadataManager.classicGroupLeaveToClassicGroup` in Apache Kafka).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::leave_group_request::MemberIdentity;
use weir_protocol::messages::leave_group_response::MemberResponse;

use super::ClassicGroup;
use crate::group::decision::DecisionContext;

impl ClassicGroup {
    pub(in crate::group) fn leave(
        &mut self,
        members: Vec<MemberIdentity>,
        turn: &mut DecisionContext<'_>,
    ) -> Vec<MemberResponse> {
        let mut answers = Vec::with_capacity(members.len());
        for identity in members {
            let error = self.leave_one(&identity, turn).err().unwrap_or(ErrorCode::None);
            answers.push(MemberResponse {
                member_id: identity.member_id,
                group_instance_id: identity.group_instance_id,
                error_code: error.code(),
            });
        }
        if answers.iter().any(|answer| answer.error_code == 0) {
            self.left(turn);
        }
        answers
    }

    fn leave_one(
        &mut self,
        identity: &MemberIdentity,
        turn: &mut DecisionContext<'_>,
    ) -> Result<(), ErrorCode> {
        let instance = identity.group_instance_id.as_deref();
        if identity.member_id.is_empty() {
            // An administrator knows the instance id, not its current member id.
            let known = instance.and_then(|instance| self.statics.get(instance)).cloned();
            let id = known.ok_or(ErrorCode::UnknownMemberId)?;
            self.remove(&id, turn);
            return Ok(());
        }
        if !self.pending.contains_key(identity.member_id.as_str()) {
            self.check_member(&identity.member_id, instance)?;
        }
        self.remove(&identity.member_id, turn);
        Ok(())
    }
}
