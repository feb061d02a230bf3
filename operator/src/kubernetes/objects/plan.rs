//! The input for building a cluster's objects.

use std::collections::{BTreeMap, BTreeSet};

use weir_crds::KafkaCluster;

/// The input for building the objects.
#[derive(Clone, Debug)]
pub(in crate::kubernetes) struct Plan<'a> {
    /// The resource.
    pub(in crate::kubernetes) cluster: &'a KafkaCluster,
    /// The image of the brokers.
    pub(in crate::kubernetes) image: &'a str,
    /// The cluster's id in the Kafka protocol.
    pub(in crate::kubernetes) cluster_id: &'a str,
    /// The controller's address.
    pub(in crate::kubernetes) controller: &'a str,
    /// The number of pods: the resource's, or more while brokers to be removed still hold
    /// partitions.
    pub(in crate::kubernetes) replicas: i32,
    /// The listeners of the existing pods, with their ports. They differ from the resource's until
    /// the last pod has been restarted.
    pub(in crate::kubernetes) listening: &'a BTreeSet<(String, u16)>,
    /// Which pods may be evicted now.
    pub(in crate::kubernetes) evictions: Evictions,
    /// The brokers that could not be evicted when the objects were built last.
    pub(in crate::kubernetes) held_before: &'a BTreeSet<i32>,
    /// The PodMonitor's settings, if the kind `PodMonitor` exists.
    pub(in crate::kubernetes) monitoring: Option<&'a Monitoring>,
}

/// Which pods may be evicted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::kubernetes) struct Evictions {
    /// The brokers that no eviction may take. If that were all of them, this is empty, and
    /// `available_min` their number.
    pub(in crate::kubernetes) held: BTreeSet<i32>,
    /// How many of the others stay at least.
    pub(in crate::kubernetes) available_min: i32,
}

/// The settings of the PodMonitors of all clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::kubernetes) struct Monitoring {
    /// Labels by which a Prometheus selects it.
    pub(in crate::kubernetes) labels: BTreeMap<String, String>,
    /// The scrape interval in Prometheus' notation; `None` for its default.
    pub(in crate::kubernetes) interval: Option<String>,
}
