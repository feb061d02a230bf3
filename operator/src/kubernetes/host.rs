//! The controller of one cluster while it runs in this process: with its store, and reachable for
//! brokers and for topics.

pub(super) mod elsewhere;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::Instrument as _;
use uuid::Uuid;
use weir_crds::KafkaCluster;
use weir_protocol::types::TopicId;

use super::annotations::{CLUSTER_ID_ANNOTATION, STATE_ANNOTATION, annotation};
use super::context::Context;
use super::groups;
use super::hosted_clusters::HostedClusters;
use super::sizes::{Sizes, keep_sizes};
use super::topics::{Hosted, Notice, keep_statuses};
use crate::controller::Key;
use crate::controller::state::State;
use crate::kafka::Client;
use crate::rpc::Controllers;
use crate::shell::Controller;
use crate::store::StoreError;
use crate::store::kube::{CLUSTER_LABEL, ClusterCache, Kept, KubeStore};
use crate::time::now;

/// Why a cluster has no controller.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The tables do not exist, and are to be rebuilt from the brokers' volumes.
    Recovers,
    /// The cluster has run, and its state is gone.
    StateLost,
    /// A cluster of this name left its state without the registry, so its id is unknown.
    RegistryLost,
    /// A cluster of this name left its state, but its id differs from the one on this resource.
    AnotherCluster {
        /// The id in the state.
        kept: String,
        /// The id on the resource.
        annotated: String,
    },
    /// The state cannot be read or written.
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Trouble {
    /// The message: the problem and what helps.
    pub(super) fn said(self, cluster: &Key) -> anyhow::Error {
        let Key { namespace, name } = cluster;
        match self {
            Self::Recovers => {
                anyhow::anyhow!("the partition tables are made anew of what the brokers have")
            }
            Self::StateLost => anyhow::anyhow!(
                "the PartitionTable {name}-registry is missing, though the cluster has run: restore the PartitionTables from a backup, have them made of what is on the brokers' volumes by spec.recoverFrom: Volumes, or begin without any topic's partitions by the annotation {STATE_ANNOTATION}=new"
            ),
            Self::RegistryLost => anyhow::anyhow!(
                "a KafkaCluster of this name left PartitionTables, but {name}-registry, which has its id, is missing: restore it from a backup, have all made of what is on the brokers' volumes by spec.recoverFrom: Volumes, or, if the records may go, remove what is left: kubectl delete partitiontables,pvc -n {namespace} -l {CLUSTER_LABEL}={name}"
            ),
            Self::AnotherCluster { kept, annotated } => anyhow::anyhow!(
                "a KafkaCluster of this name left the PartitionTables of the cluster {kept}, and by its annotation {CLUSTER_ID_ANNOTATION} this one is {annotated}: remove the annotation to go on with what was left, or restore the PartitionTables of {annotated} from a backup"
            ),
            Self::Store(StoreError::NotLeader) => {
                anyhow::anyhow!("another replica of the operator leads")
            }
            Self::Store(error) => {
                anyhow::Error::from(error).context("take over the cluster's state")
            }
        }
    }
}

/// A running controller; dropping it ends the controller.
pub(super) struct Host {
    cluster_id: String,
    /// It continues with the state of a former cluster of this name.
    takes_up: bool,
    since: Instant,
    cluster: Key,
    controller: Controller,
    committed: watch::Receiver<State>,
    cache: ClusterCache,
    shell: JoinHandle<Result<(), StoreError>>,
    statuses: JoinHandle<()>,
    groups: JoinHandle<()>,
    sizes: Sizes,
    sizes_task: JoinHandle<()>,
    controllers: Controllers,
    sites: Arc<HostedClusters>,
    notices: mpsc::Sender<Notice>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.controllers.remove(&self.cluster_id);
        self.sites.remove(&self.cluster_id);
        self.shell.abort();
        self.statuses.abort();
        self.groups.abort();
        self.sizes_task.abort();
        // If the notice is lost, requests go to a controller that does not answer.
        let _ = self.notices.try_send(Notice::Gone(self.cluster.clone()));
    }
}

impl Host {
    /// Starts the controller. `begins`: brokers have reported that there is nothing to recover.
    pub(super) async fn start(
        context: &Context,
        sites: &Arc<HostedClusters>,
        key: &Key,
        cluster: &KafkaCluster,
        resource: &watch::Receiver<Arc<KafkaCluster>>,
        notices: &mpsc::Sender<Notice>,
        begins: bool,
    ) -> Result<Self, Trouble> {
        let cache = ClusterCache::default();
        let mut store = KubeStore::new(
            context.client.clone(),
            cluster,
            Arc::clone(&context.leads),
            cache.clone(),
        );
        let (cluster_id, takes_up) = match store.kept().await? {
            Some(kept) => {
                check_identity(cluster, &kept)?;
                (kept.cluster_id, kept.of_a_former_one)
            }
            None if may_be_recovered(cluster) && !begins => return Err(Trouble::Recovers),
            None => {
                let id = id_of_new(cluster, store.has_shards().await?)?;
                store.create(id.clone(), cluster.clone()).await?;
                (id, false)
            }
        };
        let excused = elsewhere::excused(context, cluster, &now()).await?;
        let (controller, shell) = Controller::start_elsewhere(store, excused).await?;
        let domain = domain_of(cluster);
        let identities = context.controllers.identities(&domain);
        context.controllers.put(cluster_id.clone(), controller.clone(), Some(domain));
        sites.put(cluster_id.clone(), resource.clone());
        let (sizes, keep_sizes) =
            keep_sizes(Client::new(controller.committed(), identities.clone()));
        let hosted = Hosted {
            cluster: key.clone(),
            sizes: sizes.clone(),
            controller: controller.clone(),
            cache: cache.clone(),
        };
        // The send fails only if this replica is losing its leadership.
        let _ = notices.send(Notice::Hosted(hosted.clone())).await;
        let statuses = keep_statuses(context.clone(), hosted);
        let asking = Client::new(controller.committed(), identities);
        let groups = groups::keep_groups(context.clone(), key.clone(), asking);
        Ok(Self {
            cluster_id,
            takes_up,
            since: Instant::now(),
            cluster: key.clone(),
            committed: controller.committed(),
            controller,
            cache,
            shell,
            statuses: tokio::spawn(async move { match statuses.await {} }.in_current_span()),
            groups: tokio::spawn(async move { match groups.await {} }.in_current_span()),
            sizes,
            sizes_task: tokio::spawn(async move { match keep_sizes.await {} }.in_current_span()),
            controllers: context.controllers.clone(),
            sites: Arc::clone(sites),
            notices: notices.clone(),
        })
    }

    pub(super) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Whether it continues with the state of a former cluster of this name.
    pub(super) const fn takes_up(&self) -> bool {
        self.takes_up
    }

    pub(super) fn controller(&self) -> &Controller {
        &self.controller
    }

    /// The committed state.
    pub(super) fn state(&self) -> State {
        self.committed.borrow().clone()
    }

    /// How long the controller has run.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// The bytes of all records, if known.
    pub(super) fn bytes(&self) -> Option<i64> {
        self.sizes.total()
    }

    /// Records an observation of the cluster's resource.
    pub(super) fn saw(&self, cluster: &KafkaCluster) {
        self.cache.observe_cluster(cluster.clone());
    }

    /// The reason why the controller ended, if it did.
    pub(super) async fn ended(&mut self) -> Option<String> {
        if self.statuses.is_finished() {
            return Some("the task of the topics' statuses failed".to_owned());
        }
        if self.groups.is_finished() {
            return Some("the task of the consumer groups failed".to_owned());
        }
        if self.sizes_task.is_finished() {
            return Some("the task of the topics' sizes failed".to_owned());
        }
        if !self.shell.is_finished() {
            return None;
        }
        Some(match (&mut self.shell).await {
            Ok(Ok(())) => "nobody needs it any more".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        })
    }
}

/// The domain of a cluster, which the certificates of its nodes name. Another resource of the same
/// name has another.
pub(super) fn domain_of(cluster: &KafkaCluster) -> String {
    cluster.metadata.uid.clone().unwrap_or_default()
}

/// Waits for a commit of the controller, or for its end.
pub(super) async fn news(host: Option<&mut Host>) {
    match host {
        Some(host) => {
            tokio::select! {
                // The shell drops the sender when it ends.
                _ = host.committed.changed() => {}
                () = host.sizes.total_changed() => {}
            }
        }
        None => std::future::pending().await,
    }
}

/// Refuses the state of another cluster. If a former cluster left it and the resource has another
/// cluster id, the state comes from a backup or from elsewhere.
fn check_identity(cluster: &KafkaCluster, kept: &Kept) -> Result<(), Trouble> {
    match annotation(cluster, CLUSTER_ID_ANNOTATION) {
        Some(annotated) if kept.of_a_former_one && annotated != kept.cluster_id => {
            Err(Trouble::AnotherCluster {
                kept: kept.cluster_id.clone(),
                annotated: annotated.to_owned(),
            })
        }
        _ => Ok(()),
    }
}

/// Whether a cluster without tables gets them from its volumes. The annotation for a new cluster
/// overrides that.
pub(super) fn may_be_recovered(cluster: &KafkaCluster) -> bool {
    cluster.spec.recover_from.is_some() && annotation(cluster, STATE_ANNOTATION) != Some("new")
}

/// The id of a cluster that has no registry yet: its resource's uid in Kafka's form.
fn id_of_new(cluster: &KafkaCluster, has_shards: bool) -> Result<String, Trouble> {
    match (annotation(cluster, CLUSTER_ID_ANNOTATION), annotation(cluster, STATE_ANNOTATION)) {
        (Some(id), Some("new")) => Ok(id.to_owned()),
        (Some(_), _) => Err(Trouble::StateLost),
        (None, _) if has_shards => Err(Trouble::RegistryLost),
        (None, _) => {
            let uid = cluster.metadata.uid.as_deref().and_then(|uid| Uuid::parse_str(uid).ok());
            Ok(uid.map_or_else(TopicId::random, TopicId).to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(annotations: &[(&str, &str)]) -> KafkaCluster {
        let mut cluster = KafkaCluster::new("c", weir_crds::KafkaClusterSpec::default());
        cluster.metadata.uid = Some("5c5e8a1e-0000-4000-8000-000000000001".to_owned());
        cluster.metadata.annotations = Some(
            annotations
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        );
        cluster
    }

    #[test]
    fn a_cluster_that_has_run_does_not_begin_anew_by_itself() {
        let id = |annotations: &[(&str, &str)]| id_of_new(&cluster(annotations), false).ok();
        assert_eq!(id(&[]).as_deref(), Some("XF6KHgAAQACAAAAAAAAAAQ"));
        assert_eq!(id(&[(CLUSTER_ID_ANNOTATION, "old")]), None);
        assert_eq!(
            id(&[(CLUSTER_ID_ANNOTATION, "old"), (STATE_ANNOTATION, "new")]).as_deref(),
            Some("old")
        );
        // Shards without a known owner do not get a new id.
        assert!(matches!(id_of_new(&cluster(&[]), true), Err(Trouble::RegistryLost)));
    }

    #[test]
    fn what_another_cluster_left_is_not_taken_up() {
        let refuses = |annotations: &[(&str, &str)], of_a_former_one: bool| {
            let kept = Kept { cluster_id: "kept".to_owned(), of_a_former_one };
            check_identity(&cluster(annotations), &kept).is_err()
        };
        assert!(!refuses(&[], true) && !refuses(&[(CLUSTER_ID_ANNOTATION, "kept")], true));
        assert!(refuses(&[(CLUSTER_ID_ANNOTATION, "another")], true));
        assert!(
            !refuses(&[(CLUSTER_ID_ANNOTATION, "another")], false),
            "its own state is its own, whatever somebody wrote on it"
        );
    }
}
