//! Sums over all topics, so that no decision has to make them: kept with every change, and compared
//! with the topics by the tests.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_crds::DeletionPolicy;
use weir_protocol::types::TopicId;

use super::shard::{SHARDS, shard_of};
use super::topic::Topic;

/// What a shard may hold, by an estimate of what a partition and each of its replicas take in the
/// packed text, while they are being moved, too. An object in etcd has up to 1.5 MiB.
const SHARD_BYTES_MAX: usize = 1_400_000;
const PARTITION_BYTES: usize = 92;
const REPLICA_BYTES: usize = 12;
/// What a resource takes beside its names and settings, the names of namespaces and of the cluster
/// included.
const RESOURCE_BYTES: usize = 400;
const SETTING_BYTES: usize = 6;

/// What is summed up over all topics: kept with every change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Partitions that there are.
    pub(super) partitions: usize,
    /// Partitions that the topics' resources ask for.
    pub(super) wanted: usize,
    /// What the partitions in each shard take, and the resources that lie there, by estimate.
    shards: [usize; SHARDS as usize],
}

impl Sums {
    /// Whether so many more partitions of a topic fit into its shard.
    pub(super) fn has_room(&self, topic: TopicId, more: usize, replicas: usize) -> bool {
        let there = self.shards.get(usize::from(shard_of(topic))).copied().unwrap_or_default();
        there.saturating_add(more.saturating_mul(weight(replicas))) <= SHARD_BYTES_MAX
    }

    /// Whether a partition of a topic can be kept with so many replicas where it has so many: what
    /// is being moved stands on its old brokers and its new ones.
    pub(super) fn has_room_to_move(&self, topic: TopicId, before: usize, after: usize) -> bool {
        let there = self.shards.get(usize::from(shard_of(topic))).copied().unwrap_or_default();
        after <= before || (there + weight(after)).saturating_sub(weight(before)) <= SHARD_BYTES_MAX
    }

    fn shard(&mut self, topic: TopicId) -> &mut usize {
        let shard = usize::from(shard_of(topic));
        self.shards.get_mut(shard).expect("there are as many sums as shards")
    }

    pub(super) fn add(&mut self, topic: TopicId, replicas: usize) {
        self.partitions += 1;
        *self.shard(topic) += weight(replicas);
    }

    pub(super) fn change(&mut self, topic: TopicId, before: usize, after: usize) {
        let shard = self.shard(topic);
        *shard = *shard + weight(after) - weight(before);
    }

    /// A topic's resource takes so much in its shard from now on, where it took so much.
    pub(super) fn keep(&mut self, topic: TopicId, before: usize, after: usize) {
        let shard = self.shard(topic);
        *shard = *shard + after - before;
    }

    pub(super) fn take_out(&mut self, topic: &Topic, home: &str) {
        self.keep(topic.id, kept(topic, home), 0);
        self.wanted -= topic.partitions_wanted();
        self.partitions -= topic.partitions.len();
        let weights = topic.partitions.iter().map(|partition| weight(partition.replicas.len()));
        *self.shard(topic.id) -= weights.sum::<usize>();
    }
}

/// What a topic's resource takes in its shard, by estimate: nothing, unless it is to be retained or
/// lies in another namespace than the cluster's.
pub(super) fn kept(topic: &Topic, home: &str) -> usize {
    let spec = &topic.resource.spec;
    if spec.deletion_policy != DeletionPolicy::Retain && topic.key.namespace == home {
        return 0;
    }
    let settings =
        spec.config.texts().iter().map(|(name, text)| name.len() + text.len() + SETTING_BYTES);
    RESOURCE_BYTES + topic.key.name.len() + topic.name().len() + settings.sum::<usize>()
}

/// What a partition takes in its shard, by estimate.
fn weight(replicas: usize) -> usize {
    PARTITION_BYTES + REPLICA_BYTES * replicas
}
