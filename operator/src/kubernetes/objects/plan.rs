//! What the objects of a cluster are made of.

use std::collections::{BTreeMap, BTreeSet};

use weir_crds::KafkaCluster;

/// What the objects are made of.
#[derive(Clone, Debug)]
pub(in crate::kubernetes) struct Plan<'a> {
    /// The resource.
    pub(in crate::kubernetes) cluster: &'a KafkaCluster,
    /// The image of the brokers.
    pub(in crate::kubernetes) image: &'a str,
    /// The cluster's id in the Kafka protocol.
    pub(in crate::kubernetes) cluster_id: &'a str,
    /// Where brokers find the controller.
    pub(in crate::kubernetes) controller: &'a str,
    /// How many pods there are to be: what the resource says, or more while brokers that are to go
    /// still hold partitions.
    pub(in crate::kubernetes) replicas: i32,
    /// The listeners of the pods that there are, with their ports: others than the resource's until
    /// the last pod has been restarted.
    pub(in crate::kubernetes) listening: &'a BTreeSet<(String, u16)>,
    /// How many of them may be evicted at the moment.
    pub(in crate::kubernetes) evictable: i32,
    /// How Prometheus is to find the brokers, where the kind `PodMonitor` is known.
    pub(in crate::kubernetes) monitoring: Option<&'a Monitoring>,
}

/// What every PodMonitor of a cluster's brokers has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::kubernetes) struct Monitoring {
    /// Labels by which a Prometheus chooses it.
    pub(in crate::kubernetes) labels: BTreeMap<String, String>,
    /// How often Prometheus asks, in its own notation; `None`: as often as it does by default.
    pub(in crate::kubernetes) interval: Option<String>,
}
