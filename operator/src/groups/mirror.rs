//! PURE: which groups get a ConsumerGroup, and which reflected ones are deleted.

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_crds::{ConsumerGroup, GroupReflection, Reflect};

/// The label of a reflected ConsumerGroup. Without it, the resource is a user's and stays.
pub const REFLECTED_LABEL: &str = "weir.dev/reflected";

/// The changes of reflected resources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reflection {
    /// The ids of groups that get a resource.
    pub make: Vec<String>,
    /// Resources whose group is gone, or that are no longer wanted.
    pub remove: Vec<Arc<ConsumerGroup>>,
}

/// Whether a resource was created for a group.
pub fn is_reflected(resource: &ConsumerGroup) -> bool {
    let labels = resource.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.get(REFLECTED_LABEL).map(String::as_str) == Some("true"))
}

/// Decides; `groups` are the ids of all existing groups, in order.
pub fn reflect(
    wanted: &GroupReflection,
    resources: &[Arc<ConsumerGroup>],
    groups: &[String],
) -> Reflection {
    let all: BTreeSet<&str> = groups.iter().map(String::as_str).collect();
    let declared: BTreeSet<&str> = resources
        .iter()
        .filter(|resource| !is_reflected(resource))
        .map(|resource| resource.group_id())
        .collect();
    let keeps = |resource: &ConsumerGroup| {
        wanted.reflect == Reflect::All
            && all.contains(resource.group_id())
            && !declared.contains(resource.group_id())
    };
    let (kept, remove): (Vec<_>, Vec<_>) = resources
        .iter()
        .filter(|resource| is_reflected(resource))
        .cloned()
        .partition(|resource| keeps(resource));
    let mut make = Vec::new();
    if wanted.reflect == Reflect::All {
        let shown: BTreeSet<&str> = kept.iter().map(|resource| resource.group_id()).collect();
        let room = usize::try_from(wanted.max).unwrap_or_default().saturating_sub(kept.len());
        let missing = groups
            .iter()
            .filter(|group| !shown.contains(group.as_str()) && !declared.contains(group.as_str()));
        // The schema accepts no group id that is empty or longer.
        make.extend(
            missing.filter(|group| (1..=249).contains(&group.chars().count())).take(room).cloned(),
        );
    }
    Reflection { make, remove }
}
