//! Calls of the API server, and the store's interpretation of their answers.

use std::time::Duration;

use futures::TryFutureExt;

use crate::controller::{Key, Kind};
use crate::store::error::{Refused, StoreError};

/// The most time for an answer of the API server; after it the outcome counts as unknown.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Whether the API server refused a call for lack of permission.
pub(super) fn is_forbidden(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 403)
}

/// Writes a resource that users write too. A refusal by the API server affects only this resource.
pub(super) async fn resource<T>(
    kind: Kind,
    action: &'static str,
    key: &Key,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, StoreError> {
    let mut refused = None;
    let call = call.inspect_err(|error| {
        if let kube::Error::Api(status) = error {
            let taken = status.code == 409 && action == "create";
            // A rule of the schema, a quota, a policy of an admission webhook, or an object that is
            // too large.
            if taken || matches!(status.code, 400 | 403 | 413 | 422) {
                refused = Some(Refused {
                    kind,
                    key: key.clone(),
                    taken,
                    invalid: matches!(status.code, 400 | 422),
                    message: status.message.clone(),
                });
            }
        }
    });
    let answer = answered(action, &key.name, call).await;
    match refused {
        Some(refused) => Err(StoreError::Refused(vec![refused])),
        None => answer,
    }
}

/// Waits for the API server for at most [`ANSWER_MAX`], and interprets its answer.
pub(super) async fn answered<T>(
    action: &'static str,
    object: &str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, StoreError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Api {
        action,
        object: object.to_owned(),
        source,
    };
    match tokio::time::timeout(ANSWER_MAX, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(StoreError::Conflict),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            Err(StoreError::Gone(object.to_owned()))
        }
        Ok(Err(error)) => Err(failed(error.into())),
        Err(elapsed) => Err(failed(elapsed.into())),
    }
}
