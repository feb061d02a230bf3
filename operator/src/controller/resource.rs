//! A resource that a user wrote, and the reason of a refusal.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use weir_crds::{KafkaCluster, Topic};

/// The field of a refusal to delete a retained topic.
pub const RETAINED: &str = "spec.deletionPolicy";

/// A resource that a user wrote.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// The cluster.
    Cluster(Box<KafkaCluster>),
    /// A topic.
    Topic(Box<Topic>),
}

/// The kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `KafkaCluster`
    KafkaCluster,
    /// `Topic`
    Topic,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KafkaCluster => "KafkaCluster",
            Self::Topic => "Topic",
        })
    }
}

/// Why a resource is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name:?}: {path}: {reason}")]
pub struct Refusal {
    /// Its kind.
    pub kind: Kind,
    /// Its `metadata.name`.
    pub name: String,
    /// The invalid field.
    pub path: String,
    /// What is wrong with its value.
    pub reason: String,
}
