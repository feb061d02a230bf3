//! PURE: the committed offsets of one group.
//!
//! They are in sorted vectors: most groups have few offsets, and a node of a tree would take more
//! memory than all of them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;
use weir_protocol::messages::OffsetCommitValue;
use weir_protocol::types::ProducerId;

use super::memory::{GROUP_BYTES, Held, OFFSET_BYTES, PENDING_BYTES, TOPIC_BYTES};

/// The first version with GROUP_ID_NOT_FOUND and STALE_MEMBER_EPOCH (KIP-848).
pub(super) const NEW_ERRORS_VERSION: i16 = 9;

/// The version for requests without a version of their own.
pub(super) const NEWEST_VERSION: i16 = NEW_ERRORS_VERSION;

/// The position of a commit among all commits written to the partition. The last commit of a key
/// counts, even if an earlier one takes effect later, because compaction keeps only the last. It
/// stands for the record's offset; only the order matters.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

impl Place {
    /// The next position.
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Hidden, so that two coordinators of the same log compare as equal. Compaction removes records,
/// so their positions differ.
impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("_")
    }
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) place: Place,
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) metadata: Box<str>,
    pub(super) commit_ms: i64,
    /// The expiry in milliseconds since 1970, if the commit has one (OffsetCommit up to version 4).
    pub(super) expire_ms: Option<i64>,
    pub(super) topic_id: Uuid,
}

impl Committed {
    pub(super) fn new(value: OffsetCommitValue, place: Place) -> Self {
        Self {
            place,
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.into(),
            commit_ms: value.commit_timestamp,
            expire_ms: (value.expire_timestamp >= 0).then_some(value.expire_timestamp),
            topic_id: value.topic_id,
        }
    }

    /// Whether it was committed for the topic with this id, as far as both are known.
    pub(super) fn is_for(&self, topic: Uuid) -> bool {
        self.topic_id.is_nil() || topic.is_nil() || self.topic_id == topic
    }
}

/// Offsets that take effect when their transaction commits
/// (`OffsetMetadataManager.Offsets.pendingTransactionalOffsets`).
pub(super) type Pending = BTreeMap<(Arc<str>, i32), Committed>;

/// The offsets of one group, by topic and partition.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    topics: Vec<(Arc<str>, Vec<(i32, Committed)>)>,
    /// The offsets of open transactions, by producer. Few groups have any.
    pending: BTreeMap<ProducerId, Pending>,
    /// The bytes of all of them.
    bytes: usize,
    /// The bytes of those in open transactions.
    pending_bytes: usize,
    /// The bytes of the group itself, which count once it has offsets.
    group_bytes: usize,
    held: Held,
}

fn bytes_of(committed: &Committed) -> usize {
    OFFSET_BYTES + committed.metadata.len()
}

fn bytes_of_pending(committed: &Committed) -> usize {
    PENDING_BYTES + committed.metadata.len()
}

impl Offsets {
    /// The offsets of the group with this id, whose bytes count in `held`.
    pub(super) fn new(held: Held, group: &str) -> Self {
        Self { group_bytes: GROUP_BYTES + group.len(), held, ..Self::default() }
    }

    /// The bytes that count.
    fn total(&self, bytes: usize) -> usize {
        if self.is_empty() { 0 } else { self.group_bytes + bytes }
    }

    /// Counts the bytes after a change.
    fn count(&mut self) {
        #[cfg(test)]
        if self.bytes < 10_000 {
            assert_eq!(self.total(self.bytes), self.counted());
            let pending = self.pending.values().flat_map(BTreeMap::values);
            assert_eq!(self.pending_bytes, pending.map(bytes_of_pending).sum::<usize>());
        }
        self.held.set_with_passing(self.total(self.bytes), self.pending_bytes);
    }

    fn set_pending(&mut self, bytes: usize) {
        self.bytes = self.bytes - self.pending_bytes + bytes;
        self.pending_bytes = bytes;
    }

    /// The bytes, computed anew.
    #[cfg(test)]
    pub(super) fn counted(&self) -> usize {
        let topics = self.topics.iter().map(|(_, partitions)| {
            TOPIC_BYTES + partitions.iter().map(|(_, committed)| bytes_of(committed)).sum::<usize>()
        });
        let pending = self.pending.values().flat_map(BTreeMap::values).map(bytes_of_pending);
        self.total(topics.chain(pending).sum())
    }

    /// How many bytes more the group takes with its first offset.
    pub(super) fn more_with_any(&self) -> usize {
        if self.is_empty() { self.group_bytes } else { 0 }
    }

    /// How many bytes more it takes with the first offset of this topic.
    pub(super) fn more_with_topic(&self, topic: &str) -> usize {
        if self.partitions(topic).is_empty() { TOPIC_BYTES } else { 0 }
    }

    /// How many bytes more it takes with a committed offset that has so many bytes of metadata.
    pub(super) fn more_with(&self, topic: &str, partition: i32, metadata: usize) -> usize {
        let known = self.get(topic, partition).map_or(0, bytes_of);
        (OFFSET_BYTES + metadata).saturating_sub(known)
    }

    /// How many bytes more it takes while this producer's transaction has such an offset.
    pub(super) fn more_while_pending(
        &self,
        producer: ProducerId,
        topic: &Arc<str>,
        partition: i32,
        metadata: usize,
    ) -> usize {
        let pending = self.pending.get(&producer);
        let known = pending.and_then(|pending| pending.get(&(Arc::clone(topic), partition)));
        (PENDING_BYTES + metadata).saturating_sub(known.map_or(0, bytes_of_pending))
    }

    /// Whether there are no offsets, nor any in open transactions.
    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.pending.is_empty()
    }

    /// Whether an open transaction may commit another offset (KIP-447).
    pub(super) fn is_unstable(&self, topic: &str, partition: i32) -> bool {
        let names = |((name, index), _): (&(Arc<str>, i32), &Committed)| {
            **name == *topic && *index == partition
        };
        self.pending.values().any(|offsets| offsets.iter().any(names))
    }

    /// Keeps an offset that takes effect when its transaction commits.
    pub(super) fn insert_pending(
        &mut self,
        producer: ProducerId,
        topic: &Arc<str>,
        partition: i32,
        committed: Committed,
    ) {
        let mut bytes = self.pending_bytes + bytes_of_pending(&committed);
        let pending = self.pending.entry(producer).or_default();
        if let Some(before) = pending.insert((Arc::clone(topic), partition), committed) {
            bytes -= bytes_of_pending(&before);
        }
        self.set_pending(bytes);
        self.count();
    }

    /// Ends a transaction. An offset that was committed after the transaction's stays.
    pub(super) fn end(&mut self, producer: ProducerId, committed: bool) {
        for ((topic, partition), offset) in self.pending.remove(&producer).unwrap_or_default() {
            self.set_pending(self.pending_bytes - bytes_of_pending(&offset));
            let is_newest =
                self.get(&topic, partition).is_none_or(|known| known.place < offset.place);
            if committed && is_newest {
                self.put(&topic, partition, offset);
            }
        }
        self.count();
    }

    /// Removes a partition's offset, also from open transactions, because a tombstone follows all
    /// of them. Returns whether there was any.
    pub(super) fn forget(&mut self, topic: &str, partition: i32) -> bool {
        let mut was_there = self.remove(topic, partition);
        let mut gone = 0;
        self.pending.retain(|_, offsets| {
            offsets.retain(|(name, index), committed| {
                let stays = **name != *topic || *index != partition;
                gone += if stays { 0 } else { bytes_of_pending(committed) };
                stays
            });
            !offsets.is_empty()
        });
        was_there |= gone > 0;
        self.set_pending(self.pending_bytes - gone);
        self.count();
        was_there
    }

    /// The partitions with a committed or pending offset that satisfies `is_meant`.
    pub(super) fn having(
        &self,
        is_meant: impl Fn(&Arc<str>, &Committed) -> bool,
    ) -> BTreeSet<(Arc<str>, i32)> {
        let committed = self.topics().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(index, committed)| (topic, *index, committed))
        });
        let pending = self.pending.values().flatten();
        let pending = pending.map(|((topic, index), committed)| (topic, *index, committed));
        committed
            .chain(pending)
            .filter(|(topic, _, committed)| is_meant(topic, committed))
            .map(|(topic, index, _)| (Arc::clone(topic), index))
            .collect()
    }

    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        let partitions = self.partitions(topic);
        let at = partitions.binary_search_by_key(&partition, |(index, _)| *index).ok()?;
        partitions.get(at).map(|(_, committed)| committed)
    }

    /// The offsets of one topic, in order.
    pub(super) fn partitions(&self, topic: &str) -> &[(i32, Committed)] {
        let found = self.topics.binary_search_by(|(name, _)| (**name).cmp(topic));
        found.ok().and_then(|at| self.topics.get(at)).map_or(&[], |(_, partitions)| partitions)
    }

    /// All offsets by topic, in order.
    pub(super) fn topics(&self) -> impl Iterator<Item = (&Arc<str>, &[(i32, Committed)])> {
        self.topics.iter().map(|(name, partitions)| (name, partitions.as_slice()))
    }

    pub(super) fn insert(&mut self, topic: &Arc<str>, partition: i32, committed: Committed) {
        self.put(topic, partition, committed);
        self.count();
    }

    fn put(&mut self, topic: &Arc<str>, partition: i32, committed: Committed) {
        self.bytes += bytes_of(&committed);
        let at = match self.topics.binary_search_by(|(name, _)| name.cmp(topic)) {
            Ok(at) => at,
            Err(at) => {
                self.topics.insert(at, (Arc::clone(topic), Vec::new()));
                self.bytes += TOPIC_BYTES;
                at
            }
        };
        let Some((_, partitions)) = self.topics.get_mut(at) else { return };
        match partitions.binary_search_by_key(&partition, |(index, _)| *index) {
            Ok(at) => {
                if let Some(slot) = partitions.get_mut(at) {
                    self.bytes -= bytes_of(&slot.1);
                    slot.1 = committed;
                }
            }
            Err(at) => {
                if partitions.is_empty() {
                    partitions.reserve_exact(1);
                }
                partitions.insert(at, (partition, committed));
            }
        }
    }

    fn remove(&mut self, topic: &str, partition: i32) -> bool {
        let Ok(at) = self.topics.binary_search_by(|(name, _)| (**name).cmp(topic)) else {
            return false;
        };
        let Some((_, partitions)) = self.topics.get_mut(at) else { return false };
        let found = partitions.binary_search_by_key(&partition, |(index, _)| *index);
        if let Ok(found) = found {
            self.bytes -= bytes_of(&partitions.remove(found).1);
        }
        if partitions.is_empty() {
            self.topics.remove(at);
            self.bytes -= TOPIC_BYTES;
        }
        found.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(offset: i64, place: u64) -> Committed {
        let value = OffsetCommitValue { offset, ..Default::default() };
        Committed::new(value, Place(place))
    }

    #[test]
    fn offsets_are_kept_in_order_and_replaced() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut offsets = Offsets::default();
        for (place, (topic, partition, offset)) in
            (1..).zip([(&b, 1, 1), (&a, 5, 2), (&a, 0, 3), (&a, 5, 4)])
        {
            offsets.insert(topic, partition, committed(offset, place));
        }
        assert_eq!(offsets.get("a", 5).unwrap().offset, 4);
        assert!(offsets.get("a", 1).is_none() && offsets.get("c", 0).is_none());
        let all: Vec<_> = offsets
            .topics()
            .flat_map(|(name, partitions)| {
                partitions.iter().map(move |(index, at)| (name.to_string(), *index, at.offset))
            })
            .collect();
        assert_eq!(all, [("a".to_owned(), 0, 3), ("a".to_owned(), 5, 4), ("b".to_owned(), 1, 1)]);
        for (topic, partition, was_there) in
            [("b", 1, true), ("b", 9, false), ("a", 5, true), ("x", 0, false)]
        {
            assert_eq!(offsets.forget(topic, partition), was_there);
        }
        assert_eq!(offsets.topics().count(), 1);
        offsets.forget("a", 0);
        assert!(offsets.is_empty());
    }

    #[test]
    fn a_transaction_commits_its_offsets_or_none() {
        let topic: Arc<str> = "a".into();
        let mut offsets = Offsets::default();
        offsets.insert_pending(ProducerId(1), &topic, 0, committed(5, 1));
        offsets.insert_pending(ProducerId(2), &topic, 1, committed(6, 2));
        assert!(
            offsets.is_unstable("a", 0)
                && !offsets.is_unstable("a", 2)
                && offsets.get("a", 0).is_none()
        );
        offsets.end(ProducerId(1), true);
        offsets.end(ProducerId(2), false);
        offsets.end(ProducerId(3), true);
        assert_eq!(offsets.get("a", 0).map(|found| found.offset), Some(5));
        assert!(offsets.get("a", 1).is_none() && !offsets.is_unstable("a", 0));
    }

    #[test]
    fn what_was_written_last_counts_though_a_transaction_ends_later() {
        let topic: Arc<str> = "a".into();
        let mut offsets = Offsets::default();
        offsets.insert_pending(ProducerId(1), &topic, 0, committed(5, 1));
        offsets.insert(&topic, 0, committed(50, 2));
        offsets.end(ProducerId(1), true);
        assert_eq!(offsets.get("a", 0).map(|found| found.offset), Some(50));
    }

    #[test]
    fn what_is_forgotten_is_not_waited_for() {
        let topic: Arc<str> = "a".into();
        let mut offsets = Offsets::default();
        for (producer, place) in [(1, 1), (2, 2)] {
            offsets.insert_pending(ProducerId(producer), &topic, 0, committed(5, place));
        }
        offsets.insert_pending(ProducerId(2), &topic, 1, committed(6, 3));
        assert_eq!(
            offsets.having(|_, committed| committed.offset == 5).into_iter().collect::<Vec<_>>(),
            [(topic, 0)]
        );
        assert!(offsets.forget("a", 0) && !offsets.forget("a", 0));
        assert!(!offsets.is_unstable("a", 0) && offsets.is_unstable("a", 1));
        offsets.end(ProducerId(1), true);
        offsets.end(ProducerId(2), true);
        assert!(offsets.get("a", 0).is_none() && offsets.get("a", 1).is_some());
    }
}
