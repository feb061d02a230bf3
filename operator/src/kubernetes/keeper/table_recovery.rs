//! A cluster that has lost its partition tables, and gets them again of what its brokers find on
//! their volumes (`spec.recoverFrom: Volumes`).
//!
//! Its brokers are told a name in place of its id, and come to a desk with what they have; the
//! controller is there once the tables are made.

use std::sync::Arc;

use tracing::info;
use weir_crds::KafkaCluster;
use weir_protocol::controller::RECOVERS;

use super::super::annotations::{CLUSTER_ID_ANNOTATION, annotation};
use super::super::context::Context;
use super::super::offered;
use crate::controller::Key;
use crate::controller::recovery::{Known, Stock, brokers_needed, take_stock};
use crate::controller::state::{Cluster, State};
use crate::controller::summary;
use crate::rpc::{Controllers, Desk};
use crate::shell::moment;
use crate::store::kube::{ClusterCache, KubeStore};

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// What is waited for.
    Waits(String),
    /// What is wrong with the volumes.
    Refused(String),
    /// The cluster's id, and what there is.
    Made(String, String),
    /// All volumes are new: there is nothing to recover.
    New,
}

/// The desk of a cluster, open or closed. It is gone with this.
pub(super) struct TableRecovery {
    controllers: Controllers,
    /// What brokers call the cluster that come to it.
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
    fn new(context: &Context, names: Vec<String>, desk: Desk, stage: Stage) -> Self {
        for name in &names {
            context.controllers.put_desk(name.clone(), desk.clone());
        }
        Self { controllers: context.controllers.clone(), names, desk, stage, replicas: 0 }
    }

    /// Opens the desk. Brokers that run on under the cluster's id are sent there.
    pub(super) fn begin(context: &Context, key: &Key, cluster: &KafkaCluster) -> Self {
        let known = annotation(cluster, CLUSTER_ID_ANNOTATION).map(str::to_owned);
        let names = [name(key)].into_iter().chain(known).collect();
        Self::new(context, names, Desk::default(), Stage::Waits(String::new()))
    }

    /// The desk of a cluster that has its tables: brokers may not have heard of it.
    pub(super) fn over(context: &Context, key: &Key, cluster_id: &str) -> Self {
        let stage = Stage::Made(cluster_id.to_owned(), String::new());
        Self::new(context, vec![name(key)], Desk::closed(cluster_id), stage)
    }

    /// What is waited for or wrong, as long as there are no tables.
    pub(super) fn stage(&self) -> Option<&Stage> {
        Some(&self.stage).filter(|stage| matches!(stage, Stage::Waits(_) | Stage::Refused(_)))
    }

    /// What its brokers are told in place of its id.
    pub(super) fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// How many brokers are to run.
    pub(super) const fn replicas(&self) -> i32 {
        self.replicas
    }

    /// The cluster as far as it is known: without brokers and topics.
    pub(super) fn state(&self, cluster: &KafkaCluster) -> State {
        State::new(Cluster::new(self.name().to_owned(), offered::cluster(cluster)))
    }

    /// Makes the tables, if all that is needed for them is there.
    ///
    /// # Errors
    /// When the Kubernetes API refuses, or does not answer: it is to be asked again.
    pub(super) async fn go_on(
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
        let (topics, taken) = store.written().await?;
        let known = Known {
            cluster,
            cluster_id: annotation(cluster, CLUSTER_ID_ANNOTATION),
            topics: &topics,
            taken: &taken,
        };
        let (stock, replicas) = self.desk.look(|inventories| {
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

    /// There are tables: brokers hear of it.
    pub(super) fn close(&self, cluster_id: &str) {
        self.desk.close(cluster_id);
    }
}

fn name(key: &Key) -> String {
    format!("{RECOVERS}{}/{}", key.namespace, key.name)
}

/// Waits until a broker comes to the desk.
pub(super) async fn news(recovery: Option<&TableRecovery>) {
    match recovery {
        Some(recovery) => recovery.desk.news().await,
        None => std::future::pending().await,
    }
}
