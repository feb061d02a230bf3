//! Facts about a cluster besides the inventories of its brokers.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;

use weir_crds::{KafkaCluster, Topic};

use super::super::state::Change;

/// Facts about the cluster besides the inventories.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The cluster's resource.
    pub cluster: &'a KafkaCluster,
    /// The cluster's former id, if it is recorded anywhere.
    pub cluster_id: Option<&'a str>,
    /// The cluster's topics that have a resource, from any author.
    pub topics: &'a [Topic],
    /// Names of resources that are not topics of this cluster.
    pub taken: &'a BTreeSet<String>,
    /// The changes that make the SCRAM credentials, if a store still has them.
    pub credentials: Option<&'a [Change]>,
}
