//! Objects are applied by server-side apply, when they are not what was last applied, or when somebody else changed them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context as _, bail};
use kube::Resource;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{GroupVersionKind, NamespaceResourceScope};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::info;

use super::super::objects::{MANAGER, Names};
use super::{Context, Figures, Touched};
use crate::store::kube::{CLUSTER_LABEL, FIELD_MANAGER};

/// What was applied, as far as this process knows.
pub(super) struct Applied {
    context: Context,
    namespace: String,
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

impl Applied {
    pub(super) fn new(context: &Context, namespace: &str) -> Self {
        Self {
            context: context.clone(),
            namespace: namespace.to_owned(),
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

    /// Applies what is not as it was last applied.
    pub(super) async fn apply(&mut self, objects: &[Value]) -> anyhow::Result<()> {
        for object in objects {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (kind, name) = (text("/kind"), text("/metadata/name"));
            let hash = hash_of(object);
            let key = (kind.clone(), name.clone());
            if self.objects.get(&key).is_some_and(|record| record.hash == hash) {
                continue;
            }
            let Some(resource) = resource_of(&text("/apiVersion"), &kind) else {
                bail!("{kind} is no kind that is applied")
            };
            let api: Api<DynamicObject> = Api::namespaced_with(self.context.client.clone(), &self.namespace, &resource);
            let params = PatchParams::apply(FIELD_MANAGER).force().validation_strict();
            Figures::count(&self.context.figures.writes);
            let written = api.patch(&name, &params, &Patch::Apply(object)).await;
            let written = written.with_context(|| format!("apply {kind} {name}"))?;
            let record = Record {
                hash,
                version: written.metadata.resource_version,
                generation: written.metadata.generation,
            };
            self.objects.insert(key, record);
        }
        Ok(())
    }

    /// Deletes services, or slices of endpoints, of brokers and listeners that are no more. `label` names who made them.
    pub(super) async fn prune<K>(&mut self, names: &Names, label: &str, objects: &[Value]) -> anyhow::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let kind = K::kind(&());
        let of_kind = objects
            .iter()
            .filter(|object| object.pointer("/kind").and_then(Value::as_str) == Some(&kind));
        let wanted: BTreeSet<String> = of_kind
            .filter_map(|object| object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned))
            .collect();
        // What comes besides is heard of.
        if self.pruned.get(&*kind) == Some(&wanted) {
            return Ok(());
        }
        let api: Api<K> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let params = ListParams::default().labels(&format!("{CLUSTER_LABEL}={},{label}={MANAGER}", names.cluster));
        for object in api
            .list_metadata(&params)
            .await
            .with_context(|| format!("list objects of kind {kind}"))?
            .items
        {
            let name = object.metadata.name.unwrap_or_default();
            if !wanted.contains(&name) && object.metadata.deletion_timestamp.is_none() {
                info!(%kind, name, namespace = self.namespace, "deletes what nothing needs any more");
                Figures::count(&self.context.figures.writes);
                api.delete(&name, &DeleteParams::default())
                    .await
                    .with_context(|| format!("delete {kind} {name}"))?;
                self.objects.remove(&(kind.to_string(), name));
            }
        }
        self.pruned.insert(kind.into_owned(), wanted);
        Ok(())
    }

    /// Whether the kind `PodMonitor` is there.
    pub(super) async fn knows_pod_monitors(&self) -> anyhow::Result<bool> {
        let Some(resource) = resource_of("monitoring.coreos.com/v1", "PodMonitor") else {
            return Ok(false);
        };
        let api: Api<DynamicObject> = Api::namespaced_with(self.context.client.clone(), &self.namespace, &resource);
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => Ok(true),
            // Not there, or none of the operator's business.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(false),
            Err(error) => Err(error).context("look for PodMonitors"),
        }
    }
}

impl Record {
    /// Whether the object is not as the write on record left it. Objects with a generation change their version by their status alone.
    fn is_other(&self, touched: &Touched) -> bool {
        if touched.deleted {
            // The end of one that was made anew meanwhile comes late: to apply once too often is no harm.
            return true;
        }
        match (self.generation, touched.generation) {
            (Some(ours), Some(theirs)) => ours != theirs,
            _ => self.version != touched.version,
        }
    }
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

    #[test]
    fn only_the_changes_of_others_are_undone() {
        let touched = |version: &str, generation: Option<i64>| Touched {
            kind: "X",
            name: Some("x".to_owned()),
            version: Some(version.to_owned()),
            generation,
            deleted: false,
        };
        let with = Record {
            hash: 0,
            version: Some("7".to_owned()),
            generation: Some(2),
        };
        assert!(!with.is_other(&touched("7", Some(2))) && !with.is_other(&touched("8", Some(2))) && with.is_other(&touched("9", Some(3))));
        assert!(with.is_other(&Touched {
            deleted: true,
            ..touched("7", Some(2))
        }));
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
