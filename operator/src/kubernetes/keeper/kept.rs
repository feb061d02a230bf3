//! What outlives a cluster whose volumes are kept, beside what its store keeps: the topics that clients made. A deleted cluster's objects go by the owner that they name, so these name none.

use anyhow::{Context as _, bail};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams};
use serde_json::json;
use tracing::info;
use weir_crds::{KafkaCluster, Topic};

use super::super::topics::Key;
use super::{Context, Figures};
use crate::controller::state::State;
use crate::controller::{TOPIC_ID_ANNOTATION, summary};
use crate::store::kube::ours::{controller_of, is_ours};
use crate::store::kube::{CLUSTER_LABEL, owner};

/// How often the topics are looked at for one change, while others write them, too. The next pass goes on.
const LOOKS_MAX: usize = 5;

/// What is said of a cluster that goes on with what one of its name left.
pub(super) fn taken_up(cluster_id: &str, state: &State) -> String {
    let partitions = summary(state.topics.values().flat_map(|topic| &topic.partitions));
    format!(
        "goes on with what a KafkaCluster of this name left: the cluster {cluster_id}, {} topics, {} partitions",
        state.topics.len(),
        partitions.total
    )
}

/// Makes each topic that a client made go with the cluster, or outlive it.
pub(super) async fn settle(context: &Context, key: &Key, cluster: &KafkaCluster, go: bool) -> anyhow::Result<()> {
    let api: Api<Topic> = Api::namespaced(context.client.clone(), &key.namespace);
    // Those that users make do not have it.
    let params = ListParams::default().labels(&format!("{CLUSTER_LABEL}={}", key.name));
    for _ in 0..LOOKS_MAX {
        let mut is_settled = true;
        let listed = api.list_metadata(&params).await.context("list the Topics that clients made")?;
        for topic in listed.items {
            let Some(owners) = owners(&topic.metadata, cluster, go) else { continue };
            let name = topic.metadata.name.as_deref().unwrap_or_default();
            let patch =
                json!({"metadata": {"uid": topic.metadata.uid, "resourceVersion": topic.metadata.resource_version, "ownerReferences": owners}});
            Figures::count(&context.figures.writes);
            match api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => info!(
                    topic = name,
                    namespace = key.namespace,
                    go,
                    "a Topic goes with its cluster, or not any more"
                ),
                // It is another version by now, or gone.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => is_settled = false,
                Err(error) => return Err(error).with_context(|| format!("patch the owners of the Topic {name}")),
            }
        }
        if is_settled {
            return Ok(());
        }
    }
    bail!("others write the Topics of the cluster all the time")
}

/// The owners that a topic is to have, if it has others.
fn owners(topic: &ObjectMeta, cluster: &KafkaCluster, go: bool) -> Option<Vec<OwnerReference>> {
    let mut owners = topic.owner_references.clone().unwrap_or_default();
    let uid = cluster.metadata.uid.as_deref().unwrap_or_default();
    let is_taken_up = topic.annotations.as_ref().is_some_and(|all| all.contains_key(TOPIC_ID_ANNOTATION));
    if go && is_taken_up && controller_of(topic).is_none() {
        owners.push(owner(cluster));
    } else if !go && is_ours(topic, uid) {
        owners.retain(|owner| owner.uid != uid);
    } else {
        return None;
    }
    Some(owners)
}
