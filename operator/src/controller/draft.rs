//! A decision in progress.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::types::TopicId;

use super::election::Settled;
use super::event::Moment;
use super::limits::RECORDS_PER_REQUEST_MAX;
use super::sessions::Sessions;
use super::state::{Change, State};

/// A decision in progress: the state after the changes so far, and these changes.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) state: State,
    pub(super) sessions: &'a Sessions,
    pub(super) changes: Vec<Change>,
    pub(super) moment: &'a Moment,
    ids: u128,
    /// The number of changes so far, including those of discarded branches.
    spent: usize,
}

impl<'a> Draft<'a> {
    pub(super) fn new(state: &State, sessions: &'a Sessions, moment: &'a Moment) -> Self {
        Self { state: state.clone(), sessions, changes: Vec::new(), moment, ids: 0, spent: 0 }
    }

    pub(super) fn push(&mut self, change: Change) {
        self.state.apply(&change);
        self.changes.push(change);
        self.spent += 1;
    }

    /// Changes a partition as it was settled.
    pub(super) fn push_settled(&mut self, topic: TopicId, index: i32, settled: Settled) {
        self.push(Change::Partition(topic, index, settled.partition));
        if settled.unclean {
            self.push(Change::UncleanElection(topic, index));
        }
    }

    /// Whether it has made more changes than one request may.
    pub(super) fn is_spent(&self) -> bool {
        self.spent > RECORDS_PER_REQUEST_MAX
    }

    /// A draft of a part of this decision, which the caller may discard.
    pub(super) fn branch(&self) -> Self {
        Self {
            state: self.state.clone(),
            sessions: self.sessions,
            changes: Vec::new(),
            moment: self.moment,
            ids: self.ids,
            spent: self.spent,
        }
    }

    /// Ends a branch: takes over its changes, or discards them.
    pub(super) fn merge(&mut self, branch: Self, take: bool) {
        self.spent = branch.spent;
        if take {
            self.state = branch.state;
            // The cluster's resource is one object, so its last change contains all earlier ones.
            // Thousands of copies would exhaust the memory.
            let is_cluster = |change: Option<&Change>| matches!(change, Some(Change::Cluster(_)));
            if is_cluster(self.changes.last()) && is_cluster(branch.changes.first()) {
                self.changes.pop();
            }
            self.changes.extend(branch.changes);
            self.ids = branch.ids;
        }
    }

    /// An unused topic id for the topic of this name.
    pub(super) fn topic_id(&mut self, name: &str) -> TopicId {
        if let Some(id) =
            self.moment.given.get(name).filter(|id| !self.state.topics.contains_key(*id))
        {
            return *id;
        }
        loop {
            let bits = self.moment.seed.wrapping_add(self.ids);
            self.ids += 1;
            let id = TopicId(uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid());
            if !self.state.topics.contains_key(&id)
                && self.moment.given.values().all(|given| *given != id)
            {
                return id;
            }
        }
    }
}
