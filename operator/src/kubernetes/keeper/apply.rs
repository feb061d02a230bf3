//! Objects are made, and applied by server-side apply when they are not what was last applied, or
//! when somebody else changed them.
//!
//! Only the cluster's own ([`is_ours`]): before a write it is looked whose an object of that name
//! is, and the write holds for the object that was looked at and no other. One that is not there is
//! made by a creation, which somebody who was faster makes fail; an application would become a
//! change of what they made.

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
use super::super::figures::Figures;
use super::super::objects::{MANAGER, Names};
use super::wake::Touched;
use crate::store::kube::ours::{Taken, is_ours};
use crate::store::kube::{CLUSTER_LABEL, FIELD_MANAGER};

/// How often an object is looked at for one write, while others write it, too. The next pass goes
/// on.
const LOOKS_MAX: usize = 5;

/// What was applied, as far as this process knows.
pub(super) struct Applied {
    context: Context,
    namespace: String,
    /// The uid of the cluster.
    owner: String,
    objects: BTreeMap<(String, String), Record>,
    /// Of each kind that is pruned, the names that were left when that was last done.
    pruned: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug)]
struct Record {
    hash: u64,
    version: Option<String>,
    generation: Option<i64>,
}

/// What became of a write.
enum Put {
    /// The object is as it should be.
    Written(Box<ObjectMeta>),
    /// There is somebody else's of its name.
    Taken(Taken),
}

impl Applied {
    /// Of the cluster that has the uid `owner`.
    pub(super) fn new(context: &Context, namespace: &str, owner: &str) -> Self {
        Self {
            context: context.clone(),
            namespace: namespace.to_owned(),
            owner: owner.to_owned(),
            objects: BTreeMap::new(),
            pruned: BTreeMap::new(),
        }
    }

    /// An object was changed. If that was not the write that is on record, it is applied again.
    pub(super) fn touched(&mut self, touched: &Touched) {
        let Some(name) = &touched.name else {
            self.objects.retain(|(kind, _), _| kind != touched.kind);
            self.pruned.remove(touched.kind);
            return;
        };
        // Something that was not left: a predecessor's write that came late, for instance.
        if self.pruned.get(touched.kind).is_some_and(|left| !left.contains(name)) {
            self.pruned.remove(touched.kind);
        }
        let key = (touched.kind.to_owned(), name.clone());
        if self.objects.get(&key).is_some_and(|record| record.is_other(touched)) {
            self.objects.remove(&key);
        }
    }

    /// Makes what is not there, and applies what is not as it was last applied. Returns what is
    /// left alone, because somebody else made it; that is looked at again each time.
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
                // It is another one by now, or another version of it, or gone. What cannot be made
                // because its kind or its namespace is gone is an error.
                Err(kube::Error::Api(status))
                    if status.code == 409 || (status.code == 404 && is_there) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("others write it all the time")
    }

    /// Makes an object. A field that Kubernetes does not know is refused, as it is when an object
    /// is applied; otherwise it would be left out without a word.
    async fn create(&self, api: &Api<DynamicObject>, object: &Value) -> kube::Result<ObjectMeta> {
        let params =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let mut request = Request::new(api.resource_url())
            .create(&params, body)
            .map_err(kube::Error::BuildRequest)?;
        let strict = format!("{}&fieldValidation=Strict", request.uri()).parse::<Uri>();
        *request.uri_mut() = strict.map_err(|error| kube::Error::HttpError(error.into()))?;
        Figures::count(&self.context.figures.writes);
        let made: DynamicObject = self.context.client.request(request).await?;
        Ok(made.metadata)
    }

    /// Applies an object, if it is still the one that was looked at.
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
            Figures::count(&self.context.figures.writes);
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
        Figures::count(&self.context.figures.writes);
        Ok(api.patch(name, &params, &Patch::Apply(pinned)).await?.metadata)
    }

    /// Deletes services, or slices of endpoints, of brokers and listeners that are no more. `label`
    /// names who made them.
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
        // What comes besides is heard of.
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
            Figures::count(&self.context.figures.writes);
            match api.delete(&name, &only(&metadata)).await {
                Ok(_) => {}
                // It is gone, or another one by now.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(error).with_context(|| format!("delete {kind} {name}")),
            }
            self.objects.remove(&(kind.to_string(), name));
        }
        self.pruned.insert(kind.into_owned(), wanted);
        Ok(())
    }

    /// Whether the kind `PodMonitor` is there.
    pub(super) async fn knows_pod_monitors(&self) -> anyhow::Result<bool> {
        let Some(resource) = resource_of("monitoring.coreos.com/v1", "PodMonitor") else {
            return Ok(false);
        };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.context.client.clone(), &self.namespace, &resource);
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => Ok(true),
            // Not there, or none of the operator's business.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(false),
            Err(error) => Err(error).context("look for PodMonitors"),
        }
    }
}

impl Record {
    /// Whether the object is not as the write on record left it. Objects with a generation change
    /// their version by their status alone.
    fn is_other(&self, touched: &Touched) -> bool {
        if touched.deleted {
            // The end of one that was made anew meanwhile comes late: to apply once too often is no
            // harm.
            return true;
        }
        match (self.generation, touched.generation) {
            (Some(ours), Some(theirs)) => ours != theirs,
            _ => self.version != touched.version,
        }
    }
}

/// How to delete the object that was looked at, and no other of its name.
pub(super) fn only(looked_at: &ObjectMeta) -> DeleteParams {
    DeleteParams::default()
        .preconditions(Preconditions { uid: looked_at.uid.clone(), resource_version: None })
}

/// The managed fields of an object that was created here and never applied, if it is one, as if it
/// had been applied: a field that is no more goes with the next application only if an application
/// set it. Kubernetes' own clients do the same where they begin to apply
/// (`k8s.io/client-go/util/csaupgrade`).
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
        assert!(resource_of("v1", "Secret").is_none());
    }
}
