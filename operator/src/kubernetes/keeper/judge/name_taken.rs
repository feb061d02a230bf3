//! Objects that somebody else made under names of the cluster's.

use crate::conditions::ConditionValue;
use crate::store::kube::ours::Taken;

/// Objects of others that a message names; it says how many there are besides.
const NAMED_MAX: usize = 5;

/// The condition that says so.
pub(super) const NAME_TAKEN: &str = "NameTaken";

/// Whether objects of others stand where the cluster's would.
pub(super) fn name_taken(taken: &[Taken]) -> ConditionValue {
    if taken.is_empty() {
        return ConditionValue::fails("AsWanted", "every object of the cluster has its name");
    }
    let mut named: Vec<String> = taken.iter().take(NAMED_MAX).map(Taken::to_string).collect();
    if let Some(more) = taken.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        named.push(format!("and {more} more"));
    }
    let message = format!(
        "{}: it stays as it is, and the cluster goes without. Give it another name, or make the KafkaCluster anew under another",
        named.join(", ")
    );
    ConditionValue::holds("MadeByOthers", message)
}
