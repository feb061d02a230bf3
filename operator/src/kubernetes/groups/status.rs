//! The statuses of ConsumerGroups, and the events about them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tracing::debug;
use weir_crds::{ConsumerGroup, ConsumerGroupStatus};

use super::super::context::Context;
use super::super::events::publish;
use super::super::metrics::Metrics;
use crate::controller::Key;
use crate::groups::reconcile::{Memory, Seen, Workload, reconcile};
use crate::store::kube::FIELD_MANAGER;
use crate::time::now;

/// Writes a whole status by server-side apply, which removes fields that it no longer has.
pub(super) async fn put_status(
    context: &Context,
    group: &ConsumerGroup,
    status: &ConsumerGroupStatus,
) -> kube::Result<()> {
    let metadata = &group.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let api: Api<ConsumerGroup> =
        Api::namespaced(context.client.clone(), metadata.namespace.as_deref().unwrap_or_default());
    let patch = json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "ConsumerGroup",
        "metadata": {"name": name, "uid": metadata.uid}, "status": status,
    });
    Metrics::count(&context.figures.writes);
    api.patch_status(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch))
        .await?;
    let ready = |status: &ConsumerGroupStatus| {
        status.conditions.iter().find(|condition| condition.type_ == "Ready").cloned()
    };
    let before = group.status.as_ref().and_then(ready);
    // Publishes an event for each change of readiness, and for a first status that is not ready.
    let is_new = |after: &Condition| match &before {
        Some(before) => (&before.status, &before.reason) != (&after.status, &after.reason),
        None => after.status == "False",
    };
    if let Some(after) = ready(status).filter(is_new) {
        let regarding = kube::Resource::object_ref(group, &());
        publish(
            context,
            &regarding,
            after.status == "True",
            &after.reason,
            &after.message,
            "Judge",
        )
        .await;
    }
    Ok(())
}

/// Writes to the status of a group why no task reconciles it.
pub(super) async fn report_unreconciled(context: &Context, group: &ConsumerGroup, seen: Seen<'_>) {
    let before = group.status.clone().unwrap_or_default();
    let now_ms = now().0.as_millisecond();
    let status =
        reconcile(group, &before, &seen, &Workload::None, &mut Memory::default(), now_ms).status;
    if status != before
        && let Err(error) = put_status(context, group, &status).await
    {
        debug!(resource = %Key::of(&group.metadata), %error, "write the status of a ConsumerGroup that nobody looks after");
    }
}
