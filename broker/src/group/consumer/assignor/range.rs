//! PURE: the assignor `range`: topics with equal numbers of partitions get the same assignment
//! (`RangeAssignor` in Apache Kafka).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use uuid::Uuid;

use super::candidate::{Candidate, Partitions, Topic, partitions_of, subscribers};

/// Per topic, assigns consecutive partitions to the members, in the order of their instance and
/// member ids. So topics with equal numbers of partitions get the same assignment.
pub(super) fn range(members: &[Candidate<'_>], topics: &BTreeMap<Uuid, Topic>) -> Vec<Partitions> {
    let mut assigned = vec![Partitions::new(); members.len()];
    let mut order: Vec<usize> = (0..members.len()).collect();
    // Static members first, because their instance ids outlive their member ids.
    order.sort_by_key(|index| {
        members.get(*index).map(|member| (member.instance.is_none(), member.instance, member.id))
    });
    for (id, subscribed) in subscribers(members, order.into_iter(), topics) {
        let (Ok(count), Some(topic)) = (i32::try_from(subscribed.len()), topics.get(&id)) else {
            continue;
        };
        let partitions = partitions_of(topic);
        let (Some(each), Some(more)) =
            (partitions.checked_div(count), partitions.checked_rem(count))
        else {
            continue;
        };
        let mut next = 0;
        for (turn, index) in (0..).zip(subscribed.iter()) {
            let end = next + each + i32::from(turn < more);
            // The members after this one get none.
            if next == end {
                break;
            }
            if let Some(assigned) = assigned.get_mut(*index) {
                assigned.insert(id, (next..end).collect());
            }
            next = end;
        }
    }
    assigned
}
