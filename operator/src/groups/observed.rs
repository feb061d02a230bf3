//! PURE: what a look found out about a group.

use std::collections::{BTreeMap, BTreeSet};

use super::marks::Marks;

/// A partition of a topic.
pub type Partition = (String, i32);

/// A group as its coordinator describes it, and the logs that it consumes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The broker that coordinates it.
    pub coordinator: Option<i32>,
    /// Kafka's name of its state; `Dead` for a group that does not exist.
    pub state: String,
    /// `Classic` or `Consumer`; empty for a group that never had members.
    pub protocol: String,
    /// The assignor.
    pub assignor: String,
    /// Its members.
    pub members: Vec<Member>,
    /// The requested partitions, and those with a committed offset or an assignment.
    pub partitions: BTreeMap<Partition, Log>,
    /// The marks of resets, if requested. Also `None` if the coordinator's version has no marks.
    pub marks: Option<Marks>,
    /// Requested topics that do not exist.
    pub unknown_topics: BTreeSet<String>,
    /// The offsets for a reset's timestamp, if requested.
    pub at_time: BTreeMap<Partition, i64>,
}

/// A member of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// Its `group.instance.id`, if it is static.
    pub instance: Option<String>,
    /// Its client id.
    pub client_id: String,
    /// Whether it speaks the consumer protocol (KIP-848).
    pub consumer_protocol: bool,
    /// Its assigned partitions.
    pub partitions: BTreeSet<Partition>,
}

/// A partition's log and the group's offset in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The committed offset.
    pub committed: Option<i64>,
    /// The log start offset; unknown while the partition has no leader.
    pub start: Option<i64>,
    /// The high watermark; unknown while the partition has no leader.
    pub end: Option<i64>,
    /// The timestamp of the first record that the group has not consumed, in milliseconds, if it
    /// was read.
    pub oldest_ms: Option<i64>,
}

impl Observed {
    /// Whether the group does not exist: it has no members and no committed offsets.
    pub fn is_missing(&self) -> bool {
        self.state == "Dead" && self.partitions.values().all(|log| log.committed.is_none())
    }

    /// Whether a rebalance is under way.
    pub fn is_rebalancing(&self) -> bool {
        ["PreparingRebalance", "CompletingRebalance", "Assigning", "Reconciling"]
            .contains(&self.state.as_str())
    }
}
