//! PURE: when to write a status: immediately after an event, rarely for new numbers, never without
//! a change.

use weir_crds::ConsumerGroupStatus;

/// The intervals of looks and of status writes, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The interval of looks.
    pub look_ms: u64,
    /// The interval of looks during a change.
    pub soon_ms: u64,
    /// The least time between two writes if only numbers changed.
    pub numbers_ms: i64,
}

impl Pace {
    /// For many groups and a shared API server.
    pub const KUBERNETES: Self = Self { look_ms: 5_000, soon_ms: 1_000, numbers_ms: 15_000 };

    /// For one user on one machine.
    pub const LOCAL: Self = Self { look_ms: 1_000, soon_ms: 250, numbers_ms: 2_000 };

    /// Whether to write a status now; `written_ms` is the time of the last write.
    pub fn is_due(
        &self,
        before: &ConsumerGroupStatus,
        after: &ConsumerGroupStatus,
        written_ms: Option<i64>,
        now_ms: i64,
    ) -> bool {
        if before == after {
            return false;
        }
        let quiet = written_ms.is_none_or(|at| now_ms.saturating_sub(at) >= self.numbers_ms);
        happened(before, after) || quiet
    }
}

/// Whether more than numbers changed.
fn happened(before: &ConsumerGroupStatus, after: &ConsumerGroupStatus) -> bool {
    let words = |status: &ConsumerGroupStatus| {
        let conditions = status.conditions.iter();
        let conditions: Vec<_> = conditions
            .map(|one| (one.type_.clone(), one.status.clone(), one.reason.clone()))
            .collect();
        let reset = status.last_reset.as_ref().map(|reset| (reset.id.clone(), reset.phase));
        let replicas = status.scaling.as_ref().map(|scaling| scaling.desired);
        (status.observed_generation, status.members, conditions, reset, replicas)
    };
    words(before) != words(after) || before.undo != after.undo
}
