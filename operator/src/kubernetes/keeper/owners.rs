//! Writes the owners of objects that are deleted with their cluster or outlive it.

use std::fmt::Debug;

use anyhow::Context as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::info;

use super::super::context::Context;
use super::super::metrics::Metrics;

/// Sets the owners of an object as it was read; `go`: it is deleted with its cluster. Returns
/// whether they are set: not if the object has changed meanwhile, or is gone.
pub(super) async fn put<K>(
    context: &Context,
    api: &Api<K>,
    read: &ObjectMeta,
    owners: &[OwnerReference],
    go: bool,
) -> anyhow::Result<bool>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let (kind, name) = (K::kind(&()), read.name.as_deref().unwrap_or_default());
    let patch = json!({"metadata": {"uid": read.uid, "resourceVersion": read.resource_version, "ownerReferences": owners}});
    Metrics::count(&context.figures.writes);
    match api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => {
            let namespace = read.namespace.as_deref().unwrap_or_default();
            info!(%kind, name, namespace, go, "goes with its cluster, or not any more");
            Ok(true)
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("patch the owners of {kind} {name}")),
    }
}
