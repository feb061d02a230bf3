//! Creates missing objects, and applies objects by server-side apply when they differ from the last
//! application or somebody else changed them.
//!
//! It writes only the cluster's own objects ([`is_ours`]). Before a write it reads the owner of the
//! object with that name, and the write is valid only for the object that was read. A missing
//! object is created, not applied: if somebody else creates it first, the creation fails, where an
//! application would change theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context as _, bail};
use hyper::Uri;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::Resource;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams,
    PostParams, Preconditions,
};
use kube::core::{GroupVersionKind, NamespaceResourceScope, Request};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::{debug, info};

use super::super::context::Context;
use super::super::metrics::Metrics;
use super::super::objects::{MANAGER, Names};
use super::wake::Touched;
use crate::store::kube::ours::{Taken, is_ours};
use crate::store::kube::{CLUSTER_LABEL, FIELD_MANAGER};

/// The most reads of an object for one write while others write it too. Then the next pass tries
/// again.
const LOOKS_MAX: usize = 5;

/// The objects that this process has applied.
pub(super) struct Applied {
    context: Context,
    namespace: String,
    /// The uid of the cluster.
    owner: String,
    objects: BTreeMap<(String, String), Record>,
    /// The names that were left at the last pruning, by kind.
    pruned: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug)]
struct Record {
    hash: u64,
    version: Option<String>,
    generation: Option<i64>,
}

/// The result of a write.
enum Put {
    /// The object is as wanted.
    Written(Box<ObjectMeta>),
    /// Somebody else's object has its name.
    Taken(Taken),
}

impl Applied {
    /// For the cluster with the uid `owner`.
    pub(super) fn new(context: &Context, namespace: &str, owner: &str) -> Self {
        Self {
            context: context.clone(),
            namespace: namespace.to_owned(),
            owner: owner.to_owned(),
            objects: BTreeMap::new(),
            pruned: BTreeMap::new(),
        }
    }

    /// Handles a change of an object. Unless it is the recorded write, the object is applied again.
    pub(super) fn touched(&mut self, touched: &Touched) {
        let Some(name) = &touched.name else {
            self.objects.retain(|(kind, _), _| kind != touched.kind);
            self.pruned.remove(touched.kind);
            return;
        };
        // An object that was not left after pruning, for example by a predecessor's late write.
        if self.pruned.get(touched.kind).is_some_and(|left| !left.contains(name)) {
            self.pruned.remove(touched.kind);
        }
        let key = (touched.kind.to_owned(), name.clone());
        if self.objects.get(&key).is_some_and(|record| record.is_other(touched)) {
            self.objects.remove(&key);
        }
    }

    /// Creates missing objects, and applies those that differ from their last application. Returns
    /// the objects of somebody else that have one of the names; each call checks them again.
    pub(super) async fn apply(&mut self, objects: &[Value]) -> anyhow::Result<Vec<Taken>> {
        let mut taken = Vec::new();
        for object in objects {
            let text = |pointer: &str| {
                object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let (kind, name) = (text("/kind"), text("/metadata/name"));
            let hash = hash_of(object);
            let key = (kind.clone(), name.clone());
            if self.objects.get(&key).is_some_and(|record| record.hash == hash) {
                continue;
            }
            let Some(resource) = resource_of(&text("/apiVersion"), &kind) else {
                bail!("{kind} is no kind that is applied")
            };
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.context.client.clone(), &self.namespace, &resource);
            let put = self.put(&api, &kind, &name, object).await;
            match put.with_context(|| format!("apply {kind} {name}"))? {
                Put::Written(metadata) => {
                    let record = Record {
                        hash,
                        version: metadata.resource_version,
                        generation: metadata.generation,
                    };
                    self.objects.insert(key, record);
                }
                Put::Taken(by) => {
                    debug!(%by, "leaves an object alone");
                    taken.push(by);
                }
            }
        }
        Ok(taken)
    }

    /// Somebody has deleted an object that no watch reports: the next application makes it anew.
    pub(super) fn forget(&mut self, kind: &str, name: &str) {
        self.objects.remove(&(kind.to_owned(), name.to_owned()));
    }

    async fn put(
        &self,
        api: &Api<DynamicObject>,
        kind: &str,
        name: &str,
        object: &Value,
    ) -> anyhow::Result<Put> {
        for _ in 0..LOOKS_MAX {
            let found = api.get_metadata_opt(name).await?;
            let is_there = found.is_some();
            let written = match found {
                None => self.create(api, object).await,
                Some(there) if is_ours(&there.metadata, &self.owner) => {
                    self.change(api, name, &there.metadata, object).await
                }
                Some(there) => {
                    return Ok(Put::Taken(Taken::of(kind, &self.namespace, name, &there.metadata)));
                }
            };
            match written {
                Ok(metadata) => return Ok(Put::Written(Box::new(metadata))),
                // Another object or version has the name by now, or it is gone. A creation that
                // fails because its kind or namespace is missing is an error.
                Err(kube::Error::Api(status))
                    if status.code == 409 || (status.code == 404 && is_there) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("others write it all the time")
    }

    /// Creates an object. As in an application, an unknown field is an error; otherwise the API
    /// server would drop it silently.
    async fn create(&self, api: &Api<DynamicObject>, object: &Value) -> kube::Result<ObjectMeta> {
        let params =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let mut request = Request::new(api.resource_url())
            .create(&params, body)
            .map_err(kube::Error::BuildRequest)?;
        let strict = format!("{}&fieldValidation=Strict", request.uri()).parse::<Uri>();
        *request.uri_mut() = strict.map_err(|error| kube::Error::HttpError(error.into()))?;
        Metrics::count(&self.context.figures.writes);
        let made: DynamicObject = self.context.client.request(request).await?;
        Ok(made.metadata)
    }

    /// Applies an object, if it is still the one that was read.
    async fn change(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        looked_at: &ObjectMeta,
        object: &Value,
    ) -> kube::Result<ObjectMeta> {
        let mut version = looked_at.resource_version.clone();
        if let Some(fields) = as_applied(looked_at.managed_fields.as_deref().unwrap_or_default()) {
            let patch = json!({"metadata": {"uid": looked_at.uid, "resourceVersion": version, "managedFields": fields}});
            let params = PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            Metrics::count(&self.context.figures.writes);
            version = api
                .patch_metadata(name, &params, &Patch::Merge(patch))
                .await?
                .metadata
                .resource_version;
        }
        let mut pinned = object.clone();
        if let Some(metadata) = pinned.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("uid".to_owned(), json!(looked_at.uid));
            metadata.insert("resourceVersion".to_owned(), json!(version));
        }
        let params = PatchParams::apply(FIELD_MANAGER).force().validation_strict();
        Metrics::count(&self.context.figures.writes);
        Ok(api.patch(name, &params, &Patch::Apply(pinned)).await?.metadata)
    }

    /// Deletes services or endpoint slices of brokers and listeners that no longer exist. `label`
    /// names their creator.
    pub(super) async fn prune<K>(
        &mut self,
        names: &Names,
        label: &str,
        objects: &[Value],
    ) -> anyhow::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let kind = K::kind(&());
        let of_kind = objects
            .iter()
            .filter(|object| object.pointer("/kind").and_then(Value::as_str) == Some(&kind));
        let wanted: BTreeSet<String> = of_kind
            .filter_map(|object| {
                object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned)
            })
            .collect();
        // An additional object would be reported by the watch.
        if self.pruned.get(&*kind) == Some(&wanted) {
            return Ok(());
        }
        let api: Api<K> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let params = ListParams::default()
            .labels(&format!("{CLUSTER_LABEL}={},{label}={MANAGER}", names.cluster));
        let listed = api.list_metadata(&params).await;
        for object in listed.with_context(|| format!("list objects of kind {kind}"))?.items {
            let metadata = object.metadata;
            let name = metadata.name.clone().unwrap_or_default();
            if wanted.contains(&name)
                || metadata.deletion_timestamp.is_some()
                || !is_ours(&metadata, &self.owner)
            {
                continue;
            }
            info!(%kind, name, namespace = self.namespace, "deletes what nothing needs any more");
            Metrics::count(&self.context.figures.writes);
            match api.delete(&name, &only(&metadata)).await {
                Ok(_) => {}
                // It is gone, or another object has the name.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(error).with_context(|| format!("delete {kind} {name}")),
            }
            self.objects.remove(&(kind.to_string(), name));
        }
        self.pruned.insert(kind.into_owned(), wanted);
        Ok(())
    }

    /// Whether the kind `PodMonitor` exists.
    pub(super) async fn knows_pod_monitors(&self) -> anyhow::Result<bool> {
        let Some(resource) = resource_of("monitoring.coreos.com/v1", "PodMonitor") else {
            return Ok(false);
        };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.context.client.clone(), &self.namespace, &resource);
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => Ok(true),
            // It does not exist, or the operator may not list it.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(false),
            Err(error) => Err(error).context("look for PodMonitors"),
        }
    }
}

impl Record {
    /// Whether the object differs from the recorded write. For objects with a generation, a new
    /// version alone may be a change of the status.
    fn is_other(&self, touched: &Touched) -> bool {
        if touched.deleted {
            // The event may be old and the object created again; one application too many is
            // harmless.
            return true;
        }
        match (self.generation, touched.generation) {
            (Some(ours), Some(theirs)) => ours != theirs,
            _ => self.version != touched.version,
        }
    }
}

/// Delete parameters for the object that was read, and no other of its name.
pub(super) fn only(looked_at: &ObjectMeta) -> DeleteParams {
    DeleteParams::default()
        .preconditions(Preconditions { uid: looked_at.uid.clone(), resource_version: None })
}

/// For an object that was created here and never applied: its managed fields as if it had been
/// applied. An application removes a field only if an earlier application set it. Kubernetes' own
/// clients do the same when they start to apply (`k8s.io/client-go/util/csaupgrade`).
fn as_applied(fields: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let by_us = |entry: &&ManagedFieldsEntry, operation: &str| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some(operation)
            && entry.subresource.is_none()
    };
    if fields.iter().any(|entry| by_us(&entry, "Apply"))
        || !fields.iter().any(|entry| by_us(&entry, "Update"))
    {
        return None;
    }
    let mut fields = fields.to_vec();
    for entry in &mut fields {
        if by_us(&&*entry, "Update") {
            entry.operation = Some("Apply".to_owned());
        }
    }
    Some(fields)
}

fn hash_of(object: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.to_string().hash(&mut hasher);
    hasher.finish()
}

fn resource_of(api_version: &str, kind: &str) -> Option<ApiResource> {
    let plural = match kind {
        "ServiceAccount" => "serviceaccounts",
        "ConfigMap" => "configmaps",
        "Service" => "services",
        "Secret" => "secrets",
        "EndpointSlice" => "endpointslices",
        "StatefulSet" => "statefulsets",
        "PodDisruptionBudget" => "poddisruptionbudgets",
        "NetworkPolicy" => "networkpolicies",
        "PodMonitor" => "podmonitors",
        _ => return None,
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Some(ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::kube::tests::server::Server;

    #[tokio::test]
    async fn what_kubernetes_does_not_know_is_refused_from_the_first_write_on() {
        let server = Server::default();
        let mut applied = Applied::new(&Context::of_tests(&server), "n", "uid");
        let owners = json!([{"apiVersion": "v1", "kind": "KafkaCluster", "name": "c", "uid": "uid", "controller": true}]);
        let metadata = json!({"name": "c", "ownerReferences": owners});
        let object = |spec: Value| json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec});
        let error = applied.apply(&[object(json!({"unknown": 1}))]).await.unwrap_err();
        assert!(format!("{error:#}").contains("unknown field"), "{error:#}");
        assert_eq!(server.paths(), Vec::<String>::new());
        assert_eq!(applied.apply(&[object(json!({"replicas": 1}))]).await.unwrap().len(), 0);
        assert_eq!(
            server.get("/apis/apps/v1/namespaces/n/statefulsets/c").unwrap()["spec"]["replicas"],
            1
        );
    }

    #[test]
    fn only_the_changes_of_others_are_undone() {
        let touched = |version: &str, generation: Option<i64>| Touched {
            kind: "X",
            name: Some("x".to_owned()),
            version: Some(version.to_owned()),
            generation,
            deleted: false,
        };
        let with = Record { hash: 0, version: Some("7".to_owned()), generation: Some(2) };
        assert!(
            !with.is_other(&touched("7", Some(2)))
                && !with.is_other(&touched("8", Some(2)))
                && with.is_other(&touched("9", Some(3)))
        );
        assert!(with.is_other(&Touched { deleted: true, ..touched("7", Some(2)) }));
        let without = Record { generation: None, ..with };
        assert!(!without.is_other(&touched("7", None)) && without.is_other(&touched("8", None)));
    }

    #[test]
    fn resources_are_found_by_their_kind() {
        let resource = resource_of("policy/v1", "PodDisruptionBudget").unwrap();
        assert_eq!(
            (resource.group.as_str(), resource.plural.as_str(), resource.api_version.as_str()),
            ("policy", "poddisruptionbudgets", "policy/v1")
        );
        assert_eq!(resource_of("v1", "Service").unwrap().api_version, "v1");
        assert!(resource_of("v1", "Pod").is_none());
    }
}
