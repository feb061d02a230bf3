//! PURE: when a status is written: at once when something happened, seldom when only numbers moved,
//! never when nothing did.

use weir_crds::ConsumerGroupStatus;

/// How often a group is looked at, and its status written, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two looks.
    pub look_ms: u64,
    /// Between two looks while something is under way.
    pub soon_ms: u64,
    /// The least time between two writes when only numbers moved.
    pub numbers_ms: i64,
}

impl Pace {
    /// For many groups and an API server that others use, too.
    pub const KUBERNETES: Self = Self { look_ms: 5_000, soon_ms: 1_000, numbers_ms: 15_000 };

    /// For one user at one machine.
    pub const LOCAL: Self = Self { look_ms: 1_000, soon_ms: 250, numbers_ms: 2_000 };

    /// Whether a status is to be written now, which was last written at `written_ms`.
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

/// Whether something happened besides numbers.
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
