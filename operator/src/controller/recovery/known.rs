//! What is known of a cluster beside what its brokers found on their volumes.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;

use weir_crds::{KafkaCluster, Topic};

/// What is known of the cluster beside the inventories.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The cluster's resource.
    pub cluster: &'a KafkaCluster,
    /// The id that the cluster had, where that is written somewhere.
    pub cluster_id: Option<&'a str>,
    /// The cluster's topics that have a resource, whoever wrote it.
    pub topics: &'a [Topic],
    /// Names of resources that are no topics of this cluster.
    pub taken: &'a BTreeSet<String>,
}
