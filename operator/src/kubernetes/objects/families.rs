//! The IP families of services.

use serde_json::{Value, json};

use super::plan::Plan;

/// The spec of a service with the IP families of the cluster's resource. If the resource has none,
/// Kubernetes decides.
pub(super) fn of_families(plan: &Plan<'_>, mut spec: Value) -> Value {
    let network = &plan.cluster.spec.network;
    if let Some(policy) = network.ip_family_policy {
        spec["ipFamilyPolicy"] = json!(policy);
    }
    if !network.ip_families.is_empty() {
        spec["ipFamilies"] = json!(network.ip_families);
    }
    spec
}
