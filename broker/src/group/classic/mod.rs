//! PURE: a group of the classic protocol: its members, and the phases of a rebalance
//! (`ClassicGroup` in Apache Kafka).
//!
//! Members join, and one of them becomes the leader. It gets all members and sends the assignments
//! in its SyncGroup. Each member gets its own in the response to its SyncGroup. The state in memory
//! is ahead of the group's record, which is written with each assignment, and when the group is
//! empty.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod answers;
mod join;
mod leave;
mod member;
mod members;
mod phases;
mod spoken;
mod sync;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::GroupMetadataValue;
use weir_protocol::messages::group_metadata_value::MemberMetadata;

pub(in crate::group) use self::answers::assigned;
pub(crate) use self::answers::{refused_join, refused_sync};
pub(crate) use self::join::Join;
pub(in crate::group) use self::join::MEMBER_ID_REQUIRED;
pub(in crate::group) use self::member::{Member, Protocols, protocols};
use self::members::Members;
pub(in crate::group) use self::spoken::Spoken;
use super::deadlines::Session;
use super::decision::DecisionContext;
use super::embedded::{CONSUMER, subscription};
use super::memory::MEMBER_BYTES;
use super::record;
use crate::coordinator::{Record, WRITE_BYTES_MAX};

/// Bytes of a member in its group's record besides its strings and bytes: lengths and timeouts.
const RECORD_BYTES: usize = 32;

/// The phase of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::group) enum Phase {
    /// It has no members.
    #[default]
    Empty,
    /// Members join.
    PreparingRebalance,
    /// All have joined; the group waits for the leader's assignment.
    CompletingRebalance,
    /// Each member has its assignment.
    Stable,
}

impl Phase {
    /// Kafka's name for it.
    pub(in crate::group) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A member id that was given out, whose member has not joined yet (KIP-394).
#[derive(Debug, Default)]
pub(in crate::group) struct Pending {
    session: Session,
}

/// The bytes of such an id.
fn pending_bytes(id: &str) -> usize {
    MEMBER_BYTES + id.len()
}

/// The join phase of a group that was empty. It is extended while new members join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Initial {
    delay_ms: u64,
    /// The time by which it may still be extended.
    remaining_ms: u64,
}

/// A classic group.
#[derive(Debug)]
pub(in crate::group) struct ClassicGroup {
    pub(in crate::group) id: Arc<str>,
    pub(in crate::group) phase: Phase,
    /// The phase before this one.
    previous: Phase,
    /// The start of the phase in milliseconds since 1970; `None` for a group that only commits.
    pub(in crate::group) phase_since_ms: Option<i64>,
    pub(in crate::group) generation: i32,
    /// `consumer`, `connect` or another name from its members; `None` for a group that only
    /// commits.
    pub(in crate::group) protocol_type: Option<Arc<str>>,
    pub(in crate::group) protocol: Option<Arc<str>>,
    pub(in crate::group) leader: Option<Arc<str>>,
    pub(in crate::group) members: Members,
    statics: BTreeMap<Arc<str>, Arc<str>>,
    pending: BTreeMap<Arc<str>, Pending>,
    pending_bytes: usize,
    /// Members that have the new generation but have not sent SyncGroup yet.
    pending_sync: BTreeSet<Arc<str>>,
    /// The topics that its members subscribe to, if they are consumers with readable subscriptions.
    subscribed: Option<BTreeSet<String>>,
    /// The end of the join phase, and what remains to extend the first one.
    join_ends: Option<(u64, Option<Initial>)>,
    sync_ends: Option<u64>,
    newcomer: bool,
}

impl ClassicGroup {
    pub(in crate::group) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            phase: Phase::Empty,
            previous: Phase::Empty,
            phase_since_ms: None,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: Members::default(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            pending_sync: BTreeSet::new(),
            subscribed: None,
            join_ends: None,
            sync_ends: None,
            newcomer: false,
        }
    }

    /// The group from its record.
    pub(in crate::group) fn of_record(id: Arc<str>, value: GroupMetadataValue) -> Self {
        let text = |text: String| -> Arc<str> { text.into() };
        let mut group = Self::new(id);
        group.generation = value.generation;
        group.protocol_type = Some(text(value.protocol_type)).filter(|name| !name.is_empty());
        group.protocol = value.protocol.map(text);
        group.leader = value.leader.map(text);
        group.phase_since_ms =
            (value.current_state_timestamp >= 0).then_some(value.current_state_timestamp);
        for member in value.members {
            let member = group.member_of_record(member);
            if let Some(instance) = &member.instance {
                group.statics.insert(Arc::clone(instance), Arc::clone(&member.id));
            }
            group.members.insert(member);
        }
        if !group.members.is_empty() {
            group.phase = Phase::Stable;
            group.subscribed = group.subscriptions();
        }
        group
    }

    /// A stable group of these consumers, in this generation and without assignments
    /// (`ClassicGroup.fromConsumerGroup`). The first member leads.
    pub(in crate::group) fn of_consumers(
        id: Arc<str>,
        generation: i32,
        members: Vec<Member>,
        now_ms: i64,
    ) -> Self {
        let mut group = Self::new(id);
        group.generation = generation;
        group.protocol_type = Some(CONSUMER.into());
        group.phase = Phase::Stable;
        group.phase_since_ms = Some(now_ms);
        for member in members {
            if let Some(instance) = &member.instance {
                group.statics.insert(Arc::clone(instance), Arc::clone(&member.id));
            }
            group.members.insert(member);
        }
        group.leader = group.members.keys().next().cloned();
        group.protocol = group.select_protocol();
        group.subscribed = group.subscriptions();
        group
    }

    /// Answers all waiting members with REBALANCE_IN_PROGRESS, because the group changes its
    /// protocol.
    pub(in crate::group) fn send_away(&mut self, turn: &mut DecisionContext<'_>) {
        for member in self.members.values_mut() {
            let answer = refused_join(&member.id, ErrorCode::RebalanceInProgress);
            member.answer_join(turn.outcome, answer);
            member.answer_sync(turn.outcome, refused_sync(ErrorCode::RebalanceInProgress));
        }
    }

    fn member_of_record(&self, member: MemberMetadata) -> Member {
        let protocol = self.protocol.clone().unwrap_or_else(|| "".into());
        Member {
            id: member.member_id.into(),
            instance: member.group_instance_id.map(Arc::from),
            client_id: member.client_id.into(),
            client_host: member.client_host.into(),
            rebalance_timeout_ms: match member.rebalance_timeout {
                -1 => member.session_timeout,
                timeout => timeout,
            },
            session_timeout_ms: member.session_timeout,
            protocols: vec![(protocol, Bytes::copy_from_slice(&member.subscription))],
            assignment: Bytes::copy_from_slice(&member.assignment),
            session: Session::default(),
            is_new: false,
            awaits_join: None,
            awaits_sync: None,
        }
    }

    /// The record of the group's present state.
    pub(in crate::group) fn record(&self) -> Record {
        let protocol = self.protocol.as_deref();
        let member = |member: &Member| MemberMetadata {
            member_id: member.id.to_string(),
            group_instance_id: member.instance.as_deref().map(str::to_owned),
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: member.session_timeout_ms,
            subscription: protocol.map_or_else(Bytes::new, |protocol| member.metadata(protocol)),
            assignment: member.assignment.clone(),
        };
        let value = GroupMetadataValue {
            protocol_type: self.protocol_type.as_deref().unwrap_or_default().to_owned(),
            generation: self.generation,
            protocol: protocol.map(str::to_owned),
            leader: self.leader.as_deref().map(str::to_owned),
            current_state_timestamp: self.phase_since_ms.unwrap_or(-1),
            members: self.members.values().map(member).collect(),
        };
        record::group(&self.id, Some(&value))
    }

    /// Whether the group's record stays within [`WRITE_BYTES_MAX`].
    fn can_be_written(&self) -> bool {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let names = |member: &Member| {
            member.id.len()
                + member.client_id.len()
                + member.client_host.len()
                + member.instance.as_ref().map_or(0, |id| id.len())
        };
        let bytes = |member: &Member| {
            RECORD_BYTES + names(member) + member.metadata(protocol).len() + member.assignment.len()
        };
        self.members.values().map(bytes).sum::<usize>() <= WRITE_BYTES_MAX
    }

    /// Starts the sessions of members from the log. Members without a leader come from a group of
    /// the consumer protocol, whose last member of that protocol has left. They need a new
    /// assignment.
    pub(in crate::group) fn loaded(&mut self, turn: &mut DecisionContext<'_>) {
        let members: Vec<_> = self.members.keys().cloned().collect();
        for member in members {
            self.heard_of(&member, turn);
        }
        if self.leader.is_none() && !self.members.is_empty() {
            self.prepare_rebalance(turn);
        }
    }

    pub(in crate::group) fn is(&self, phase: Phase) -> bool {
        self.phase == phase
    }

    fn enter(&mut self, phase: Phase, turn: &DecisionContext<'_>) {
        self.previous = self.phase;
        self.phase = phase;
        self.phase_since_ms = Some(turn.now.wall_ms);
    }

    pub(in crate::group) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// Whether it has members, or has given out an id.
    pub(in crate::group) fn is_awaited(&self) -> bool {
        !self.pending.is_empty() || !self.members.is_empty()
    }

    /// Whether its members are consumers. A group that only commits has no type.
    pub(in crate::group) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// Whether a member subscribes to the topic; assumed if the subscriptions are unknown.
    pub(in crate::group) fn is_subscribed(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => !self.is(Phase::Empty),
        }
    }

    /// Checks the member id and the instance id of a request (`ClassicGroup.validateMember`).
    pub(in crate::group) fn check_member(
        &self,
        member: &str,
        instance: Option<&str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(known) if **known != *member => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Checks that offsets may be committed (`ClassicGroup.validateOffsetCommit`).
    pub(in crate::group) fn check_commit(
        &self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        transactional: bool,
    ) -> Result<(), ErrorCode> {
        if generation < 0 && self.is(Phase::Empty) {
            return Ok(());
        }
        if generation >= 0 || !member.is_empty() || instance.is_some() {
            self.check_member(member, instance)?;
            if generation != self.generation {
                return Err(ErrorCode::IllegalGeneration);
            }
        } else if !transactional {
            // A commit without membership is valid only while the group has no members.
            return Err(ErrorCode::UnknownMemberId);
        }
        if !transactional && self.is(Phase::CompletingRebalance) {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// Extends the session of a member that has sent a request.
    pub(in crate::group) fn heard_of(&mut self, member: &str, turn: &mut DecisionContext<'_>) {
        if let Some(member) = self.members.get_mut(member) {
            let until = turn.in_ms(member.session_timeout_ms);
            member.session.extend(until, &self.id, &member.id, turn.deadlines);
        }
    }

    /// Removes a member, or an id that was given out. Answers its waiting requests.
    fn remove(&mut self, id: &str, turn: &mut DecisionContext<'_>) {
        self.forget_pending(id);
        self.pending_sync.remove(id);
        let Some(mut member) = self.members.remove(id) else { return };
        member.answer_join(turn.outcome, refused_join("", ErrorCode::UnknownMemberId));
        member.answer_sync(turn.outcome, refused_sync(ErrorCode::UnknownMemberId));
        if let Some(instance) = &member.instance
            && self.statics.get(instance).is_some_and(|known| **known == *id)
        {
            self.statics.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// The longest rebalance timeout of its members.
    fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    /// Whether a member with these protocols could join (`ClassicGroup.supportsProtocols`).
    fn supports(&self, protocol_type: &str, names: &[&str]) -> bool {
        if self.is(Phase::Empty) {
            return !protocol_type.is_empty() && !names.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && names.iter().any(|name| self.members.support(name))
    }

    /// The protocol that all members support and most prefer.
    fn select_protocol(&self) -> Option<Arc<str>> {
        let first = self.members.values().next()?;
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in self.members.values() {
            let mut names = member.protocols.iter().map(|(name, _)| name);
            if let Some(choice) = names.find(|name| self.members.support(name)) {
                *votes.entry(choice).or_default() += 1;
            }
        }
        // With equal votes the first one wins.
        let names = first.protocols.iter().map(|(name, _)| name).rev();
        let known = names.filter(|name| self.members.support(name));
        known.max_by_key(|name| votes.get(name).copied().unwrap_or(0)).map(Arc::clone)
    }

    /// The bytes of its members, and of the ids that were given out ([`super::memory`]).
    pub(in crate::group) fn bytes(&self) -> usize {
        self.members.bytes() + self.pending_bytes
    }

    /// The bytes of a member's fields; for a static member those of its predecessor.
    pub(in crate::group) fn bytes_of_member(&self, id: &str, instance: Option<&str>) -> usize {
        let of_instance = || self.statics.get(instance?);
        let known = self.members.get(id).or_else(|| self.members.get(of_instance()?));
        known
            .map(Member::said_bytes)
            .or(self.pending.get(id).map(|_| pending_bytes(id)))
            .unwrap_or(0)
    }

    /// The same as [`ClassicGroup::bytes`], computed anew.
    #[cfg(test)]
    pub(in crate::group) fn counted(&self) -> usize {
        let pending = self.pending.keys().map(|id| pending_bytes(id));
        self.members.counted() + pending.sum::<usize>()
    }

    /// Keeps an id that was given out.
    fn await_member(&mut self, id: Arc<str>, pending: Pending) {
        let bytes = pending_bytes(&id);
        if self.pending.insert(id, pending).is_none() {
            self.pending_bytes += bytes;
        }
    }

    /// Drops an id, because its member has joined or its session has expired.
    fn forget_pending(&mut self, id: &str) {
        if self.pending.remove(id).is_some() {
            self.pending_bytes = self.pending_bytes.saturating_sub(pending_bytes(id));
        }
    }

    /// The topics that the members subscribe to; `None` if they are no consumers, or if a
    /// subscription cannot be decoded.
    fn subscriptions(&self) -> Option<BTreeSet<String>> {
        if !self.is_of_consumers() {
            return None;
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscription(&member.metadata(protocol))?.topics);
        }
        Some(topics)
    }
}
