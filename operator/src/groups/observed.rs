//! PURE: what was found out about a group by asking the brokers.

use std::collections::{BTreeMap, BTreeSet};

use super::marks::Marks;

/// A partition of a topic.
pub type Partition = (String, i32);

/// A group as its coordinator describes it, beside the logs that it consumes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The broker that coordinates it.
    pub coordinator: Option<i32>,
    /// Kafka's word for its state; `Dead` for a group that does not exist.
    pub state: String,
    /// `Classic` or `Consumer`; empty for a group without members that never had any.
    pub protocol: String,
    /// How partitions are assigned.
    pub assignor: String,
    /// Its members.
    pub members: Vec<Member>,
    /// All partitions that were asked for, and those in which the group has a committed offset or
    /// an assignment.
    pub partitions: BTreeMap<Partition, Log>,
    /// Which resets were carried out, where that was asked. `None`, too, if the coordinator is of a
    /// version that keeps no marks.
    pub marks: Option<Marks>,
    /// Topics that were asked for and do not exist.
    pub unknown_topics: BTreeSet<String>,
    /// The offsets at the time that a reset names, if one was asked for.
    pub at_time: BTreeMap<Partition, i64>,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// What it calls itself through restarts, if it is a static one.
    pub instance: Option<String>,
    /// Its client's name.
    pub client_id: String,
    /// Whether it speaks the consumer protocol (KIP-848).
    pub consumer_protocol: bool,
    /// What is assigned to it.
    pub partitions: BTreeSet<Partition>,
}

/// A partition as the group sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The next record that the group is to get.
    pub committed: Option<i64>,
    /// The log start offset; not known while the partition has no leader.
    pub start: Option<i64>,
    /// The high watermark; likewise.
    pub end: Option<i64>,
    /// The time of the first record that the group has not consumed, in milliseconds, where it was
    /// looked up.
    pub oldest_ms: Option<i64>,
}

impl Observed {
    /// Whether there is no such group: nobody has joined, and nothing is committed.
    pub fn is_missing(&self) -> bool {
        self.state == "Dead" && self.partitions.values().all(|log| log.committed.is_none())
    }

    /// Whether it is between two assignments.
    pub fn is_rebalancing(&self) -> bool {
        ["PreparingRebalance", "CompletingRebalance", "Assigning", "Reconciling"]
            .contains(&self.state.as_str())
    }
}
