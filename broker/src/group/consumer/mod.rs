//! PURE: a group of the consumer protocol (KIP-848): its members, their target assignments and
//! their current assignments (`ConsumerGroup` in Apache Kafka).
//!
//! Everything but sessions is in records. The function that writes a change applies it through the
//! function that the replay uses. The group epoch counts changes of subscriptions. The target epoch
//! is the group epoch that the target was computed for. A member's epoch is the target epoch that
//! it has reached.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub(super) mod assignor;
mod classic;
mod conversion;
mod counted;
mod describe;
mod heartbeat;
mod member;
mod membership;
mod patterns;
mod reconcile;
mod record;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{
    ConsumerGroupCurrentMemberAssignmentValue, ConsumerGroupMemberMetadataValue,
    ConsumerGroupRegularExpressionValue, ConsumerGroupTargetAssignmentMemberValue,
    OffsetCommitRequest,
};

pub(in crate::group) use self::assignor::Partitions;
pub(in crate::group) use self::conversion::WhyNot;
pub(crate) use self::heartbeat::Heartbeat;
pub(in crate::group) use self::heartbeat::{Refusal, refuse};
pub(in crate::group) use self::member::Member;
use self::patterns::Matched;
use self::reconcile::{Current, pairs};
use super::classic::Spoken;
use super::decision::DecisionContext;
use crate::coordinator::Outcome;

/// How a group becomes a classic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::group) enum Downgrade {
    /// Without a rebalance: all members have their target assignments.
    Stable,
    /// With a rebalance.
    Rebalancing,
}

/// The epoch of a static member that has left for a while.
const LEFT_FOR_A_WHILE: i32 = -2;

/// The regular expressions of subscriptions, with the topics that each matches.
type Regexes = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

/// A group of the consumer protocol.
#[derive(Debug)]
pub(in crate::group) struct ConsumerGroup {
    pub(in crate::group) id: Arc<str>,
    epoch: i32,
    /// The time of the last rise of the group or target epoch at this coordinator, on the clock of
    /// [`crate::coordinator::Now::ms`].
    bumped_at: Option<u64>,
    /// The hash of the subscribed topics at the start of the group epoch.
    metadata_hash: i64,
    target_epoch: i32,
    /// The time of the last target assignment in milliseconds since 1970; 0 if unknown.
    assigned_at: i64,
    members: BTreeMap<Arc<str>, Member>,
    statics: BTreeMap<Arc<str>, Arc<str>>,
    targets: BTreeMap<Arc<str>, Partitions>,
    /// The owner of each partition, until it has revoked it.
    owners: BTreeMap<(Uuid, i32), Arc<str>>,
    regexes: Regexes,
    /// Soft state: the metadata versions of the last matches.
    matched: Matched,
    /// The metadata version of the last check of topics.
    looked_at: Option<u64>,
    /// The protocols of the members of the classic protocol.
    spoken: Spoken,
    /// Bytes of the members, their partitions and the regular expressions.
    bytes: usize,
    /// A pending decision that the remaining members become a classic group.
    downgrade: Option<Downgrade>,
}

impl ConsumerGroup {
    pub(in crate::group) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            // The first member raises it to 2.
            epoch: 1,
            bumped_at: None,
            metadata_hash: 0,
            target_epoch: 1,
            assigned_at: 0,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            targets: BTreeMap::new(),
            owners: BTreeMap::new(),
            regexes: BTreeMap::new(),
            matched: Matched::default(),
            looked_at: None,
            spoken: Spoken::default(),
            bytes: 0,
            downgrade: None,
        }
    }

    /// Kafka's name for the state of the group.
    pub(in crate::group) fn state(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self.members.values().all(|member| member.current.has_reached(self.target_epoch))
        {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    pub(in crate::group) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(in crate::group) fn is_subscribed(&self, topic: &str) -> bool {
        let by_regex = |member: &Member| {
            member.regex.as_ref().is_some_and(|regex| {
                self.regexes.get(regex).is_some_and(|topics| topics.contains(topic))
            })
        };
        self.members.values().any(|member| member.topics.contains(topic) || by_regex(member))
    }

    /// Starts the sessions of the members from the log.
    pub(in crate::group) fn loaded(&mut self, turn: &mut DecisionContext<'_>) {
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            self.heard_of(&id, turn);
            self.expect_revocation(&id, turn);
        }
    }

    /// Checks that offsets of these partitions may be committed
    /// (`ConsumerGroup.validateOffsetCommit`). The epoch must be the member's, or an older one in
    /// which it had the partitions already (KIP-1251).
    pub(in crate::group) fn check_commit(
        &self,
        request: &OffsetCommitRequest,
        version: i16,
        transactional: bool,
        mut partitions: impl Iterator<Item = (Uuid, i32)>,
    ) -> Result<(), ErrorCode> {
        let (member, epoch) = (request.member_id.as_str(), request.generation_id_or_member_epoch);
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        // A transaction need not name its member (TxnOffsetCommit before KIP-447).
        if transactional && epoch < 0 && member.is_empty() && request.group_instance_id.is_none() {
            return Ok(());
        }
        let known = self.members.get(member).ok_or(ErrorCode::UnknownMemberId)?;
        // Older versions do not know STALE_MEMBER_EPOCH.
        if version < 9 && !transactional && known.classic.is_none() {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if epoch < known.current.epoch
            && partitions.all(|(topic, index)| known.current.has_since(topic, index, epoch))
        {
            return Ok(());
        }
        match known.check_epoch(epoch) {
            Err(_) if transactional => Err(ErrorCode::IllegalGeneration),
            checked => checked,
        }
    }

    /// Checks that offsets may be fetched. Administrators name neither member nor epoch.
    pub(in crate::group) fn check_fetch(
        &self,
        member: Option<&str>,
        epoch: i32,
    ) -> Result<(), ErrorCode> {
        match member {
            None if epoch < 0 => Ok(()),
            member => {
                let known = self
                    .members
                    .get(member.unwrap_or_default())
                    .ok_or(ErrorCode::UnknownMemberId)?;
                known.check_epoch(epoch)
            }
        }
    }

    /// Writes the tombstones of a group without members.
    pub(in crate::group) fn tombstones(&self, outcome: &mut Outcome) {
        for pattern in self.regexes.keys() {
            outcome.records.push(record::regex(&self.id, pattern, None));
        }
        outcome.records.push(record::target_epoch(&self.id, None));
        outcome.records.push(record::epoch(&self.id, None));
    }

    pub(in crate::group) fn replay_epoch(&mut self, epoch: i32, metadata_hash: i64) {
        (self.epoch, self.metadata_hash) = (epoch, metadata_hash);
    }

    fn set_epoch(&mut self, epoch: i32, hash: i64, outcome: &mut Outcome) {
        outcome.records.push(record::epoch(&self.id, Some((epoch, hash))));
        self.replay_epoch(epoch, hash);
    }

    pub(in crate::group) fn replay_target_epoch(&mut self, epoch: i32, at: i64) {
        (self.target_epoch, self.assigned_at) = (epoch, at);
    }

    fn set_target_epoch(&mut self, epoch: i32, now_ms: i64, outcome: &mut Outcome) {
        outcome.records.push(record::target_epoch(&self.id, Some((epoch, now_ms))));
        self.replay_target_epoch(epoch, now_ms);
    }

    pub(in crate::group) fn replay_member(
        &mut self,
        id: &str,
        value: Option<ConsumerGroupMemberMetadataValue>,
    ) {
        let Some(value) = value else {
            self.forget(id);
            return;
        };
        let text = |text: String| -> Arc<str> { text.into() };
        let id: Arc<str> = id.into();
        let mut member = self.take_member(&id).unwrap_or_else(|| Member::new(Arc::clone(&id)));
        member.instance = value.instance_id.map(text);
        member.rack = value.rack_id.map(text);
        member.client_id = text(value.client_id);
        member.client_host = text(value.client_host);
        member.topics = value.subscribed_topic_names.into_iter().map(text).collect();
        member.regex = value.subscribed_topic_regex.map(text).filter(|regex| !regex.is_empty());
        member.rebalance_timeout_ms = value.rebalance_timeout_ms;
        member.assignor = value.server_assignor.map(text);
        member.classic = value.classic_member_metadata.map(member::Classic::of_record);
        if let Some(instance) = &member.instance {
            self.statics.insert(Arc::clone(instance), id);
        }
        self.put_member(member);
    }

    fn set_member(&mut self, member: Member, outcome: &mut Outcome) {
        outcome.records.push(record::member(&self.id, &member.id, Some(&member)));
        if let Some(instance) = &member.instance {
            self.statics.insert(Arc::clone(instance), Arc::clone(&member.id));
        }
        self.put_member(member);
    }

    pub(in crate::group) fn replay_target(
        &mut self,
        id: &str,
        value: Option<ConsumerGroupTargetAssignmentMemberValue>,
    ) {
        match value {
            Some(value) => self.put_target(id.into(), record::target_of(value)),
            None => self.remove_target(id),
        }
    }

    fn set_target(&mut self, id: &Arc<str>, target: Partitions, outcome: &mut Outcome) {
        outcome.records.push(record::target(&self.id, id, Some(&target)));
        self.put_target(Arc::clone(id), target);
    }

    pub(in crate::group) fn replay_current(
        &mut self,
        id: &str,
        value: Option<ConsumerGroupCurrentMemberAssignmentValue>,
    ) {
        // Compaction may have removed the earlier record of the member itself.
        if value.is_some() && !self.members.contains_key(id) {
            self.put_member(Member::new(id.into()));
        }
        self.apply_current(id, value.map(record::current_of).unwrap_or_default());
    }

    fn set_current(&mut self, id: &Arc<str>, current: Current, outcome: &mut Outcome) {
        outcome.records.push(record::current(&self.id, id, Some(&current)));
        self.apply_current(id, current);
    }

    fn apply_current(&mut self, id: &str, current: Current) {
        let Some(member) = self.members.get_mut(id) else { return };
        let before = std::mem::replace(&mut member.current, current);
        let (id, now) = (Arc::clone(&member.id), &member.current);
        self.bytes = (self.bytes + now.bytes()).saturating_sub(before.bytes());
        for partition in pairs(&before.assigned).chain(pairs(&before.revoking)) {
            if self.owners.get(&partition).is_some_and(|owner| *owner == id) {
                self.owners.remove(&partition);
            }
        }
        for partition in pairs(&now.assigned).chain(pairs(&now.revoking)) {
            self.owners.insert(partition, Arc::clone(&id));
        }
    }

    pub(in crate::group) fn replay_regex(
        &mut self,
        pattern: &str,
        value: Option<ConsumerGroupRegularExpressionValue>,
    ) {
        match value {
            Some(value) => {
                let topics = value.topics.into_iter().map(Arc::from).collect();
                self.put_regex(pattern.into(), topics);
            }
            None => self.remove_regex(pattern),
        }
    }

    /// Removes a member and writes its tombstones.
    fn remove(&mut self, id: &Arc<str>, outcome: &mut Outcome) {
        outcome.records.push(record::current(&self.id, id, None));
        outcome.records.push(record::target(&self.id, id, None));
        outcome.records.push(record::member(&self.id, id, None));
        self.forget(id);
    }

    fn forget(&mut self, id: &str) {
        self.apply_current(id, Current::default());
        self.remove_target(id);
        if let Some(member) = self.take_member(id)
            && let Some(instance) = &member.instance
            && self.statics.get(instance).is_some_and(|known| *known == member.id)
        {
            self.statics.remove(instance);
        }
    }

    /// Extends the session of a member that has sent a request.
    fn heard_of(&mut self, id: &str, turn: &mut DecisionContext<'_>) {
        if let Some(member) = self.members.get_mut(id) {
            let own = member.classic.as_ref().map(|classic| classic.session_timeout_ms);
            let until = turn.in_ms(own.unwrap_or_else(|| {
                turn.settings.of_group(turn.image, &self.id).session_timeout_ms
            }));
            member.session.extend(until, &self.id, &member.id, turn.deadlines);
        }
    }
}
