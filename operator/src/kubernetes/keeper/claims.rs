//! Owners of the volume claims: claims are deleted with their cluster, or outlive it, as
//! `spec.brokers.storage.onDelete` says.
//!
//! The StatefulSet controller handles the claims of the pods that it created. It skips a claim if
//! somebody else's pod has the broker's name, and the claim of a removed broker. Those get the
//! KafkaCluster as an owner instead.

use std::collections::BTreeSet;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ListParams, ObjectMeta};
use weir_crds::KafkaCluster;

use super::super::context::Context;
use super::super::objects::{MANAGED_BY, MANAGER, Names};
use super::owners;
use super::pods::PodView;
use super::wake::Touched;
use crate::controller::Key;
use crate::controller::state::State;
use crate::store::kube::ours::{CLUSTER_LABEL, is_claim_of};
use crate::store::kube::{goes_with_the_cluster, owner};

/// What the owners of the claims were settled for: whether they go with the cluster, and the
/// brokers with a pod of the cluster.
type Settled = (bool, BTreeSet<i32>);

/// The claims of one cluster.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Unless a claim has changed since.
    settled: Option<Settled>,
}

impl Claims {
    /// Handles a change of an object: after that of a claim the owners are looked at again.
    pub(super) fn touched(&mut self, touched: &Touched) {
        if touched.kind == "PersistentVolumeClaim" {
            self.settled = None;
        }
    }

    /// Sets the owners of each claim of the cluster without a pod of the cluster. If the claims
    /// outlive the cluster, it also removes the cluster as an owner of the others. A conflicting
    /// write is handled in the next pass: every change of a claim wakes it.
    pub(super) async fn set_owners(
        &mut self,
        context: &Context,
        key: &Key,
        cluster: &KafkaCluster,
        state: &State,
        pods: &[PodView],
    ) -> anyhow::Result<()> {
        // The spec that the controller accepted, as for the topics.
        let go = goes_with_the_cluster(&state.cluster.resource);
        let with_pods = pods.iter().filter(|pod| pod.owner.is_some()).map(|pod| pod.id);
        let wanted = (go, with_pods.collect::<BTreeSet<i32>>());
        if self.settled.as_ref() == Some(&wanted) {
            return Ok(());
        }
        if set_owners(context, key, cluster, &wanted).await? {
            self.settled = Some(wanted);
        }
        Ok(())
    }
}

/// Returns whether every claim has the wanted owners.
async fn set_owners(
    context: &Context,
    key: &Key,
    cluster: &KafkaCluster,
    (go, with_pods): &Settled,
) -> anyhow::Result<bool> {
    let names = Names::of(cluster);
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &key.namespace);
    let params = ListParams::default()
        .labels(&format!("{CLUSTER_LABEL}={},{MANAGED_BY}={MANAGER}", key.name));
    let listed = api.list_metadata(&params).await.context("list the PersistentVolumeClaims")?;
    let mut is_settled = true;
    for claim in listed.items {
        let name = claim.metadata.name.clone().unwrap_or_default();
        // A copy of a volume may have all its labels.
        let broker = name.rsplit_once('-').and_then(|(_, id)| id.parse().ok());
        let Some(broker) = broker.filter(|id| names.claim(*id) == name) else { continue };
        if !is_claim_of(&key.name, &claim.metadata) {
            continue;
        }
        let has_pod = with_pods.contains(&broker);
        let Some(owners) = wanted_owners(&claim.metadata, cluster, *go, has_pod) else { continue };
        is_settled &= owners::put(context, &api, &claim.metadata, &owners, *go).await?;
    }
    Ok(is_settled)
}

/// The owners to set on a claim, if they differ. `has_pod`: the StatefulSet controller handles it.
fn wanted_owners(
    claim: &ObjectMeta,
    cluster: &KafkaCluster,
    go: bool,
    has_pod: bool,
) -> Option<Vec<OwnerReference>> {
    let uid = cluster.metadata.uid.as_deref().filter(|uid| !uid.is_empty())?;
    let is_the_cluster = |owner: &OwnerReference| owner.uid == uid;
    let is_the_set = |owner: &OwnerReference| {
        owner.kind == "StatefulSet" && Some(&owner.name) == cluster.metadata.name.as_ref()
    };
    let before = claim.owner_references.clone().unwrap_or_default();
    let mut owners = before.clone();
    if !go {
        owners.retain(|owner| !is_the_cluster(owner) && (has_pod || !is_the_set(owner)));
    } else if !has_pod && !owners.iter().any(|owner| is_the_cluster(owner) || is_the_set(owner)) {
        // The StatefulSet controller ignores a claim with another controller.
        owners.push(OwnerReference { controller: Some(false), ..owner(cluster) });
    }
    (owners != before).then_some(owners)
}
