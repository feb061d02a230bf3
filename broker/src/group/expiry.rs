//! PURE: the expiry of offsets and groups (KIP-211; `OffsetMetadataManager.cleanupExpiredOffsets`
//! in Apache Kafka).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;
use weir_protocol::reset_marks;

use super::offsets::Committed;
use super::{Due, Group, Groups, Kind, Phase, record};
use crate::coordinator::{Now, Outcome};

/// Whether this name marks resets, and is not a topic.
fn is_mark(topic: &str) -> bool {
    topic == reset_marks::TOPIC
}

impl Group {
    /// The time from which a committed offset ages; `None` while it is in use. The offsets of a
    /// group age once the group is empty. From their commit on age those of a stable group's
    /// unsubscribed topics, and those of committers without membership.
    fn ages_since(&self, committed: &Committed) -> Option<i64> {
        match &self.kind {
            Kind::Classic(group) => match (&group.protocol_type, group.phase) {
                (None, _) => Some(committed.commit_ms),
                (Some(_), Phase::Empty) => Some(
                    group.phase_since_ms.unwrap_or(committed.commit_ms).max(committed.commit_ms),
                ),
                (Some(_), Phase::Stable) if group.is_of_consumers() => Some(committed.commit_ms),
                _ => None,
            },
            Kind::Consumer(_) => Some(committed.commit_ms),
        }
    }

    fn expired(&self, now: Now, retention_ms: i64) -> Vec<(Arc<str>, i32)> {
        let is_old = |committed: &Committed| match (committed.expire_ms, self.ages_since(committed))
        {
            (_, None) => false,
            (Some(at), Some(_)) => now.wall_ms >= at,
            (None, Some(since)) => now.wall_ms.saturating_sub(since) >= retention_ms,
        };
        let unsubscribed = self.offsets.topics().filter(|(topic, _)| !self.is_subscribed(topic));
        let old = unsubscribed.flat_map(|(topic, partitions)| {
            let old = partitions.iter().filter(|(_, committed)| is_old(committed));
            old.map(|(index, _)| (Arc::clone(topic), *index))
                .filter(|(topic, index)| !self.offsets.is_unstable(topic, *index))
        });
        let (marks, mut old): (Vec<_>, Vec<_>) = old.partition(|(topic, _)| is_mark(topic));
        // Marks of resets expire with the group's last offset, once it has no members.
        let others = self.offsets.having(|topic, _| !is_mark(topic)).len();
        if others == old.len() && self.is_empty() {
            old.extend(marks);
        }
        old
    }

    /// Removes offsets and writes their tombstones.
    pub(super) fn remove_offsets(
        &mut self,
        offsets: impl IntoIterator<Item = (Arc<str>, i32)>,
        outcome: &mut Outcome,
    ) {
        for (topic, partition) in offsets {
            self.offsets.forget(&topic, partition);
            outcome.records.push(record::offset(&self.id, &topic, partition, None));
        }
    }

    /// Whether the group can be removed.
    fn is_abandoned(&self) -> bool {
        let is_awaited = matches!(&self.kind, Kind::Classic(group) if group.is_awaited());
        self.offsets.is_empty() && self.is_empty() && !is_awaited
    }
}

impl Groups {
    /// Removes expired offsets and groups, and schedules the next check.
    pub(super) fn expire(&mut self, now: Now, outcome: &mut Outcome) {
        let (retention_ms, again_ms) =
            (self.around.settings.offsets_retention_ms, self.around.settings.retention_check_ms);
        for group in self.groups.values_mut() {
            let expired = group.expired(now, retention_ms);
            group.remove_offsets(expired, outcome);
        }
        self.groups.retain(|_, group| {
            let goes = group.is_abandoned();
            if goes {
                group.tombstones(outcome);
            }
            !goes
        });
        self.topics.retain(|topic, _| Arc::strong_count(topic) > 1);
        self.around.deadlines.add(now.ms + again_ms, Due::Expiry);
    }

    /// Removes the offsets of deleted topics, even if another topic has the name now, and the
    /// offsets of open transactions for them.
    pub(super) fn forget_deleted_topics(&mut self, outcome: &mut Outcome) {
        let image = &self.around.image;
        let id_now = |name: &str| image.topic_by_name(name).map(|topic| topic.id.0);
        let changed = self.topics.iter().filter(|(name, known)| {
            !is_mark(name) && id_now(name).is_none_or(|id| **known != Some(id))
        });
        let changed: BTreeMap<Arc<str>, Remade> = changed
            .map(|(name, before)| {
                let remade = Remade { before: *before, now: id_now(name) };
                (Arc::clone(name), remade)
            })
            .collect();
        if changed.is_empty() {
            return;
        }
        for group in self.groups.values_mut() {
            let mut gone = group.offsets.having(|topic, committed| {
                changed.get(topic).is_some_and(|topic| topic.is_of_the_old(committed))
            });
            // A tombstone deletes the whole key. If the new topic has an offset already, in a
            // transaction or not, that one must stay.
            for known in group.offsets.having(|topic, committed| {
                changed.get(topic).is_some_and(|topic| topic.is_of_the_new(committed))
            }) {
                gone.remove(&known);
            }
            group.remove_offsets(gone, outcome);
        }
        for (name, Remade { now, .. }) in changed {
            match now {
                Some(_) => self.topics.insert(name, now),
                None => self.topics.remove(&name),
            };
        }
    }
}

/// A topic name that belongs to another topic now, or to none.
struct Remade {
    /// The id of the previous topic, if it is known.
    before: Option<Uuid>,
    now: Option<Uuid>,
}

impl Remade {
    fn is_of_the_new(&self, committed: &Committed) -> bool {
        self.now == Some(committed.topic_id)
    }

    /// A commit without a topic id was for the previous topic.
    fn is_of_the_old(&self, committed: &Committed) -> bool {
        match self.now {
            None => true,
            Some(_) if committed.topic_id.is_nil() => self.before.is_some(),
            Some(_) => !self.is_of_the_new(committed),
        }
    }
}
