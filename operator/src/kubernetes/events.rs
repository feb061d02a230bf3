//! Kubernetes events about resources, as `kubectl describe` shows them.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tracing::debug;

use super::context::Context;

/// Publishes an event. Losing one is harmless: the condition says the same.
pub(super) async fn publish(
    context: &Context,
    regarding: &ObjectReference,
    good: bool,
    reason: &str,
    note: &str,
    action: &str,
) {
    let reporter = Reporter {
        controller: "weir.dev/operator".to_owned(),
        instance: Some(context.reporter.clone()),
    };
    // A recorder with a memory would count this event with others of the same reason and drop its
    // note, which is the new part.
    let recorder = Recorder::new(context.client.clone(), reporter);
    let event = Event {
        type_: if good { EventType::Normal } else { EventType::Warning },
        reason: reason.to_owned(),
        note: Some(note.chars().take(1000).collect()),
        action: action.to_owned(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, regarding).await {
        debug!(%error, reason, "publish an event");
    }
}
