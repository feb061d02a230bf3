//! PURE: the input of an assignor: topics, and the members that subscribe to them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

/// Partitions by topic.
pub(in crate::group) type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;

/// A topic with subscribers.
#[derive(Clone, Debug, Default)]
pub(in crate::group) struct Topic {
    /// The racks of each partition's replicas, one entry per partition.
    pub(in crate::group) racks: Vec<BTreeSet<String>>,
}

/// A member, as an assignor sees it.
#[derive(Clone, Debug)]
pub(in crate::group) struct Candidate<'a> {
    pub(in crate::group) id: &'a Arc<str>,
    pub(in crate::group) instance: Option<&'a Arc<str>>,
    pub(in crate::group) rack: Option<&'a str>,
    /// The existing topics that it subscribes to.
    pub(in crate::group) topics: Arc<BTreeSet<Uuid>>,
    pub(in crate::group) before: Option<&'a Partitions>,
}

pub(super) fn partitions_of(topic: &Topic) -> i32 {
    i32::try_from(topic.racks.len()).unwrap_or(i32::MAX)
}

/// The subscribers of each topic, in this order of members.
pub(super) fn subscribers(
    members: &[Candidate<'_>],
    order: impl Iterator<Item = usize>,
    topics: &BTreeMap<Uuid, Topic>,
) -> BTreeMap<Uuid, Arc<[usize]>> {
    // Members mostly have the same subscription; then all topics share one list.
    if is_homogeneous(members) {
        let (all, wanted): (Arc<[usize]>, _) = (order.collect(), members.first());
        let wanted = wanted.into_iter().flat_map(|member| member.topics.iter());
        let there_are = wanted.filter(|id| topics.contains_key(id));
        return there_are.map(|id| (*id, Arc::clone(&all))).collect();
    }
    let mut subscribed: BTreeMap<Uuid, Vec<usize>> =
        topics.keys().map(|id| (*id, Vec::new())).collect();
    for index in order {
        for topic in members.get(index).into_iter().flat_map(|member| member.topics.iter()) {
            if let Some(subscribed) = subscribed.get_mut(topic) {
                subscribed.push(index);
            }
        }
    }
    let wanted = subscribed.into_iter().filter(|(_, members)| !members.is_empty());
    wanted.map(|(topic, members)| (topic, members.into())).collect()
}

/// Whether all members subscribe to the same topics.
pub(super) fn is_homogeneous(members: &[Candidate<'_>]) -> bool {
    members.windows(2).all(|pair| {
        matches!(pair, [one, two] if Arc::ptr_eq(&one.topics, &two.topics) || one.topics == two.topics)
    })
}
