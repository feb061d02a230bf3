//! PURE: group coordinators: the groups and committed offsets of one partition of
//! `__consumer_offsets`.
//!
//! A [`StateMachine`] of the coordinators' runtime: it decides a request, changes its state and
//! returns the records for the change. Reads no clock, draws no random number, waits for nothing.
//!
//! Invariants
//! - State that must survive is in a record, in Kafka's format, before a client hears of it.
//!   Sessions, parked joins and parked syncs are soft, and begin anew on another broker.
//! - A group that was never written and holds nothing is removed.
//! - Of the consumer protocol (KIP-848) everything but sessions is in records. No partition has two
//!   owners: a member revokes first (`consumer::reconcile`).
//! - The assignors are functions of the subscriptions and of the previous assignment.
//! - A group changes its protocol in one decision and one batch (`membership`). Every member keeps
//!   its assignment, and generation and epoch continue each other.
//! - In a group of the consumer protocol, the generation of a member of the classic one is its
//!   epoch (`consumer::classic`).
//! - All validation of a request runs before the group is modified.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod admission;
mod classic;
mod client;
mod consumer;
mod deadlines;
mod decision;
mod delete;
mod describe;
mod embedded;
mod expiry;
mod membership;
mod memory;
mod offset_requests;
mod offsets;
mod record;
mod replay;
mod request;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{ProducerEpoch, ProducerId};
use weir_settings::Layers;

use self::classic::{ClassicGroup, Phase};
pub(crate) use self::classic::{Join, refused_join, refused_sync};
pub(crate) use self::client::Client;
pub(crate) use self::consumer::Heartbeat as ConsumerHeartbeat;
use self::consumer::{ConsumerGroup, Refusal, refuse};
use self::deadlines::{Deadlines, Due};
use self::decision::{DecisionContext, Ids};
pub(crate) use self::memory::GroupMemory;
use self::memory::Held;
pub(crate) use self::offset_requests::refuse_commit;
use self::offsets::{NEWEST_VERSION, Offsets, Place};
pub(crate) use self::request::Request;
use self::settings::Settings;
use crate::coordinator::{Logged, Now, Origin, Outcome, StateMachine};
use crate::metadata::MetadataImage;

/// The most groups in one partition; no more are created. Normal use never reaches it. It stops a
/// client that creates groups in a loop.
const GROUPS_MAX: usize = 200_000;

/// The groups of one partition.
pub(crate) struct Groups {
    groups: BTreeMap<Arc<str>, Group>,
    /// The names of topics, each in memory once, with the topic's id, if it is known.
    topics: BTreeMap<Arc<str>, Option<Uuid>>,
    /// The position of the newest commit.
    place: Place,
    /// The groups for which open transactions commit offsets.
    transactions: BTreeMap<ProducerId, BTreeSet<Arc<str>>>,
    around: DecisionInputs,
    begun: bool,
}

/// A group: its members and its committed offsets.
#[derive(Debug)]
struct Group {
    id: Arc<str>,
    kind: Kind,
    offsets: Offsets,
    /// The bytes of its members at the last count.
    held: Held,
}

/// The protocol that a group's members speak.
#[derive(Debug)]
enum Kind {
    Classic(Box<ClassicGroup>),
    Consumer(Box<ConsumerGroup>),
}

/// The state that all groups of a partition share.
struct DecisionInputs {
    settings: Settings,
    deadlines: Deadlines,
    ids: Ids,
    image: Arc<MetadataImage>,
    /// Shared with the groups of other partitions.
    memory: GroupMemory,
}

impl DecisionInputs {
    fn turn<'a>(&'a mut self, now: Now, outcome: &'a mut Outcome) -> DecisionContext<'a> {
        DecisionContext {
            now,
            settings: &self.settings,
            deadlines: &mut self.deadlines,
            ids: &mut self.ids,
            image: &self.image,
            memory: &self.memory.members,
            outcome,
        }
    }
}

impl Group {
    fn new(id: Arc<str>, memory: &GroupMemory) -> Self {
        Self {
            kind: Kind::Classic(Box::new(ClassicGroup::new(Arc::clone(&id)))),
            offsets: Offsets::new(memory.offsets.hold(), &id),
            held: memory.members.hold(),
            id,
        }
    }

    /// Updates the count of bytes after a possible change of members.
    fn count(&mut self) {
        let bytes = match &self.kind {
            Kind::Classic(group) => group.bytes(),
            Kind::Consumer(group) => group.bytes(),
        };
        #[cfg(test)]
        self.compare(bytes);
        self.held.set(bytes);
    }

    /// The bytes of its members, computed anew.
    #[cfg(test)]
    fn counted(&self) -> usize {
        match &self.kind {
            Kind::Classic(group) => group.counted(),
            Kind::Consumer(group) => group.counted(),
        }
    }

    /// Checks in every test that the count is right.
    #[cfg(test)]
    fn compare(&self, bytes: usize) {
        if bytes < 100_000 {
            assert_eq!(bytes, self.counted(), "group {}", self.id);
        }
    }

    /// Whether it holds nothing and was never written, so that nothing is lost with it.
    fn is_void(&self) -> bool {
        let Kind::Classic(group) = &self.kind else { return false };
        self.offsets.is_empty()
            && group.phase_since_ms.is_none()
            && group.protocol_type.is_none()
            && !group.is_awaited()
    }

    /// Whether it has no members.
    fn is_empty(&self) -> bool {
        match &self.kind {
            Kind::Classic(group) => group.is(Phase::Empty),
            Kind::Consumer(group) => group.is_empty(),
        }
    }

    fn is_subscribed(&self, topic: &str) -> bool {
        match &self.kind {
            Kind::Classic(group) => group.is_subscribed(topic),
            Kind::Consumer(group) => group.is_subscribed(topic),
        }
    }
}

impl Groups {
    /// The group, which is created if it does not exist.
    ///
    /// # Errors
    /// COORDINATOR_NOT_AVAILABLE when there are too many groups.
    fn get_or_make(&mut self, id: &str) -> Result<&mut Group, ErrorCode> {
        if !self.groups.contains_key(id) {
            if self.groups.len() >= GROUPS_MAX {
                return Err(ErrorCode::CoordinatorNotAvailable);
            }
            let id: Arc<str> = id.into();
            self.groups.insert(Arc::clone(&id), Group::new(id, &self.around.memory));
        }
        self.groups.get_mut(id).ok_or(ErrorCode::UnknownServerError)
    }

    fn topic(&mut self, name: &str) -> Arc<str> {
        if let Some((known, _)) = self.topics.get_key_value(name) {
            return Arc::clone(known);
        }
        let id = self.around.image.topic_by_name(name).map(|topic| topic.id.0);
        let name: Arc<str> = name.into();
        self.topics.insert(Arc::clone(&name), id);
        name
    }

    fn forget_if_void(&mut self, id: &str) {
        if self.groups.get(id).is_some_and(Group::is_void) {
            self.groups.remove(id);
        }
    }

    fn due(&mut self, at: u64, due: Due, now: Now, outcome: &mut Outcome) {
        // An event for a group that does not exist any more needs nothing.
        let _ = match due {
            Due::Expiry => {
                self.expire(now, outcome);
                Ok(())
            }
            Due::Join(group) => {
                self.with_classic(&group, now, outcome, |group, turn| group.join_due(at, turn))
            }
            Due::Sync(group) => {
                self.with_classic(&group, now, outcome, |group, turn| group.sync_due(at, turn))
            }
            Due::Rebalance(group, member) => {
                self.with_consumers(&group, now, outcome, |group, turn| {
                    group.rebalance_due(&member, at, turn)
                })
            }
            Due::Session(group, member) => self
                .with_classic(&group, now, outcome, |group, turn| {
                    group.session_due(&member, at, turn)
                })
                .or_else(|_| {
                    self.with_consumers(&group, now, outcome, |group, turn| {
                        group.session_due(&member, at, turn)
                    })
                }),
        };
    }
}

impl StateMachine for Groups {
    const TOPIC: &'static str = "__consumer_offsets";

    type Request = Request;

    type Shared = GroupMemory;

    fn new(origin: Origin, memory: &GroupMemory) -> Self {
        Self {
            groups: BTreeMap::new(),
            topics: BTreeMap::new(),
            place: Place::default(),
            transactions: BTreeMap::new(),
            around: DecisionInputs {
                settings: Settings::default(),
                deadlines: Deadlines::default(),
                ids: Ids { seed: origin.seed, count: 0 },
                image: Arc::default(),
                memory: memory.clone(),
            },
            begun: false,
        }
    }

    fn replay(&mut self, record: &Logged<'_>) -> Result<(), String> {
        self.apply(record)
    }

    fn end_transaction(&mut self, producer: ProducerId, _epoch: ProducerEpoch, committed: bool) {
        for group in self.transactions.remove(&producer).unwrap_or_default() {
            if let Some(group) = self.groups.get_mut(&group) {
                group.offsets.end(producer, committed);
            }
        }
    }

    fn metadata(
        &mut self,
        image: &Arc<MetadataImage>,
        layers: &Layers<'_>,
        now: Now,
        outcome: &mut Outcome,
    ) {
        self.around.settings = Settings::of(layers);
        self.around.image = Arc::clone(image);
        if !self.begun {
            self.begun = true;
            let check_ms = self.around.settings.retention_check_ms;
            self.around.deadlines.add(now.ms + check_ms, Due::Expiry);
            for group in self.groups.values_mut() {
                let turn = &mut self.around.turn(now, outcome);
                match &mut group.kind {
                    Kind::Classic(group) => group.loaded(turn),
                    Kind::Consumer(group) => group.loaded(turn),
                }
                group.count();
            }
        }
        self.forget_deleted_topics(outcome);
    }

    fn commit_timeout(layers: &Layers<'_>) -> Duration {
        settings::commit_timeout(layers)
    }

    fn writes(request: &Request) -> bool {
        request.writes()
    }

    fn decide(&mut self, request: Request, now: Now, outcome: &mut Outcome) {
        match request {
            Request::Commit { request, version, to } => {
                let answer = self.commit_in(request, version, None, now, outcome);
                outcome.reply(to, answer);
            }
            Request::CommitInTransaction { request, producer, to } => {
                outcome.transaction = Some(producer);
                let answer =
                    self.commit_in(request, NEWEST_VERSION, Some(producer.0), now, outcome);
                outcome.reply(to, answer);
            }
            Request::Fetch { request, require_stable, to } => {
                let answer = self.fetch(request, require_stable);
                outcome.reply(to, answer);
            }
            Request::DeleteOffsets { request, to } => {
                let answer = self.delete_offsets(request, outcome);
                outcome.reply(to, answer);
            }
            Request::Join(join) => self.join(join, now, outcome),
            Request::ConsumerHeartbeat(heartbeat) => {
                self.consumer_heartbeat(heartbeat, now, outcome)
            }
            Request::DescribeConsumers { group, to } => {
                let answer = self.describe_consumers(group);
                outcome.reply(to, answer);
            }
            Request::Sync { request, to } => self.sync(request, to, now, outcome),
            Request::Heartbeat { request, to } => {
                let answer = self.heartbeat(&request, now, outcome);
                outcome.reply(to, answer);
            }
            Request::Leave { group, members, to } => {
                let answer = self.leave(&group, members, now, outcome);
                outcome.reply(to, answer);
            }
            Request::List { states, types, to } => {
                let answer = self.list(&states, &types);
                outcome.reply(to, answer);
            }
            Request::Describe { group, version, to } => {
                let answer = self.describe(group, version);
                outcome.reply(to, answer);
            }
            Request::Delete { group, to } => {
                let answer = self.delete(&group, outcome);
                outcome.reply(to, answer);
            }
        }
    }

    fn wake(&mut self, now: Now, outcome: &mut Outcome) {
        while let Some((at, due)) = self.around.deadlines.pop(now.ms) {
            self.due(at, due, now, outcome);
        }
    }

    fn next_wake(&self) -> Option<u64> {
        self.around.deadlines.next()
    }
}

#[cfg(test)]
mod tests;
