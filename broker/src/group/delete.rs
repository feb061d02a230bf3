//! PURE: DeleteGroups (`GroupCoordinatorShard.deleteGroups` in Apache Kafka).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use weir_protocol::error::ErrorCode;

use super::{ClassicGroup, Group, Groups, Kind, record};
use crate::coordinator::Outcome;

impl Group {
    /// Writes the tombstones of the group itself.
    pub(super) fn tombstones(&self, outcome: &mut Outcome) {
        match &self.kind {
            Kind::Classic(_) => outcome.records.push(record::group(&self.id, None)),
            Kind::Consumer(group) => group.tombstones(outcome),
        }
    }
}

impl Groups {
    pub(super) fn delete(
        &mut self,
        id: &str,
        outcome: &mut Outcome,
    ) -> (ErrorCode, Option<String>) {
        let Some(group) = self.groups.get_mut(id) else {
            return (ErrorCode::GroupIdNotFound, Some(format!("Group {id} not found.")));
        };
        if !group.is_empty() {
            return (ErrorCode::NonEmptyGroup, Some(format!("Group {id} is not empty.")));
        }
        // Also removes the offsets of open transactions.
        group.remove_offsets(group.offsets.having(|_, _| true), outcome);
        group.tombstones(outcome);
        group.kind = Kind::Classic(Box::new(ClassicGroup::new(Arc::clone(&group.id))));
        group.count();
        self.forget_if_void(id);
        (ErrorCode::None, None)
    }
}
