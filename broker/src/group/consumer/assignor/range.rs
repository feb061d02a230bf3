//! PURE: the assignor `range`: members have the same partitions of topics with as many of them
//! (`RangeAssignor` in Apache Kafka).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use uuid::Uuid;

use super::candidate::{Candidate, Partitions, Topic, partitions_of, subscribers};

/// Per topic, consecutive partitions to each member, in the order of their instances and ids:
/// members have the same partitions of topics with as many of them.
pub(super) fn range(members: &[Candidate<'_>], topics: &BTreeMap<Uuid, Topic>) -> Vec<Partitions> {
    let mut assigned = vec![Partitions::new(); members.len()];
    let mut order: Vec<usize> = (0..members.len()).collect();
    // Static members first: their names outlive their ids.
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
            // Nobody after this one gets any.
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
