//! Repeated entries in a request. A list may repeat an entry as often as it has room, and no client
//! needs more than one answer.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Keeps the first entry of each key.
pub(super) fn once<T, K: Hash + Eq>(mut named: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    if named.len() > 1 {
        let mut seen = HashSet::with_capacity(named.len());
        named.retain(|one| seen.insert(key(one)));
    }
    named
}

/// Keeps the last entry of each partition of a topic, as Apache Kafka does where it puts partitions
/// into a map.
pub(super) fn keep_last<T, P, K: Hash + Eq>(
    topics: &mut [T],
    name: impl Fn(&T) -> K,
    partitions: impl Fn(&mut T) -> &mut Vec<P>,
    index: impl Fn(&P) -> i32,
) {
    let count: usize = topics.iter_mut().map(|topic| partitions(topic).len()).sum();
    if count <= 1 {
        return;
    }
    let mut numbers = HashMap::new();
    let mut seen = HashSet::with_capacity(count);
    for topic in topics.iter_mut().rev() {
        let next = numbers.len();
        let number = *numbers.entry(name(topic)).or_insert(next);
        let partitions = partitions(topic);
        // Reversed, so that `seen` meets the last entry first.
        partitions.reverse();
        partitions.retain(|partition| seen.insert((number, index(partition))));
        partitions.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_is_left() {
        assert_eq!(once(vec![("a", 1), ("b", 2), ("a", 3)], |one| one.0), [("a", 1), ("b", 2)]);
        let mut topics = vec![
            ("a", vec![(0, 'x'), (1, 'x'), (0, 'y')]),
            ("b", vec![(0, 'x')]),
            ("a", vec![(1, 'z'), (2, 'z')]),
        ];
        keep_last(&mut topics, |topic| topic.0, |topic| &mut topic.1, |partition| partition.0);
        assert_eq!(
            topics,
            [("a", vec![(0, 'y')]), ("b", vec![(0, 'x')]), ("a", vec![(1, 'z'), (2, 'z')])],
            "topics that are named twice are the same topic"
        );
    }
}
