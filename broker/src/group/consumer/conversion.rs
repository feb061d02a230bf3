//! PURE: a group that goes on in the other protocol with the members that it has (KIP-848, "Online
//! migration"; `ConsumerGroup.fromClassicGroup` and `ClassicGroup.fromConsumerGroup` in Apache
//! Kafka). Generation and epoch go on from each other, and everybody keeps its assignment until
//! told otherwise.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::assignor::Partitions;
use super::member::Classic;
use super::reconcile::Current;
use super::{ConsumerGroup, Downgrade, Member, record};
use crate::coordinator::Outcome;
use crate::group::classic::{self, ClassicGroup};
use crate::group::embedded;
use crate::group::settings::Settings;
use crate::group::turn::Turn;
use crate::metadata::MetadataImage;

/// Why a classic group cannot go on in the consumer protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::group) enum WhyNot {
    /// What its members said cannot be read.
    Malformed,
    /// Their assignor says more to them than their partitions, which would be lost.
    CustomAssignor,
}

impl ConsumerGroup {
    /// What the classic group, which has members, is in the consumer protocol. Nothing is written
    /// yet.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(in crate::group) fn of_classic(
        classic: &ClassicGroup,
        image: &MetadataImage,
    ) -> Result<Self, WhyNot> {
        let mut group = Self::new(Arc::clone(&classic.id));
        group.epoch = classic.generation;
        group.target_epoch = classic.generation;
        let mut taken = BTreeSet::new();
        for found in classic.members.values() {
            let (member, assigned) =
                group.member_of_classic(found, classic.protocol.as_deref(), image)?;
            // A client's assignor may have given a partition twice; here it has one owner.
            let assigned = once(assigned, &mut taken);
            let id = Arc::clone(&member.id);
            if let Some(instance) = &member.instance {
                group.statics.insert(Arc::clone(instance), Arc::clone(&id));
            }
            group.put_member(member);
            group.put_target(Arc::clone(&id), assigned.clone());
            group.apply_current(&id, Current::assigned_in(classic.generation, assigned));
        }
        group.metadata_hash = group.hash_of_topics(image);
        Ok(group)
    }

    fn member_of_classic(
        &self,
        found: &classic::Member,
        protocol: Option<&str>,
        image: &MetadataImage,
    ) -> Result<(Member, Partitions), WhyNot> {
        // Who has never synced has nothing.
        let assigned = match found.assignment.is_empty() {
            true => Partitions::new(),
            false => {
                let assignment =
                    embedded::assignment(&found.assignment).ok_or(WhyNot::Malformed)?;
                if assignment.user_data.is_some_and(|data| !data.is_empty()) {
                    return Err(WhyNot::CustomAssignor);
                }
                let named = assignment.assigned_partitions.iter();
                embedded::partitions(
                    named.map(|topic| (topic.topic.as_str(), topic.partitions.as_slice())),
                    image,
                )
            }
        };
        // In its first rebalance the group has no protocol yet; all of a consumer's say the same.
        let of_protocol = protocol
            .and_then(|protocol| found.protocols.iter().find(|(name, _)| **name == *protocol));
        let (_, metadata) = of_protocol.or(found.protocols.first()).ok_or(WhyNot::Malformed)?;
        let subscription = embedded::subscription(metadata).ok_or(WhyNot::Malformed)?;
        let member = Member {
            instance: found.instance.clone(),
            rack: subscription.rack_id.filter(|rack| !rack.is_empty()).map(Arc::from),
            client_id: Arc::clone(&found.client_id),
            client_host: Arc::clone(&found.client_host),
            topics: subscription.topics.into_iter().map(Arc::from).collect(),
            rebalance_timeout_ms: found.rebalance_timeout_ms,
            classic: Some(Classic {
                session_timeout_ms: found.session_timeout_ms,
                protocols: found.protocols.clone(),
            }),
            ..Member::new(Arc::clone(&found.id))
        };
        Ok((member, assigned))
    }

    /// The records of the whole group.
    pub(in crate::group) fn records(&self, turn: &mut Turn<'_>) {
        let Outcome { records, .. } = &mut *turn.outcome;
        let members = self.members.values();
        records.extend(
            members.clone().map(|member| record::member(&self.id, &member.id, Some(member))),
        );
        records.push(record::epoch(&self.id, Some((self.epoch, self.metadata_hash))));
        records.extend(
            self.targets.iter().map(|(id, target)| record::target(&self.id, id, Some(target))),
        );
        records.push(record::target_epoch(&self.id, Some((self.target_epoch, self.assigned_at))));
        records.extend(
            members.map(|member| record::current(&self.id, &member.id, Some(&member.current))),
        );
    }

    /// Whether the group, after what has happened to it, is one of the classic protocol alone, and
    /// may become that (`validateOnlineDowngrade...`).
    pub(super) fn may_be_classic(&self, settings: &Settings) -> bool {
        !self.members.is_empty()
            && self.members.values().all(|member| member.classic.is_some())
            && settings.migration.downgrades()
            && self.members.len() <= settings.group_size_max
    }

    /// What was decided about the group's protocol, once.
    pub(in crate::group) fn take_downgrade(&mut self) -> Option<Downgrade> {
        self.downgrade.take()
    }

    /// The classic group of its members, which all speak that protocol, and the records that say
    /// so.
    pub(in crate::group) fn convert(
        &mut self,
        how: Downgrade,
        turn: &mut Turn<'_>,
    ) -> ClassicGroup {
        let members = self.members.values().map(classic_member).collect();
        let mut group =
            ClassicGroup::of_consumers(Arc::clone(&self.id), self.epoch, members, turn.now.wall_ms);
        let protocol = group.protocol.clone().unwrap_or_default();
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            let said = group.members.get(&id).map(|member| member.metadata(&protocol));
            let target = self.targets.get(&id).cloned().unwrap_or_default();
            let assigned = embedded::assigned(&target, &said.unwrap_or_default(), turn.image);
            group.members.assign(&id, assigned);
            self.remove(&id, turn.outcome);
        }
        self.tombstones(turn.outcome);
        if how == Downgrade::Rebalancing {
            // Nobody may hear of the rebalance before another coordinator reads the record: that it
            // has no leader says there that one is to begin.
            group.leader = None;
        }
        turn.outcome.records.push(group.record());
        group.loaded(turn);
        group
    }
}

fn classic_member(member: &Member) -> classic::Member {
    let classic = member.classic.as_ref();
    classic::Member {
        id: Arc::clone(&member.id),
        instance: member.instance.clone(),
        client_id: Arc::clone(&member.client_id),
        client_host: Arc::clone(&member.client_host),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        session_timeout_ms: classic.map_or(0, |classic| classic.session_timeout_ms),
        protocols: classic.map(|classic| classic.protocols.clone()).unwrap_or_default(),
        assignment: Default::default(),
        session: Default::default(),
        is_new: false,
        awaits_join: None,
        awaits_sync: None,
    }
}

/// What of these nobody has yet.
fn once(assigned: Partitions, taken: &mut BTreeSet<(Uuid, i32)>) -> Partitions {
    let of_topic = |(topic, partitions): (Uuid, BTreeSet<i32>)| {
        let free: BTreeSet<i32> =
            partitions.into_iter().filter(|partition| taken.insert((topic, *partition))).collect();
        (!free.is_empty()).then_some((topic, free))
    };
    assigned.into_iter().filter_map(of_topic).collect()
}
