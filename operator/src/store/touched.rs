//! The objects of a store that a set of changes touches.

use std::collections::BTreeSet;

use weir_protocol::types::TopicId;

use crate::controller::state::{Change, shard_of};

/// The objects that a set of changes touches.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(crate) cluster_resource: bool,
    pub(crate) topics: BTreeSet<TopicId>,
    pub(crate) shards: BTreeSet<u8>,
    pub(crate) credentials: bool,
    /// The object with the cluster's counters and its brokers.
    pub(crate) registry: bool,
}

impl Touched {
    pub(crate) fn by(changes: &[Change]) -> Self {
        let mut touched = Self::default();
        for change in changes {
            match change {
                Change::Cluster(_) => touched.cluster_resource = true,
                // The shard also holds the resource if it is retained or in another namespace.
                Change::Topic(id, _) | Change::RemoveTopic(id, _) => {
                    touched.topics.insert(*id);
                    touched.shards.insert(shard_of(*id));
                }
                Change::Partition(id, ..) => drop(touched.shards.insert(shard_of(*id))),
                Change::ScramCredential(_) | Change::ScramMockKey(_) => touched.credentials = true,
                Change::ControllerEpoch(_)
                | Change::NextBrokerEpoch(_)
                | Change::NextProducerId(_)
                | Change::Features(_)
                | Change::Broker(_)
                | Change::RemoveBroker(_) => touched.registry = true,
                Change::UncleanElection(..)
                | Change::RolledBack
                | Change::TookUpCluster(_)
                | Change::TookUpTopic(..) => {}
            }
        }
        touched
    }
}
