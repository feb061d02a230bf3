//! PURE: what the conditions of a group say.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What a condition says, before it has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// One word.
    pub reason: &'static str,
    /// A sentence that a person understands.
    pub message: String,
}

impl Judgement {
    /// It is so.
    pub fn holds(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new("True", reason, message)
    }

    /// It is not so.
    pub fn fails(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new("False", reason, message)
    }

    /// Nobody knows.
    pub fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new("Unknown", reason, message)
    }

    fn new(status: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            reason,
            message: message.into(),
        }
    }
}

/// A condition: as old as the last change of its status.
pub fn condition(kind: &str, judgement: Judgement, generation: Option<i64>, before: &[Condition], now: &Time) -> Condition {
    let unchanged = before.iter().find(|before| before.type_ == kind && before.status == judgement.status);
    Condition {
        type_: kind.to_owned(),
        status: judgement.status.to_owned(),
        reason: judgement.reason.to_owned(),
        message: judgement.message,
        observed_generation: generation,
        last_transition_time: unchanged.map_or_else(|| now.clone(), |before| before.last_transition_time.clone()),
    }
}
