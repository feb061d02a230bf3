//! PURE: the replay of the log: the effect of each record on the groups. Compaction may have
//! removed records, but never changes their order.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use weir_protocol::messages::{OffsetCommitKey, OffsetCommitValue};
use weir_protocol::types::ProducerId;

use super::record::{self, Change};
use super::{ClassicGroup, ConsumerGroup, Groups, Kind};
use crate::coordinator::Logged;

impl Groups {
    pub(super) fn apply(&mut self, record: &Logged<'_>) -> Result<(), String> {
        match record::read(record)? {
            Change::Offset(key, value) => {
                self.replay_offset(&key, value, record.transaction.map(|(producer, _)| producer))
            }
            Change::Group(key, Some(value)) => {
                let id: Arc<str> = key.group.as_str().into();
                let group =
                    self.get_or_make(&id).map_err(|_| "there are too many groups".to_owned())?;
                group.kind = Kind::Classic(Box::new(ClassicGroup::of_record(id, value)));
                group.count();
            }
            Change::Group(key, None) => {
                self.replay_end_of(&key.group, |kind| matches!(kind, Kind::Classic(_)))
            }
            Change::Epoch(key, None) => {
                self.replay_end_of(&key.group_id, |kind| matches!(kind, Kind::Consumer(_)))
            }
            Change::Epoch(key, Some(value)) => self.consumers(&key.group_id, true, |group| {
                group.replay_epoch(value.epoch, value.metadata_hash)
            }),
            Change::TargetEpoch(key, value) => {
                let (epoch, at) = value
                    .as_ref()
                    .map_or((0, 0), |value| (value.assignment_epoch, value.assignment_timestamp));
                self.consumers(&key.group_id, value.is_some(), |group| {
                    group.replay_target_epoch(epoch, at)
                });
            }
            Change::Member(key, value) => self.consumers(&key.group_id, value.is_some(), |group| {
                group.replay_member(&key.member_id, value)
            }),
            Change::Target(key, value) => self.consumers(&key.group_id, value.is_some(), |group| {
                group.replay_target(&key.member_id, value)
            }),
            Change::Current(key, value) => {
                self.consumers(&key.group_id, value.is_some(), |group| {
                    group.replay_current(&key.member_id, value)
                })
            }
            Change::Regex(key, value) => {
                self.consumers(&key.group_id, value.is_some(), |group| {
                    group.replay_regex(&key.regular_expression, value)
                });
            }
            Change::Unknown => {}
        }
        Ok(())
    }

    /// Runs `act` with a consumer group. With `make` creates or converts it, if necessary.
    fn consumers(&mut self, id: &str, make: bool, act: impl FnOnce(&mut ConsumerGroup)) {
        if make
            && let Ok(group) = self.get_or_make(id)
            && let Kind::Classic(_) = group.kind
        {
            group.kind = Kind::Consumer(Box::new(ConsumerGroup::new(Arc::clone(&group.id))));
        }
        if let Some(group) = self.groups.get_mut(id)
            && let Kind::Consumer(consumers) = &mut group.kind
        {
            act(consumers);
            group.count();
        }
    }

    /// Ends the membership part of a group; its offsets have records of their own.
    fn replay_end_of(&mut self, id: &str, is_meant: impl Fn(&Kind) -> bool) {
        let Some(group) = self.groups.get_mut(id).filter(|group| is_meant(&group.kind)) else {
            return;
        };
        group.kind = Kind::Classic(Box::new(ClassicGroup::new(Arc::clone(&group.id))));
        group.count();
        if group.is_void() {
            self.groups.remove(id);
        }
    }

    fn replay_offset(
        &mut self,
        key: &OffsetCommitKey,
        value: Option<OffsetCommitValue>,
        transaction: Option<ProducerId>,
    ) {
        match (value, transaction) {
            (Some(value), transaction) => {
                if self.get_or_make(&key.group).is_ok() {
                    self.keep(&key.group, &key.topic, key.partition, value, transaction);
                }
            }
            (None, _) => {
                if let Some(group) = self.groups.get_mut(&*key.group) {
                    group.offsets.forget(&key.topic, key.partition);
                    if group.is_void() {
                        self.groups.remove(&*key.group);
                    }
                }
            }
        }
    }
}
