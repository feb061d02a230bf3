//! PURE: the subscriptions of a group's members, and the target assignment
//! (`TargetAssignmentBuilder` in Apache Kafka).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;
use weir_protocol::messages::ConsumerGroupRegularExpressionValue;

use super::assignor::{Candidate, NAMES, Partitions, Topic, assign};
use super::patterns::{Matched, REFRESH_EVERY_MS, REGEXES_AT_ONCE, compile};
use super::{ConsumerGroup, Member, record};
use crate::group::decision::DecisionContext;
use crate::metadata::{MetadataImage, TopicImage};

/// A hash for the detection of changes (FNV-1a).
struct Hash(u64);

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        // Separates the parts, so that their borders matter.
        self.0 = (self.0 ^ 0xff).wrapping_mul(0x0000_0100_0000_01b3);
    }
}

fn topic(image: &MetadataImage, topic: &TopicImage) -> Topic {
    let racks_of = |replicas: &[weir_protocol::types::BrokerId]| {
        let racks = replicas.iter().filter_map(|id| image.brokers.get(id)?.rack.clone());
        racks.collect::<BTreeSet<String>>()
    };
    Topic {
        racks: topic.partitions.iter().map(|partition| racks_of(&partition.replicas)).collect(),
    }
}

impl ConsumerGroup {
    /// The names of the topics that a member subscribes to.
    fn subscription(&self, member: &Member) -> BTreeSet<Arc<str>> {
        let by_regex =
            member.regex.as_ref().and_then(|regex| self.regexes.get(regex)).into_iter().flatten();
        member.topics.iter().chain(by_regex).cloned().collect()
    }

    /// The names of all subscribed topics. Groups have many members with few different
    /// subscriptions, and each new member asks for this.
    fn subscribed_names(&self) -> BTreeSet<&Arc<str>> {
        let lists: BTreeSet<&BTreeSet<Arc<str>>> =
            self.members.values().map(|member| &member.topics).collect();
        let patterns: BTreeSet<&Arc<str>> =
            self.members.values().filter_map(|member| member.regex.as_ref()).collect();
        let by_regex = patterns.into_iter().filter_map(|pattern| self.regexes.get(pattern));
        lists.into_iter().chain(by_regex).flatten().collect()
    }

    /// The ids of the existing topics that a member subscribes to.
    pub(super) fn subscribed_ids(&self, member: &Member, image: &MetadataImage) -> BTreeSet<Uuid> {
        let names = self.subscription(member);
        names.iter().filter_map(|name| image.topic_by_name(name)).map(|topic| topic.id.0).collect()
    }

    /// Checks the topics again, if they may have changed; returns whether those of the
    /// subscriptions have.
    pub(super) fn look_at_topics(&mut self, must: bool, turn: &mut DecisionContext<'_>) -> bool {
        let image = Arc::clone(turn.image);
        if !must && self.looked_at == Some(image.version) && !self.matched.is_due(turn.now.ms) {
            return false;
        }
        self.looked_at = Some(image.version);
        self.resolve(&image, turn);
        let hash = self.hash_of_topics(&image);
        hash != self.metadata_hash
    }

    /// Finds the topics that regular expressions match. New ones come first, then those that were
    /// matched with older metadata and are due.
    fn resolve(&mut self, image: &MetadataImage, turn: &mut DecisionContext<'_>) {
        let used: BTreeSet<Arc<str>> =
            self.members.values().filter_map(|member| member.regex.clone()).collect();
        let unused: Vec<_> =
            self.regexes.keys().filter(|pattern| !used.contains(*pattern)).cloned().collect();
        for pattern in unused {
            turn.outcome.records.push(record::regex(&self.id, &pattern, None));
            self.remove_regex(&pattern);
        }
        self.matched.versions.retain(|pattern, _| used.contains(pattern));
        let (known, new): (Vec<_>, Vec<_>) =
            used.into_iter().partition(|pattern| self.regexes.contains_key(pattern));
        let is_behind = |matched: &Matched, pattern: &Arc<str>| {
            matched.versions.get(pattern) != Some(&image.version)
        };
        let behind: Vec<_> =
            known.into_iter().filter(|pattern| is_behind(&self.matched, pattern)).collect();
        let again = match turn.now.ms >= self.matched.again_at {
            true => behind.len().min(REGEXES_AT_ONCE.saturating_sub(new.len())),
            false => 0,
        };
        if again == REGEXES_AT_ONCE {
            self.matched.again_at = turn.now.ms + REFRESH_EVERY_MS;
        }
        self.matched.is_behind = new.len() > REGEXES_AT_ONCE || behind.len() > again;
        for pattern in new.into_iter().take(REGEXES_AT_ONCE).chain(behind.into_iter().take(again)) {
            self.matched.versions.insert(Arc::clone(&pattern), image.version);
            let Some(regex) = compile(&pattern) else { continue };
            let matching = image.topics().filter(|topic| regex.is_match(topic.name.as_bytes()));
            let topics: BTreeSet<Arc<str>> =
                matching.map(|topic| Arc::clone(&topic.name)).collect();
            if self.regexes.get(&pattern) != Some(&topics) {
                let value = ConsumerGroupRegularExpressionValue {
                    topics: topics.iter().map(|topic| topic.to_string()).collect(),
                    version: i64::try_from(image.version).unwrap_or(i64::MAX),
                    timestamp: turn.now.wall_ms,
                };
                turn.outcome.records.push(record::regex(&self.id, &pattern, Some(value)));
                self.put_regex(pattern, topics);
            }
        }
    }

    /// The hash of the topics' ids, partitions and racks, on which an assignment depends besides
    /// the subscriptions. Without topics it is 0, as in a new group.
    pub(super) fn hash_of_topics(&self, image: &MetadataImage) -> i64 {
        let found: Vec<_> =
            self.subscribed_names().iter().filter_map(|name| image.topic_by_name(name)).collect();
        if found.is_empty() {
            return 0;
        }
        let mut hash = Hash(0xcbf2_9ce4_8422_2325);
        for found in found {
            hash.add(found.id.0.as_bytes());
            for racks in topic(image, found).racks {
                for rack in racks {
                    hash.add(rack.as_bytes());
                }
                hash.add(b"");
            }
        }
        hash.0 as i64
    }

    /// The assignor that most members ask for.
    pub(super) fn assignor(&self) -> &'static str {
        let votes = |name: &str| {
            let asks = |member: &&Member| member.assignor.as_deref() == Some(name);
            self.members.values().filter(asks).count()
        };
        // With equal votes the first one, which is also the default.
        let best = NAMES.iter().rev().max_by_key(|name| votes(name));
        best.copied().unwrap_or("uniform")
    }

    /// Whether a target may be computed now: the group has changed, and the assignment interval has
    /// passed (KIP-1263). Always true of an unknown last time, and without an interval, whatever
    /// the clocks say (`canComputeNextTargetAssignment`).
    pub(super) fn may_assign(&self, turn: &DecisionContext<'_>) -> bool {
        let interval_ms =
            i64::from(turn.settings.of_group(turn.image, &self.id).assignment_interval_ms);
        let is_due = self.assigned_at == 0
            || interval_ms == 0
            || turn.now.wall_ms >= self.assigned_at.saturating_add(interval_ms);
        self.epoch > self.target_epoch && is_due
    }

    /// Computes a new target, if the group has changed and the interval allows it.
    pub(super) fn assign_anew(&mut self, turn: &mut DecisionContext<'_>) {
        if !self.may_assign(turn) {
            return;
        }
        self.bumped_at = Some(turn.now.ms);
        let image = Arc::clone(turn.image);
        let mut topics: BTreeMap<Uuid, Topic> = BTreeMap::new();
        // Members with the same subscription share its topics.
        let mut subscriptions: BTreeMap<_, Arc<BTreeSet<Uuid>>> = BTreeMap::new();
        let candidates: Vec<_> = self
            .members
            .values()
            .map(|member| {
                let ids =
                    subscriptions.entry((&member.topics, &member.regex)).or_insert_with(|| {
                        let names = self.subscription(member);
                        let found = names.iter().filter_map(|name| image.topic_by_name(name));
                        let ids = found.map(|found| {
                            topics.entry(found.id.0).or_insert_with(|| topic(&image, found));
                            found.id.0
                        });
                        Arc::new(ids.collect())
                    });
                Candidate {
                    topics: Arc::clone(ids),
                    id: &member.id,
                    instance: member.instance.as_ref(),
                    rack: member.rack.as_deref(),
                    before: self.targets.get(&member.id),
                }
            })
            .collect();
        let assigned = assign(self.assignor(), &candidates, &topics);
        drop((candidates, subscriptions));
        for (id, target) in assigned {
            if self.targets.get(&id) != Some(&target) {
                self.set_target(&id, target, turn.outcome);
            }
        }
        self.set_target_epoch(self.epoch, turn.now.wall_ms, turn.outcome);
    }

    /// The target assignment of a member.
    pub(super) fn target_of(&self, id: &str) -> Partitions {
        self.targets.get(id).cloned().unwrap_or_default()
    }
}
