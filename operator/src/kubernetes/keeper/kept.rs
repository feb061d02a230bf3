//! What outlives a cluster's status besides the tables and the volumes: the annotations with its id
//! and image. If the volumes are kept, the topics that clients created outlive the cluster too, so
//! they name no owner.

use anyhow::{Context as _, bail};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams};
use serde_json::json;
use weir_crds::{KafkaCluster, Topic};

use super::super::annotations::{CLUSTER_ID_ANNOTATION, IMAGE_ANNOTATION, annotation};
use super::super::context::Context;
use super::super::metrics::Metrics;
use super::owners;
use crate::controller::state::State;
use crate::controller::{Key, TOPIC_ID_ANNOTATION, summary};
use crate::store::kube::ours::{controller_of, is_ours};
use crate::store::kube::{CLUSTER_LABEL, FIELD_MANAGER, goes_with_the_cluster, owner};

/// The most readings of the topics for one change while others write them too. Then the next pass
/// tries again.
const LOOKS_MAX: usize = 5;

/// The event's note for a cluster that continues with the state of a former one of its name.
pub(super) fn taken_up(cluster_id: &str, state: &State) -> String {
    let partitions = summary(state.topics.values().flat_map(|topic| &topic.partitions));
    format!(
        "goes on with what a KafkaCluster of this name left: the cluster {cluster_id}, {} topics, {} partitions",
        state.topics.len(),
        partitions.total
    )
}

/// Annotates the resource with what must outlive its status.
pub(super) async fn remember(
    context: &Context,
    key: &Key,
    cluster: &KafkaCluster,
    cluster_id: &str,
) -> anyhow::Result<()> {
    // The image of a cluster whose spec names none, also of one that names one now: that may be
    // wrong, and is taken back by removing it.
    let image = context.broker_image.as_str();
    let pinned = annotation(cluster, IMAGE_ANNOTATION);
    if annotation(cluster, CLUSTER_ID_ANNOTATION) == Some(cluster_id) && pinned.is_some() {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster",
        // Not on a resource that was created again under this name.
        "metadata": {"name": key.name, "uid": cluster.metadata.uid, "annotations": {CLUSTER_ID_ANNOTATION: cluster_id, IMAGE_ANNOTATION: pinned.unwrap_or(image)}},
    });
    let api: Api<KafkaCluster> = Api::namespaced(context.client.clone(), &key.namespace);
    Metrics::count(&context.figures.writes);
    api.patch(&key.name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch)).await?;
    Ok(())
}

/// Whether the topics that clients created are deleted with the cluster; set once all of them have
/// the right owners.
#[derive(Debug, Default)]
pub(super) struct Topics {
    go: Option<bool>,
}

impl Topics {
    /// Makes these topics be deleted with the cluster or outlive it, as its volumes do.
    pub(super) async fn set_owners(
        &mut self,
        context: &Context,
        key: &Key,
        cluster: &KafkaCluster,
        state: &State,
    ) -> anyhow::Result<()> {
        // The spec that the controller accepted: it creates new topics accordingly.
        let go = goes_with_the_cluster(&state.cluster.resource);
        if self.go != Some(go) {
            set_owners(context, key, cluster, go).await?;
            self.go = Some(go);
        }
        Ok(())
    }
}

/// Sets the owners of each topic that a client created.
async fn set_owners(
    context: &Context,
    key: &Key,
    cluster: &KafkaCluster,
    go: bool,
) -> anyhow::Result<()> {
    let api: Api<Topic> = Api::namespaced(context.client.clone(), &key.namespace);
    // Users' topics do not have this label.
    let params = ListParams::default().labels(&format!("{CLUSTER_LABEL}={}", key.name));
    for _ in 0..LOOKS_MAX {
        let mut is_settled = true;
        let listed =
            api.list_metadata(&params).await.context("list the Topics that clients made")?;
        for topic in listed.items {
            let Some(owners) = wanted_owners(&topic.metadata, cluster, go) else { continue };
            is_settled &= owners::put(context, &api, &topic.metadata, &owners, go).await?;
        }
        if is_settled {
            return Ok(());
        }
    }
    bail!("others write the Topics of the cluster all the time")
}

/// The owners to set on a topic, if they differ.
fn wanted_owners(
    topic: &ObjectMeta,
    cluster: &KafkaCluster,
    go: bool,
) -> Option<Vec<OwnerReference>> {
    let mut owners = topic.owner_references.clone().unwrap_or_default();
    let uid = cluster.metadata.uid.as_deref().unwrap_or_default();
    let is_taken_up =
        topic.annotations.as_ref().is_some_and(|all| all.contains_key(TOPIC_ID_ANNOTATION));
    if go && is_taken_up && controller_of(topic).is_none() {
        owners.push(owner(cluster));
    } else if !go && is_ours(topic, uid) {
        owners.retain(|owner| owner.uid != uid);
    } else {
        return None;
    }
    Some(owners)
}
