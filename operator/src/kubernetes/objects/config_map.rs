//! The ConfigMap that configures the brokers.

use serde_json::{Value, json};

use super::names::Names;
use super::object_meta::plain_metadata;
use super::plan::Plan;

/// The variable with the cluster's id.
pub(super) const CLUSTER_ID_KEY: &str = "WEIR_CLUSTER_ID";

/// The variable with the controller's address.
pub(in crate::kubernetes) const CONTROLLER_KEY: &str = "WEIR_CONTROLLER";

pub(super) fn config_map(plan: &Plan<'_>, names: &Names) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": plain_metadata(plan.cluster, names, &names.brokers()),
        "data": {CLUSTER_ID_KEY: plan.cluster_id, CONTROLLER_KEY: plan.controller},
    })
}
