//! PURE: the course of a rebalance: the start and end of its join phase, and the removal of members
//! that do not join (`GroupMetadataManager.prepareRebalance` and its successors).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_protocol::error::ErrorCode;

use super::answers::{assigned, refused_sync};
use super::{ClassicGroup, Initial, Phase};
use crate::group::deadlines::{Due, SessionIs};
use crate::group::decision::DecisionContext;

impl ClassicGroup {
    /// Called when a member has joined, changed or left: starts a rebalance, or completes the
    /// present one.
    pub(super) fn rebalance_or_complete(&mut self, turn: &mut DecisionContext<'_>) {
        match self.phase {
            Phase::Empty | Phase::CompletingRebalance | Phase::Stable => {
                self.prepare_rebalance(turn)
            }
            Phase::PreparingRebalance => self.complete_if_all_joined(turn),
        }
    }

    pub(super) fn prepare_rebalance(&mut self, turn: &mut DecisionContext<'_>) {
        if self.is(Phase::CompletingRebalance) {
            // Members that wait for their assignment have to join again.
            self.members.unassign();
            self.answer_syncs(ErrorCode::RebalanceInProgress, turn);
        }
        self.sync_ends = None;
        let is_initial = self.is(Phase::Empty);
        self.enter(Phase::PreparingRebalance, turn);
        if is_initial {
            let delay_ms = turn.settings.initial_rebalance_delay_ms;
            let total = u64::try_from(self.rebalance_timeout_ms()).unwrap_or(0);
            let remaining_ms = total.saturating_sub(delay_ms);
            return self.end_join_in(delay_ms, Some(Initial { delay_ms, remaining_ms }), turn);
        }
        if self.all_have_joined() {
            self.complete_join(turn);
        } else {
            self.end_join_in(u64::try_from(self.rebalance_timeout_ms()).unwrap_or(0), None, turn);
        }
    }

    fn end_join_in(&mut self, ms: u64, initial: Option<Initial>, turn: &mut DecisionContext<'_>) {
        let at = turn.now.ms + ms;
        self.join_ends = Some((at, initial));
        turn.deadlines.add(at, Due::Join(Arc::clone(&self.id)));
    }

    fn all_have_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.awaits_join.is_some())
    }

    pub(super) fn complete_if_all_joined(&mut self, turn: &mut DecisionContext<'_>) {
        if self.is(Phase::PreparingRebalance)
            && self.previous != Phase::Empty
            && self.all_have_joined()
        {
            self.complete_join(turn);
        }
    }

    /// The join phase has reached its deadline.
    pub(in crate::group) fn join_due(&mut self, at: u64, turn: &mut DecisionContext<'_>) {
        let Some((ends, initial)) = self.join_ends.filter(|(ends, _)| *ends == at) else {
            return;
        };
        debug_assert_eq!(ends, at);
        self.join_ends = None;
        if !self.is(Phase::PreparingRebalance) {
            return;
        }
        if let Some(Initial { delay_ms, remaining_ms }) = initial
            && self.newcomer
            && remaining_ms != 0
        {
            self.newcomer = false;
            let next = Initial {
                delay_ms: turn.settings.initial_rebalance_delay_ms.min(remaining_ms),
                remaining_ms: remaining_ms.saturating_sub(delay_ms),
            };
            return self.end_join_in(next.delay_ms, Some(next), turn);
        }
        self.complete_join(turn);
    }

    /// Ends the join phase. Removes dynamic members that have not joined; the others form the next
    /// generation.
    fn complete_join(&mut self, turn: &mut DecisionContext<'_>) {
        self.join_ends = None;
        let absent: Vec<_> = self
            .members
            .values()
            .filter(|member| member.awaits_join.is_none() && member.instance.is_none())
            .map(|member| Arc::clone(&member.id))
            .collect();
        for id in &absent {
            self.remove(id, turn);
        }
        if !self.elect() && !self.members.is_empty() {
            // Only static members, of which none has joined; their sessions will expire.
            let ms = u64::try_from(self.rebalance_timeout_ms()).unwrap_or(0);
            return self.end_join_in(ms, None, turn);
        }
        self.generation = self.generation.checked_add(1).unwrap_or(0);
        self.pending_sync.clear();
        self.newcomer = false;
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.subscribed = self.is_of_consumers().then(BTreeSet::new);
            self.enter(Phase::Empty, turn);
            turn.outcome.records.push(self.record());
            return;
        }
        self.protocol = self.select_protocol();
        self.subscribed = self.subscriptions();
        self.enter(Phase::CompletingRebalance, turn);
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.joined(&id, false);
            if let Some(member) = self.members.get_mut(&id) {
                member.answer_join(turn.outcome, answer);
                member.is_new = false;
            }
            self.heard_of(&id, turn);
            self.pending_sync.insert(id);
        }
        let at = turn.now.ms + u64::try_from(self.rebalance_timeout_ms()).unwrap_or(0);
        self.sync_ends = Some(at);
        turn.deadlines.add(at, Due::Sync(Arc::clone(&self.id)));
    }

    /// Whether the leader has joined; elects another member if it has not
    /// (`maybeElectNewJoinedLeader`).
    fn elect(&mut self) -> bool {
        let Some(leader) = self.leader.as_ref().and_then(|leader| self.members.get(leader)) else {
            self.leader = self.first_joined();
            return self.leader.is_some();
        };
        if leader.awaits_join.is_some() {
            return true;
        }
        match self.first_joined() {
            Some(id) => {
                self.leader = Some(id);
                true
            }
            None => false,
        }
    }

    fn first_joined(&self) -> Option<Arc<str>> {
        let joined = self.members.values().find(|member| member.awaits_join.is_some());
        joined.map(|member| Arc::clone(&member.id))
    }

    /// The deadline for SyncGroup: removes members that have not sent one (KAFKA-12890).
    pub(in crate::group) fn sync_due(&mut self, at: u64, turn: &mut DecisionContext<'_>) {
        if self.sync_ends != Some(at) {
            return;
        }
        self.sync_ends = None;
        if !matches!(self.phase, Phase::CompletingRebalance | Phase::Stable)
            || self.pending_sync.is_empty()
        {
            return;
        }
        for id in std::mem::take(&mut self.pending_sync) {
            self.remove(&id, turn);
        }
        self.prepare_rebalance(turn);
    }

    /// Handles a session timer.
    pub(in crate::group) fn session_due(
        &mut self,
        member: &Arc<str>,
        at: u64,
        turn: &mut DecisionContext<'_>,
    ) {
        if let Some(pending) = self.pending.get_mut(member) {
            if pending.session.due(at, &self.id, member, turn.deadlines) == SessionIs::Over {
                self.forget_pending(member);
                self.complete_if_all_joined(turn);
            }
            return;
        }
        let Some(found) = self.members.get_mut(member) else { return };
        if found.session.due(at, &self.id, member, turn.deadlines) == SessionIs::Alive
            || found.is_waiting()
        {
            return;
        }
        self.remove(member, turn);
        self.left(turn);
    }

    /// Called after a member has left.
    pub(super) fn left(&mut self, turn: &mut DecisionContext<'_>) {
        match self.phase {
            Phase::Empty => {}
            Phase::Stable | Phase::CompletingRebalance => self.prepare_rebalance(turn),
            Phase::PreparingRebalance => self.complete_if_all_joined(turn),
        }
    }

    /// Answers all members that wait for an assignment: with it, or with an error.
    pub(super) fn answer_syncs(&mut self, error: ErrorCode, turn: &mut DecisionContext<'_>) {
        let mut synced = Vec::new();
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        for member in self.members.values_mut() {
            let answer = match error {
                ErrorCode::None => {
                    assigned(&member.assignment, protocol_type.as_deref(), protocol.as_deref())
                }
                error => refused_sync(error),
            };
            if member.answer_sync(turn.outcome, answer) {
                synced.push(Arc::clone(&member.id));
            }
        }
        for id in synced {
            self.heard_of(&id, turn);
        }
    }
}
