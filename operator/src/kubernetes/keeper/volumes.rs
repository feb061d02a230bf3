//! The brokers' volumes: they grow, and never shrink.
//!
//! A StatefulSet's volume claim templates cannot be changed. So each claim grows first; then the
//! StatefulSet is deleted without its pods and applied again.

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams};
use serde_json::json;
use tracing::info;
use weir_crds::{KafkaCluster, Quantity, Storage};

use super::super::context::Context;
use super::super::metrics::Metrics;
use super::super::objects::Names;
use super::apply::only;
use super::observation::Observation;
use crate::controller::Key;
use crate::store::kube::ours::{Taken, if_ours, is_claim_of};

/// The existing claims, and the storage that the spec wants.
#[derive(Debug)]
pub(super) struct Volumes {
    wanted: Storage,
    /// The StatefulSet, if the cluster has one.
    set: Option<ObjectMeta>,
    /// The size and class of its template. Without a StatefulSet, those of the smallest claim that
    /// a former cluster of this name left.
    template: Option<(Quantity, Option<String>)>,
    claims: Vec<PersistentVolumeClaim>,
    /// Claims of somebody else with the names of brokers' claims: a broker would write its records
    /// into them.
    pub(super) taken: Vec<Taken>,
}

impl Volumes {
    pub(super) async fn observe(
        context: &Context,
        key: &Key,
        cluster: &KafkaCluster,
        replicas: i32,
    ) -> anyhow::Result<Self> {
        let names = Names::of(cluster);
        let sets: Api<StatefulSet> = Api::namespaced(context.client.clone(), &key.namespace);
        let set = sets.get_opt(&key.name).await.context("get the StatefulSet")?;
        let set = if_ours(set, cluster.metadata.uid.as_deref().unwrap_or_default());
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(context.client.clone(), &key.namespace);
        let (mut claims, mut taken) = (Vec::new(), Vec::new());
        for id in 0..replicas {
            let name = names.claim(id);
            match api.get_opt(&name).await.context("get a PersistentVolumeClaim")? {
                Some(claim) if is_claim_of(&key.name, &claim.metadata) => claims.push(claim),
                Some(claim) => taken.push(Taken::of(
                    "PersistentVolumeClaim",
                    &key.namespace,
                    &name,
                    &claim.metadata,
                )),
                None => {}
            }
        }
        Ok(Self {
            wanted: cluster.spec.brokers.storage.clone(),
            template: set.as_ref().and_then(template_of).or_else(|| smallest(&claims)),
            set: set.map(|set| set.metadata),
            claims,
            taken,
        })
    }

    /// Whether the cluster has its StatefulSet.
    pub(super) const fn has_set(&self) -> bool {
        self.set.is_some()
    }

    /// The resource with the storage that its StatefulSet can have. An existing template keeps its
    /// class and size, since the API server refuses every change of claim templates. `remade`: the
    /// StatefulSet is created again.
    pub(super) fn effective(&self, cluster: &KafkaCluster, remade: bool) -> KafkaCluster {
        let mut effective = cluster.clone();
        if let Some((size, class)) = &self.template {
            let storage = &mut effective.spec.brokers.storage;
            storage.storage_class_name.clone_from(class);
            if !remade {
                storage.size = size.clone();
            }
        }
        effective
    }

    /// Grows the claims, and records what the spec cannot have. Returns whether the StatefulSet was
    /// deleted, to be created again with the wanted size.
    pub(super) async fn grow(
        &self,
        context: &Context,
        key: &Key,
        findings: &mut Observation,
    ) -> anyhow::Result<bool> {
        findings.storage = self.complaint();
        findings.unbound = self.pending(context).await;
        findings.growing = self.growing();
        findings.under_way |= findings.growing.is_some();
        let (Some(set), Some((size, _))) = (&self.set, &self.template) else {
            return Ok(false);
        };
        // With a claim of somebody else's, the StatefulSet would not be created again.
        if self.wanted.size.value() <= size.value() || !self.taken.is_empty() {
            return Ok(false);
        }
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(context.client.clone(), &key.namespace);
        for claim in self.claims.iter().filter(|claim| {
            requested(claim).and_then(|size| size.value()) < self.wanted.size.value()
        }) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let patch = json!({"metadata": {"uid": claim.metadata.uid}, "spec": {"resources": {"requests": {"storage": self.wanted.size.0}}}});
            Metrics::count(&context.figures.writes);
            match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => info!(
                    claim = name,
                    namespace = key.namespace,
                    size = self.wanted.size.0,
                    "grows a volume"
                ),
                Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
                    let wanted = &self.wanted.size.0;
                    findings.storage.get_or_insert_with(|| {
                        format!(
                            "{name} cannot grow to {wanted}, and all volumes of new brokers stay at {}: {}; it is tried again, all else goes on",
                            size.0, status.message
                        )
                    });
                    return Ok(false);
                }
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("patch PersistentVolumeClaim {name}"));
                }
            }
        }
        // The pods stay: the StatefulSet that is applied next adopts them.
        let sets: Api<StatefulSet> = Api::namespaced(context.client.clone(), &key.namespace);
        info!(
            cluster = key.name,
            namespace = key.namespace,
            size = self.wanted.size.0,
            "makes the StatefulSet anew for larger volumes"
        );
        Metrics::count(&context.figures.writes);
        let params =
            DeleteParams { preconditions: only(set).preconditions, ..DeleteParams::orphan() };
        match sets.delete(&key.name, &params).await {
            Ok(_) => {}
            // It is gone, or another object has the name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error).context("delete the StatefulSet without its pods"),
        }
        // It is gone once its finalizer has run; looks at most 100 times, 100 ms apart.
        for _ in 0..100 {
            if sets.get_metadata_opt(&key.name).await.context("get the StatefulSet")?.is_none() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        findings.under_way = true;
        Ok(true)
    }

    /// The progress of volumes that are smaller than their claims' requests.
    fn growing(&self) -> Option<String> {
        let capacity = |claim: &PersistentVolumeClaim| {
            let capacity = claim.status.as_ref()?.capacity.as_ref()?.get("storage")?;
            Quantity(capacity.0.clone()).value()
        };
        let grows = |claim: &&PersistentVolumeClaim| {
            capacity(claim)
                .is_some_and(|has| Some(has) < requested(claim).and_then(|size| size.value()))
        };
        let growing = self.claims.iter().filter(grows).count();
        let all = self.claims.len();
        (growing > 0).then(|| {
            format!(
                "{} of {all} volumes have the size that is wanted, the others grow",
                all - growing
            )
        })
    }

    fn complaint(&self) -> Option<String> {
        let (size, class) = self.template.as_ref()?;
        if self.wanted.size.value() < size.value() {
            return Some(format!(
                "volumes cannot shrink: they have {}, and brokers.storage.size asks for {}",
                size.0, self.wanted.size.0
            ));
        }
        // A failed resize by the volume controller or a node is only in the claim's conditions.
        let failed = self.claims.iter().find_map(|claim| {
            let conditions = claim.status.as_ref()?.conditions.as_ref()?;
            let failed = |kind: &str| kind == "ControllerResizeError" || kind == "NodeResizeError";
            let condition = conditions
                .iter()
                .find(|condition| failed(&condition.type_) && condition.status == "True")?;
            Some((
                claim.metadata.name.as_deref()?,
                condition.message.as_deref().unwrap_or_default(),
            ))
        });
        if let Some((name, message)) = failed {
            return Some(format!("{name} does not grow: {message}"));
        }
        if self.wanted.storage_class_name.is_some() && self.wanted.storage_class_name != *class {
            let class = class.as_deref().unwrap_or("the default one");
            return Some(format!(
                "volumes stay in the storage class in which they were made, {class}: brokers.storage.storageClassName cannot change"
            ));
        }
        None
    }

    /// Why claims are not bound.
    async fn pending(&self, context: &Context) -> Option<String> {
        self.set.as_ref()?;
        let phase = |claim: &PersistentVolumeClaim| {
            claim.status.as_ref().and_then(|status| status.phase.clone())
        };
        let name = |claim: &PersistentVolumeClaim| claim.metadata.name.clone().unwrap_or_default();
        if let Some(lost) = self.claims.iter().find(|claim| phase(claim).as_deref() == Some("Lost"))
        {
            let name = name(lost);
            return Some(format!(
                "the volume of {name} is gone: delete the claim and its pod, and the broker begins anew and copies its records from the others"
            ));
        }
        let pending =
            self.claims.iter().find(|claim| phase(claim).as_deref() == Some("Pending"))?;
        let class = pending.spec.as_ref()?.storage_class_name.clone();
        let Some(class) = class.filter(|class| !class.is_empty()) else {
            return Some(format!(
                "{} has no storage class, and there is no default one: set brokers.storage.storageClassName",
                name(pending)
            ));
        };
        let classes: Api<StorageClass> = Api::all(context.client.clone());
        match classes.get_metadata_opt(&class).await {
            Ok(None) => Some(format!(
                "the storage class {class:?} of {} does not exist: make it, or delete the KafkaCluster and name another",
                name(pending)
            )),
            // It is being bound; the pod's trouble says why if that takes long.
            _ => None,
        }
    }
}

fn template_of(set: &StatefulSet) -> Option<(Quantity, Option<String>)> {
    let claim = set.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?;
    Some((requested(claim)?, claim.spec.as_ref()?.storage_class_name.clone()))
}

fn smallest(claims: &[PersistentVolumeClaim]) -> Option<(Quantity, Option<String>)> {
    let smallest = claims
        .iter()
        .filter_map(|claim| Some((requested(claim)?, claim)))
        .min_by_key(|(size, _)| size.value());
    smallest.map(|(size, claim)| {
        (size, claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()))
    })
}

fn requested(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").map(|size| Quantity(size.0.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes(
        wanted: &str,
        wanted_class: Option<&str>,
        there: &str,
        class: Option<&str>,
    ) -> Volumes {
        Volumes {
            wanted: Storage {
                size: Quantity(wanted.to_owned()),
                storage_class_name: wanted_class.map(str::to_owned),
                ..Storage::default()
            },
            set: Some(ObjectMeta::default()),
            template: Some((Quantity(there.to_owned()), class.map(str::to_owned))),
            claims: Vec::new(),
            taken: Vec::new(),
        }
    }

    #[test]
    fn volumes_keep_their_class_and_never_shrink() {
        let effective = |volumes: &Volumes, remade: bool| {
            let mut cluster = KafkaCluster::new("c", weir_crds::KafkaClusterSpec::default());
            cluster.spec.brokers.storage = volumes.wanted.clone();
            let storage = volumes.effective(&cluster, remade).spec.brokers.storage;
            (storage.size.0, storage.storage_class_name)
        };
        let grown = volumes("20Gi", None, "10Gi", Some("fast"));
        assert_eq!(effective(&grown, true), ("20Gi".to_owned(), Some("fast".to_owned())));
        // Until it is created again its template cannot change; any other change would be refused
        // with it.
        assert_eq!(effective(&grown, false), ("10Gi".to_owned(), Some("fast".to_owned())));
        assert_eq!(grown.complaint(), None);
        let shrunk = volumes("5Gi", Some("slow"), "10Gi", Some("fast"));
        assert_eq!(effective(&shrunk, false), ("10Gi".to_owned(), Some("fast".to_owned())));
        assert!(shrunk.complaint().unwrap().starts_with("volumes cannot shrink"));
        assert!(
            volumes("10Gi", Some("slow"), "10Gi", None)
                .complaint()
                .unwrap()
                .contains("stay in the storage class")
        );
        // The same size in another notation changes nothing.
        assert_eq!(effective(&volumes("10240Mi", None, "10Gi", None), false).0, "10Gi");
    }
}
