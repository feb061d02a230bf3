//! PURE: which changes of the conditions become events.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::kinds::{CERTIFICATES_VALID, DRAIN_BLOCKED, RECOVERING, ROLLED_BACK};
use super::name_taken::NAME_TAKEN;

/// The conditions whose changes become events.
const TOLD: [&str; 9] = [
    "Ready",
    "StorageOk",
    "ListenersReady",
    CERTIFICATES_VALID,
    NAME_TAKEN,
    ROLLED_BACK,
    DRAIN_BLOCKED,
    RECOVERING,
    "Stalled",
];

/// Reasons without a fault: the condition is not yet as it should be, but the operator is working
/// on it.
const IN_ITS_TURN: [&str; 2] = ["Starting", "Restarting"];

/// Conditions whose status `True` is not the normal one.
const ABNORMAL: [&str; 9] = [
    "Degraded",
    "Paused",
    "Progressing",
    "Reconciling",
    "Stalled",
    DRAIN_BLOCKED,
    NAME_TAKEN,
    ROLLED_BACK,
    RECOVERING,
];

/// Whether a condition is in its normal status.
pub(in super::super) fn is_good(condition: &Condition) -> bool {
    (condition.status == "True") != ABNORMAL.contains(&condition.type_.as_str())
}

/// Whether a condition deserves a warning.
pub(in super::super) fn is_wrong(condition: &Condition) -> bool {
    !is_good(condition) && !IN_ITS_TURN.contains(&condition.reason.as_str())
}

/// The most faults of a condition that are remembered. With more, all of them are news again.
const FAULTS_MAX: usize = 32;

/// The faults that events have told of, by condition, until the condition is well again. Where two
/// faults take turns, each is told once.
#[derive(Debug, Default)]
pub(in super::super) struct Told(BTreeMap<String, BTreeSet<(String, String)>>);

impl Told {
    /// The conditions that are well, or have a fault that no event has told of.
    pub(in super::super) fn only_new<'a>(
        &mut self,
        news: Vec<&'a Condition>,
    ) -> Vec<&'a Condition> {
        let mut is_new = |condition: &&Condition| {
            let faults = self.0.entry(condition.type_.clone()).or_default();
            if faults.len() >= FAULTS_MAX {
                faults.clear();
            }
            !is_wrong(condition)
                || faults.insert((condition.reason.clone(), plain(&condition.message)))
        };
        news.into_iter().filter(|condition| is_new(condition)).collect()
    }

    /// Forgets the faults of the conditions that are well.
    pub(in super::super) fn forget(&mut self, conditions: &[Condition]) {
        for condition in conditions.iter().filter(|condition| is_good(condition)) {
            self.0.remove(&condition.type_);
        }
    }
}

/// A message without its numbers.
fn plain(message: &str) -> String {
    message.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The conditions that deserve an event: a new status, or a new fault. A message with other numbers
/// is not new, nor is one that another condition has too.
pub(in super::super) fn news<'a>(
    before: &'a [Condition],
    after: &'a [Condition],
) -> Vec<&'a Condition> {
    let is_new = |is: &&Condition| match before.iter().find(|was| was.type_ == is.type_) {
        None => is_wrong(is) || is.type_ == "Ready",
        Some(was) if was.status != is.status => {
            is_wrong(is) || is_wrong(was) || is.type_ == "Ready"
        }
        Some(was) => {
            is_wrong(is) && (was.reason != is.reason || plain(&was.message) != plain(&is.message))
        }
    };
    let mut news: Vec<&Condition> = Vec::new();
    for condition in after.iter().filter(|is| TOLD.contains(&is.type_.as_str())).filter(is_new) {
        if news
            .iter()
            .all(|told| (&told.reason, &told.message) != (&condition.reason, &condition.message))
        {
            news.push(condition);
        }
    }
    news
}
