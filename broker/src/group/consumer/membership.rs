//! PURE: membership: members that join, come back, replace a static member, leave, or let their
//! sessions expire.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::assignor::Partitions;
use super::heartbeat::{Refusal, refuse};
use super::reconcile::{Current, State, common};
use super::{ConsumerGroup, Downgrade, LEFT_FOR_A_WHILE, Member};
use crate::group::deadlines::{Due, SessionIs};
use crate::group::decision::DecisionContext;

impl ConsumerGroup {
    /// Checks that the member may continue; returns whether it is new.
    pub(super) fn admit(
        &mut self,
        id: &Arc<str>,
        request: &ConsumerGroupHeartbeatRequest,
        owned: Option<&Partitions>,
        turn: &mut DecisionContext<'_>,
    ) -> Result<bool, Refusal> {
        let joins = request.member_epoch == 0;
        if let Some(instance) = request.instance_id.as_deref() {
            match (self.statics.get(instance).cloned(), joins) {
                (None, true) => {}
                (None, false) => {
                    return refuse(
                        ErrorCode::UnknownMemberId,
                        format!("Instance id {instance} is unknown."),
                    );
                }
                (Some(known), true) if known != *id => {
                    return self.replace(&known, id, turn).map(|()| false);
                }
                (Some(known), false) if known != *id => {
                    return refuse(
                        ErrorCode::FencedInstanceId,
                        format!(
                            "Static member {id} with instance id {instance} was fenced by member {known}."
                        ),
                    );
                }
                (Some(_), _) => {}
            }
        }
        let Some(member) = self.members.get(id) else {
            return match joins {
                true => Ok(true),
                false => refuse(
                    ErrorCode::UnknownMemberId,
                    format!("Member {id} is not a member of group {}.", self.id),
                ),
            };
        };
        let (asked, known) = (request.member_epoch, &member.current);
        if joins || asked == known.epoch {
            return Ok(false);
        }
        if asked > known.epoch {
            let message = format!(
                "The consumer group member has a greater member epoch ({asked}) than the one known by the group coordinator ({}). The member must abandon all its partitions and rejoin.",
                known.epoch
            );
            return refuse(ErrorCode::FencedMemberEpoch, message);
        }
        // The response with the newer epoch may be lost. Then the member owns no more than its
        // assigned partitions.
        let has_no_more = owned.is_some_and(|owned| common(owned, &known.assigned) == *owned);
        if asked == known.previous_epoch && has_no_more {
            return Ok(false);
        }
        let message = format!(
            "The consumer group member has a smaller member epoch ({asked}) than the one known by the group coordinator ({}). The member must abandon all its partitions and rejoin.",
            known.epoch
        );
        refuse(ErrorCode::FencedMemberEpoch, message)
    }

    /// A static member comes back under another id. If the old member speaks the consumer protocol,
    /// it must have left first.
    fn replace(
        &mut self,
        old: &Arc<str>,
        new: &Arc<str>,
        turn: &mut DecisionContext<'_>,
    ) -> Result<(), Refusal> {
        let Some(known) = self.members.get(old) else { return Ok(()) };
        if known.current.epoch != LEFT_FOR_A_WHILE && known.classic.is_none() {
            let message = format!(
                "Static member {new} with instance id {} cannot join while the older one has not left.",
                known.instance.as_deref().unwrap_or_default()
            );
            return refuse(ErrorCode::UnreleasedInstanceId, message);
        }
        self.take_over(old, new, turn);
        Ok(())
    }

    /// Gives a new member the state of the old one with the same instance id.
    pub(super) fn take_over(
        &mut self,
        old: &Arc<str>,
        new: &Arc<str>,
        turn: &mut DecisionContext<'_>,
    ) {
        let Some(known) = self.members.get(old).cloned() else { return };
        let target = self.target_of(old);
        self.remove(old, turn.outcome);
        let current = Current { epoch: 0, previous_epoch: 0, ..known.current.clone() };
        self.set_member(
            Member {
                id: Arc::clone(new),
                current: Current::default(),
                session: Default::default(),
                due: Default::default(),
                ..known
            },
            turn.outcome,
        );
        self.set_target(new, target, turn.outcome);
        self.set_current(new, current, turn.outcome);
    }

    pub(super) fn leave(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
        turn: &mut DecisionContext<'_>,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let id = match request.instance_id.as_deref() {
            None => Arc::<str>::from(request.member_id.as_str()),
            Some(instance) => match self.statics.get(instance).cloned() {
                None => {
                    return refuse(
                        ErrorCode::UnknownMemberId,
                        format!("Instance id {instance} is unknown."),
                    );
                }
                Some(known) if *known != *request.member_id => {
                    return refuse(
                        ErrorCode::FencedInstanceId,
                        format!("Instance id {instance} belongs to member {known}."),
                    );
                }
                Some(known) => known,
            },
        };
        let Some(member) = self.members.get(&id) else {
            return refuse(
                ErrorCode::UnknownMemberId,
                format!("Member {id} is not a member of group {}.", self.id),
            );
        };
        if request.member_epoch == LEFT_FOR_A_WHILE {
            // It keeps its partitions until its session expires.
            let current = member.current.left_for_a_while(LEFT_FOR_A_WHILE);
            self.set_current(&id, current, turn.outcome);
        } else {
            self.fence(&id, turn);
        }
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: Some(id.to_string()),
            member_epoch: request.member_epoch,
            ..Default::default()
        })
    }

    fn fence(&mut self, id: &Arc<str>, turn: &mut DecisionContext<'_>) {
        self.fence_all(&BTreeSet::from([Arc::clone(id)]), turn);
    }

    /// Removes members. The others get the partitions with their next heartbeats. If only members
    /// of the classic protocol remain, the group becomes a classic one
    /// (`consumerGroupFenceMembers`).
    pub(super) fn fence_all(&mut self, ids: &BTreeSet<Arc<str>>, turn: &mut DecisionContext<'_>) {
        if ids.is_empty() {
            return;
        }
        for id in ids {
            self.remove(id, turn.outcome);
        }
        if self.may_be_classic(turn.settings) {
            self.downgrade = Some(Downgrade::Rebalancing);
            return;
        }
        self.look_at_topics(true, turn);
        self.bump(turn);
    }

    /// Sets the deadline for a member that must revoke partitions. Members of the classic protocol
    /// have other deadlines.
    pub(super) fn expect_revocation(&mut self, id: &Arc<str>, turn: &mut DecisionContext<'_>) {
        let Some(member) = self.members.get_mut(id) else { return };
        if member.current.state != State::Unrevoked || member.classic.is_some() {
            member.due.revocation = None;
            return;
        }
        if member.due.revocation.is_some() {
            return;
        }
        let at = turn.in_ms(member.rebalance_timeout_ms);
        member.due.revocation = Some(at);
        turn.deadlines.add(at, Due::Rebalance(Arc::clone(&self.id), Arc::clone(id)));
    }

    /// Removes a member that did not finish its part of a rebalance in time.
    pub(in crate::group) fn rebalance_due(
        &mut self,
        id: &Arc<str>,
        at: u64,
        turn: &mut DecisionContext<'_>,
    ) {
        let Some(member) = self.members.get_mut(id) else { return };
        let due = Due::Rebalance(Arc::clone(&self.id), Arc::clone(id));
        let has_not_joined = member.due.join.is_up(at, &due, turn.deadlines);
        let has_not_synced = member.due.sync.is_up(at, &due, turn.deadlines);
        let keeps = member.due.revocation == Some(at);
        if has_not_joined || has_not_synced || keeps {
            self.fence(id, turn);
        }
    }

    pub(in crate::group) fn session_due(
        &mut self,
        id: &Arc<str>,
        at: u64,
        turn: &mut DecisionContext<'_>,
    ) {
        let Some(member) = self.members.get_mut(id) else { return };
        if member.session.due(at, &self.id, id, turn.deadlines) == SessionIs::Over {
            self.fence(id, turn);
        }
    }
}
