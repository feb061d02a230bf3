//! PURE: the offsets that one group has committed.
//!
//! They stand in sorted vectors: most groups have few, and a tree's node would take more memory than all of them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;
use weir_protocol::messages::OffsetCommitValue;
use weir_protocol::types::ProducerId;

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) metadata: Box<str>,
    pub(super) commit_ms: i64,
    /// When it expires, where the commit said so (OffsetCommit up to version 4).
    pub(super) expire_ms: Option<i64>,
    pub(super) topic_id: Uuid,
}

impl From<OffsetCommitValue> for Committed {
    fn from(value: OffsetCommitValue) -> Self {
        Self {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.into(),
            commit_ms: value.commit_timestamp,
            expire_ms: (value.expire_timestamp >= 0).then_some(value.expire_timestamp),
            topic_id: value.topic_id,
        }
    }
}

/// Offsets that a transaction commits if it is committed itself (`OffsetMetadataManager.Offsets.pendingTransactionalOffsets`).
pub(super) type Pending = BTreeMap<(Arc<str>, i32), Committed>;

/// The offsets of one group, by topic and partition.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    topics: Vec<(Arc<str>, Vec<(i32, Committed)>)>,
    /// Those of open transactions, by producer. Hardly any group has some.
    pending: BTreeMap<ProducerId, Pending>,
}

impl Offsets {
    /// Whether there is none, and none that may come by a transaction.
    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.pending.is_empty()
    }

    /// Whether a transaction that is open may commit another offset (KIP-447).
    pub(super) fn is_unstable(&self, topic: &str, partition: i32) -> bool {
        let names = |((name, index), _): (&(Arc<str>, i32), &Committed)| **name == *topic && *index == partition;
        self.pending.values().any(|offsets| offsets.iter().any(names))
    }

    /// A transaction commits an offset, if it is committed itself.
    pub(super) fn insert_pending(&mut self, producer: ProducerId, topic: &Arc<str>, partition: i32, committed: Committed) {
        self.pending
            .entry(producer)
            .or_default()
            .insert((Arc::clone(topic), partition), committed);
    }

    /// Forgets all but what open transactions may commit.
    pub(super) fn forget_committed(&mut self) {
        self.topics.clear();
    }

    /// A transaction ended.
    pub(super) fn end(&mut self, producer: ProducerId, committed: bool) {
        for ((topic, partition), offset) in self.pending.remove(&producer).unwrap_or_default() {
            if committed {
                self.insert(&topic, partition, offset);
            }
        }
    }

    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        let partitions = self.partitions(topic);
        let at = partitions.binary_search_by_key(&partition, |(index, _)| *index).ok()?;
        partitions.get(at).map(|(_, committed)| committed)
    }

    /// Those of one topic, in order.
    pub(super) fn partitions(&self, topic: &str) -> &[(i32, Committed)] {
        let found = self.topics.binary_search_by(|(name, _)| (**name).cmp(topic));
        found.ok().and_then(|at| self.topics.get(at)).map_or(&[], |(_, partitions)| partitions)
    }

    /// All of them, by topic, in order.
    pub(super) fn topics(&self) -> impl Iterator<Item = (&Arc<str>, &[(i32, Committed)])> {
        self.topics.iter().map(|(name, partitions)| (name, partitions.as_slice()))
    }

    pub(super) fn insert(&mut self, topic: &Arc<str>, partition: i32, committed: Committed) {
        let at = match self.topics.binary_search_by(|(name, _)| name.cmp(topic)) {
            Ok(at) => at,
            Err(at) => {
                self.topics.insert(at, (Arc::clone(topic), Vec::new()));
                at
            }
        };
        let Some((_, partitions)) = self.topics.get_mut(at) else { return };
        match partitions.binary_search_by_key(&partition, |(index, _)| *index) {
            Ok(at) => {
                if let Some(slot) = partitions.get_mut(at) {
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

    pub(super) fn remove(&mut self, topic: &str, partition: i32) {
        let Ok(at) = self.topics.binary_search_by(|(name, _)| (**name).cmp(topic)) else {
            return;
        };
        let Some((_, partitions)) = self.topics.get_mut(at) else { return };
        partitions.retain(|(index, _)| *index != partition);
        if partitions.is_empty() {
            self.topics.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_kept_in_order_and_replaced() {
        let committed = |offset| {
            Committed::from(OffsetCommitValue {
                offset,
                ..Default::default()
            })
        };
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut offsets = Offsets::default();
        for (topic, partition, offset) in [(&b, 1, 1), (&a, 5, 2), (&a, 0, 3), (&a, 5, 4)] {
            offsets.insert(topic, partition, committed(offset));
        }
        assert_eq!(offsets.get("a", 5).unwrap().offset, 4);
        assert!(offsets.get("a", 1).is_none() && offsets.get("c", 0).is_none());
        let all: Vec<_> = offsets
            .topics()
            .flat_map(|(name, partitions)| partitions.iter().map(move |(index, at)| (name.to_string(), *index, at.offset)))
            .collect();
        assert_eq!(all, [("a".to_owned(), 0, 3), ("a".to_owned(), 5, 4), ("b".to_owned(), 1, 1)]);
        for (topic, partition) in [("b", 1), ("b", 9), ("a", 5), ("x", 0)] {
            offsets.remove(topic, partition);
        }
        assert_eq!(offsets.topics().count(), 1);
        offsets.remove("a", 0);
        assert!(offsets.is_empty());
    }

    #[test]
    fn a_transaction_commits_its_offsets_or_none() {
        let committed = |offset| {
            Committed::from(OffsetCommitValue {
                offset,
                ..Default::default()
            })
        };
        let topic: Arc<str> = "a".into();
        let mut offsets = Offsets::default();
        offsets.insert_pending(ProducerId(1), &topic, 0, committed(5));
        offsets.insert_pending(ProducerId(2), &topic, 1, committed(6));
        assert!(offsets.is_unstable("a", 0) && !offsets.is_unstable("a", 2) && offsets.get("a", 0).is_none());
        offsets.end(ProducerId(1), true);
        offsets.end(ProducerId(2), false);
        offsets.end(ProducerId(3), true);
        assert_eq!(offsets.get("a", 0).map(|found| found.offset), Some(5));
        assert!(offsets.get("a", 1).is_none() && !offsets.is_unstable("a", 0));
    }
}
