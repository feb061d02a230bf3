//! PURE: the conversion of a group to the other protocol with its members (KIP-848, "Online
//! migration"; `ConsumerGroup.fromClassicGroup` and `ClassicGroup.fromConsumerGroup` in Apache
//! Kafka). Generation and epoch continue each other, and all members keep their assignments for
//! now.
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
use crate::group::decision::DecisionContext;
use crate::group::embedded;
use crate::group::settings::Settings;
use crate::metadata::MetadataImage;

/// Why a classic group cannot change to the consumer protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::group) enum WhyNot {
    /// The metadata of its members cannot be decoded.
    Malformed,
    /// Their assignor adds user data to assignments, which would be lost.
    CustomAssignor,
}

impl ConsumerGroup {
    /// The consumer group with the members of a classic group. Writes no records yet.
    ///
    /// # Errors
    /// Why the group cannot be converted.
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
            // A client's assignor may have assigned a partition twice; here it gets one owner.
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
        // A member that has never synced has no assignment.
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
        // In its first rebalance the group has no protocol yet. All protocols of a consumer carry
        // the same.
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
    pub(in crate::group) fn records(&self, turn: &mut DecisionContext<'_>) {
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

    /// Whether only members of the classic protocol remain, and the group may become a classic one
    /// (`validateOnlineDowngrade...`).
    pub(super) fn may_be_classic(&self, settings: &Settings) -> bool {
        !self.members.is_empty()
            && self.members.values().all(|member| member.classic.is_some())
            && settings.migration.downgrades()
            && self.members.len() <= settings.group_size_max
    }

    /// Takes the pending downgrade, if there is one.
    pub(in crate::group) fn take_downgrade(&mut self) -> Option<Downgrade> {
        self.downgrade.take()
    }

    /// Converts the group, whose members all speak the classic protocol, and writes the records for
    /// it.
    pub(in crate::group) fn convert(
        &mut self,
        how: Downgrade,
        turn: &mut DecisionContext<'_>,
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
            // Another coordinator may load the record before the members learn of the rebalance. A
            // record without a leader tells it to begin one.
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

/// The partitions of these that have no owner yet.
fn once(assigned: Partitions, taken: &mut BTreeSet<(Uuid, i32)>) -> Partitions {
    let of_topic = |(topic, partitions): (Uuid, BTreeSet<i32>)| {
        let free: BTreeSet<i32> =
            partitions.into_iter().filter(|partition| taken.insert((topic, *partition))).collect();
        (!free.is_empty()).then_some((topic, free))
    };
    assigned.into_iter().filter_map(of_topic).collect()
}
