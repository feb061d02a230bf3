//! Sums over all topics, so that decisions need not compute them. Every change updates them, and
//! the tests compare them with the topics.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_crds::DeletionPolicy;
use weir_protocol::types::TopicId;

use super::shard::{SHARDS, shard_of};
use super::topic::Topic;

/// The most bytes that a shard may hold. The estimate counts each partition and each of its
/// replicas as in the packed text, including those of a move under way. An object in etcd has up to
/// 1.5 MiB.
const SHARD_BYTES_MAX: usize = 1_400_000;
const PARTITION_BYTES: usize = 92;
const REPLICA_BYTES: usize = 12;
/// The bytes of a resource without its own name and settings; names of namespaces and of the
/// cluster count here.
const RESOURCE_BYTES: usize = 400;
const SETTING_BYTES: usize = 6;

/// The sums over all topics; every change updates them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// The number of partitions.
    pub(super) partitions: usize,
    /// The number of partitions that the topics' resources ask for.
    pub(super) wanted: usize,
    /// Estimated bytes of the partitions in each shard, and of the resources that it keeps.
    shards: [usize; SHARDS as usize],
}

impl Sums {
    /// Whether `more` partitions of a topic, with `replicas` replicas each, fit into its shard.
    pub(super) fn has_room(&self, topic: TopicId, more: usize, replicas: usize) -> bool {
        let there = self.shards.get(usize::from(shard_of(topic))).copied().unwrap_or_default();
        there.saturating_add(more.saturating_mul(weight(replicas))) <= SHARD_BYTES_MAX
    }

    /// Whether a partition of a topic can grow from `before` to `after` replicas: during a move it
    /// has its old and its new replicas.
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

    /// Replaces the estimated bytes of a topic's resource in its shard: `before` becomes `after`.
    pub(super) fn keep(&mut self, topic: TopicId, before: usize, after: usize) {
        let shard = self.shard(topic);
        *shard = *shard + after - before;
    }

    pub(super) fn subtract(&mut self, topic: &Topic, home: &str) {
        self.keep(topic.id, kept(topic, home), 0);
        self.wanted -= topic.partitions_wanted();
        self.partitions -= topic.partitions.len();
        let weights = topic.partitions.iter().map(|partition| weight(partition.replicas.len()));
        *self.shard(topic.id) -= weights.sum::<usize>();
    }
}

/// The estimated bytes of a topic's resource in its shard. It is 0 unless the resource has the
/// policy `Retain` or is in another namespace than the cluster's.
pub(super) fn kept(topic: &Topic, home: &str) -> usize {
    let spec = &topic.resource.spec;
    if spec.deletion_policy != DeletionPolicy::Retain && topic.key.namespace == home {
        return 0;
    }
    let settings =
        spec.config.texts().iter().map(|(name, text)| name.len() + text.len() + SETTING_BYTES);
    RESOURCE_BYTES + topic.key.name.len() + topic.name().len() + settings.sum::<usize>()
}

/// The estimated bytes of a partition in its shard.
fn weight(replicas: usize) -> usize {
    PARTITION_BYTES + REPLICA_BYTES * replicas
}
