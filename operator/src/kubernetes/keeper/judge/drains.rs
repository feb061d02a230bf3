//! PURE: whether brokers may be evicted, for people who drain nodes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::super::drain::{Drain, drain};
use super::super::observation::Observation;
use super::kinds::DRAIN_BLOCKED;
use super::name_taken::NAME_TAKEN;
use crate::conditions::ConditionValue;
use crate::controller::state::State;

/// The kind of object that keeps pods from being evicted.
const BUDGET: &str = "PodDisruptionBudget";

/// The condition; `None` keeps the one `before`. Without its disruption budget, the operator
/// neither blocks an eviction nor allows it.
pub(super) fn drain_blocked(
    state: Option<&State>,
    replicas: i32,
    findings: &Observation,
    before: &[Condition],
) -> Option<ConditionValue> {
    let state = state?;
    let Some(taken) = &findings.taken else {
        // This pass did not look whose the budget is.
        let was_taken = before
            .iter()
            .any(|condition| condition.type_ == DRAIN_BLOCKED && condition.reason == NAME_TAKEN);
        return (!was_taken).then(|| by_partitions(state, replicas, findings));
    };
    let Some(budget) = taken.iter().find(|by| by.kind == BUDGET) else {
        return Some(by_partitions(state, replicas, findings));
    };
    let safe = match drain(state, replicas, &findings.away) {
        Drain::Allowed(message) | Drain::Restarting(message) | Drain::Blocked { message, .. } => {
            message
        }
    };
    let message = format!(
        "{budget}, so the cluster has none of its own: Kubernetes evicts brokers without regard to their partitions, or as that one says. By the partitions: {safe}"
    );
    Some(ConditionValue::unknown(NAME_TAKEN, message))
}

fn by_partitions(state: &State, replicas: i32, findings: &Observation) -> ConditionValue {
    match drain(state, replicas, &findings.away) {
        Drain::Allowed(message) => ConditionValue::fails("AsExpected", message),
        Drain::Restarting(message) => ConditionValue::holds("Restarting", message),
        Drain::Blocked { reason, message, .. } => ConditionValue::holds(reason, message),
    }
}
