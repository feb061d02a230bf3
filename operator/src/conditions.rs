//! PURE: conditions of resources and their transition times.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The value of a condition, without a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionValue {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// The reason in one word.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl ConditionValue {
    /// Whether the status is `True`.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    /// The status `True`.
    pub fn holds(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new("True", reason, message)
    }

    /// The status `False`.
    pub fn fails(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new("False", reason, message)
    }

    /// The status `Unknown`.
    pub fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new("Unknown", reason, message)
    }

    fn new(status: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }
}

/// A condition. Its transition time is that of the last change of its status.
pub fn condition(
    kind: &str,
    judgement: ConditionValue,
    generation: Option<i64>,
    before: &[Condition],
    now: &Time,
) -> Condition {
    let unchanged =
        before.iter().find(|before| before.type_ == kind && before.status == judgement.status);
    Condition {
        type_: kind.to_owned(),
        status: judgement.status.to_owned(),
        reason: judgement.reason.to_owned(),
        message: judgement.message,
        observed_generation: generation,
        last_transition_time: unchanged
            .map_or_else(|| now.clone(), |before| before.last_transition_time.clone()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    #[test]
    fn a_condition_is_as_old_as_its_status() {
        let at = |second| Time(Timestamp::from_second(second).unwrap());
        let first = condition("Ready", ConditionValue::fails("A", "a"), Some(1), &[], &at(1));
        let second = condition(
            "Ready",
            ConditionValue::fails("B", "b"),
            Some(2),
            std::slice::from_ref(&first),
            &at(2),
        );
        assert_eq!(
            (
                second.last_transition_time.clone(),
                second.reason.as_str(),
                second.observed_generation
            ),
            (at(1), "B", Some(2))
        );
        let third = condition("Ready", ConditionValue::holds("C", "c"), Some(2), &[second], &at(3));
        assert_eq!((third.last_transition_time, third.status.as_str()), (at(3), "True"));
    }
}
