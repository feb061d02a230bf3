//! Objects of somebody else with the cluster's names.

use crate::conditions::ConditionValue;
use crate::store::kube::ours::Taken;

/// The most objects that a message names; it counts the others.
const NAMED_MAX: usize = 5;

/// The condition for them.
pub(super) const NAME_TAKEN: &str = "NameTaken";

/// Whether objects of somebody else have names of the cluster's objects.
pub(super) fn name_taken(taken: &[Taken]) -> ConditionValue {
    if taken.is_empty() {
        return ConditionValue::fails("AsExpected", "every object of the cluster has its name");
    }
    let mut named: Vec<String> = taken.iter().take(NAMED_MAX).map(Taken::to_string).collect();
    if let Some(more) = taken.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        named.push(format!("and {more} more object{}", if more == 1 { "" } else { "s" }));
    }
    let message = format!(
        "{}: it stays as it is, and the cluster goes without. Give it another name, or make the KafkaCluster anew under another",
        named.join(", ")
    );
    ConditionValue::holds("MadeByOthers", message)
}
