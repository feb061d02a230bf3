//! The recovery of a cluster's partition tables from its brokers' volumes (`spec.recoverFrom:
//! Volumes`).
//!
//! The brokers get a name in place of the cluster's id, and hand in their inventories at a desk.
//! The controller starts once the tables exist.

use std::sync::Arc;

use tracing::info;
use weir_crds::KafkaCluster;
use weir_protocol::controller::RECOVERS;

use super::super::annotations::{CLUSTER_ID_ANNOTATION, annotation};
use super::super::context::Context;
use super::super::host::domain_of;
use super::super::offered;
use crate::controller::Key;
use crate::controller::recovery::{Known, Stock, brokers_needed, take_stock};
use crate::controller::state::{Cluster, State};
use crate::controller::summary;
use crate::rpc::{Controllers, Desk};
use crate::shell::moment;
use crate::store::kube::{ClusterCache, KubeStore, Written};

/// The stage of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits; the text says for what.
    Waits(String),
    /// The volumes are unusable; the text says why.
    Refused(String),
    /// The tables exist: the cluster's id, and a summary.
    Made(String, String),
    /// All volumes are new: there is nothing to recover.
    New,
}

/// The desk of a cluster, open or closed; dropping it removes the desk.
pub(super) struct TableRecovery {
    controllers: Controllers,
    /// The names and ids under which brokers reach the desk.
    names: Vec<String>,
    pub(super) desk: Desk,
    stage: Stage,
    replicas: i32,
}

impl Drop for TableRecovery {
    fn drop(&mut self) {
        self.names.iter().for_each(|name| self.controllers.remove_desk(name));
    }
}

impl TableRecovery {
    fn new(
        context: &Context,
        cluster: &KafkaCluster,
        names: Vec<String>,
        desk: Desk,
        stage: Stage,
    ) -> Self {
        for name in &names {
            context.controllers.put_desk(name.clone(), desk.clone(), Some(domain_of(cluster)));
        }
        Self { controllers: context.controllers.clone(), names, desk, stage, replicas: 0 }
    }

    /// Opens the desk. Brokers that still run under the cluster's id are directed to it.
    pub(super) fn begin(context: &Context, key: &Key, cluster: &KafkaCluster) -> Self {
        let known = annotation(cluster, CLUSTER_ID_ANNOTATION).map(str::to_owned);
        let names = [name(key)].into_iter().chain(known).collect();
        Self::new(context, cluster, names, Desk::default(), Stage::Waits(String::new()))
    }

    /// A closed desk for a cluster with tables, for brokers that do not know its id yet.
    pub(super) fn over(
        context: &Context,
        key: &Key,
        cluster: &KafkaCluster,
        cluster_id: &str,
    ) -> Self {
        let stage = Stage::Made(cluster_id.to_owned(), String::new());
        Self::new(context, cluster, vec![name(key)], Desk::closed(cluster_id), stage)
    }

    /// The stage, while there are no tables.
    pub(super) fn stage(&self) -> Option<&Stage> {
        Some(&self.stage).filter(|stage| matches!(stage, Stage::Waits(_) | Stage::Refused(_)))
    }

    /// The name that brokers get in place of the cluster's id.
    pub(super) fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// The number of brokers to run.
    pub(super) const fn replicas(&self) -> i32 {
        self.replicas
    }

    /// A state with the cluster alone, without brokers and topics.
    pub(super) fn state(&self, cluster: &KafkaCluster) -> State {
        State::new(Cluster::new(self.name().to_owned(), offered::cluster(cluster)))
    }

    /// Builds the tables once all required inventories are there.
    ///
    /// # Errors
    /// When the Kubernetes API refuses or does not answer; the caller tries again.
    pub(super) async fn build_when_complete(
        &mut self,
        context: &Context,
        cluster: &KafkaCluster,
    ) -> anyhow::Result<Stage> {
        let mut store = KubeStore::new(
            context.client.clone(),
            cluster,
            Arc::clone(&context.leads),
            ClusterCache::default(),
        );
        let Written { topics, taken, credentials } = store.written().await?;
        let known = Known {
            cluster,
            cluster_id: annotation(cluster, CLUSTER_ID_ANNOTATION),
            topics: &topics,
            taken: &taken,
            credentials: credentials.as_deref(),
        };
        let (stock, replicas) = self.desk.read(|inventories| {
            (take_stock(known, inventories, &moment()), brokers_needed(cluster, inventories))
        });
        self.replicas = replicas;
        self.stage = match stock {
            Stock::Waits(reason) => Stage::Waits(reason),
            Stock::Refused(reason) => Stage::Refused(reason),
            Stock::New => Stage::New,
            Stock::Recovered(state, changes) => {
                store.recover(&state, &changes).await?;
                let partitions =
                    summary(state.topics.values().flat_map(|topic| &topic.partitions)).total;
                let note = format!(
                    "the partition tables are made of what {} brokers have on their volumes: the cluster {}, {} topics, {partitions} partitions",
                    state.brokers.len(),
                    state.cluster.id,
                    state.topics.len()
                );
                info!(cluster = state.cluster.name(), note, "a cluster is recovered");
                Stage::Made(state.cluster.id.clone(), note)
            }
        };
        if let Stage::Waits(reason) | Stage::Refused(reason) = &self.stage {
            self.desk.say(reason);
        }
        Ok(self.stage.clone())
    }

    /// Tells brokers that the tables exist.
    pub(super) fn close(&self, cluster_id: &str) {
        self.desk.close(cluster_id);
    }
}

fn name(key: &Key) -> String {
    format!("{RECOVERS}{}/{}", key.namespace, key.name)
}

/// Waits until a broker hands in an inventory.
pub(super) async fn news(recovery: Option<&TableRecovery>) {
    match recovery {
        Some(recovery) => recovery.desk.news().await,
        None => std::future::pending().await,
    }
}
