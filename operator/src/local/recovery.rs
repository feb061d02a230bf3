//! Recovery of a local cluster whose controller has lost its directory, from the directories of its
//! brokers.
//!
//! In this case the brokers start beside the controller's process instead of after it: it waits for
//! all of them before it serves.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};
use tracing::info;
use weir_crds::KafkaCluster;
use weir_protocol::controller::RECOVERS;
use weir_protocol::types::{BrokerId, TopicId};
use weir_tls::Identities;

use super::cluster::{LocalCluster, POLL};
use super::nodes;
use super::rpc::local_server::{Local, LocalServer};
use super::rpc::{
    ApplyRequest, ApplyResponse, DeleteRequest, DeleteResponse, GetRequest, GetResponse,
    StatusRequest, StatusResponse,
};
use crate::controller::recovery::{Known, Stock, take_stock};
use crate::rpc::{Connections, ControllerRpc, Controllers, Desk, Strangers, limited_server};
use crate::shell::moment;
use crate::store::file::FileStore;

/// The name that brokers get in place of the cluster's id.
pub(super) fn name() -> String {
    format!("{RECOVERS}local")
}

/// Whether brokers' directories exist beside the controller's.
pub(super) fn has_volumes(data: &Path) -> bool {
    let beside = data.parent().and_then(|all| std::fs::read_dir(all).ok());
    beside
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("broker-"))
}

/// Rebuilds the state from the brokers' inventories, and serves brokers meanwhile.
///
/// # Errors
/// When the state cannot be rebuilt, or the store cannot be written.
pub(super) async fn recover(
    store: &mut FileStore,
    cluster: KafkaCluster,
    listener: TcpListener,
    identities: &Arc<Identities>,
    desk: &Desk,
) -> anyhow::Result<()> {
    let controllers = Controllers::default();
    controllers.put_desk(name(), desk.clone(), nodes::domain(&cluster));
    controllers.put_identities(nodes::DOMAIN.to_owned(), Arc::clone(identities));
    desk.say("waits for the brokers to come with what their volumes hold");
    let server = limited_server()
        .add_service(ControllerRpc::service(controllers.clone()))
        .add_service(LocalServer::new(Recovering { desk: desk.clone() }))
        .serve_with_incoming(Connections::new(listener, controllers, Strangers::All));
    let server = tokio::spawn(server);
    let made = make(store, &cluster, desk).await;
    if let Ok(cluster_id) = &made {
        desk.close(cluster_id);
    }
    // The controller needs the port.
    server.abort();
    let _ = server.await;
    made.map(drop)
}

async fn make(
    store: &mut FileStore,
    cluster: &KafkaCluster,
    desk: &Desk,
) -> anyhow::Result<String> {
    loop {
        let topics = store.topics()?;
        let credentials = store.credentials()?;
        let known = Known {
            cluster,
            cluster_id: None,
            topics: &topics,
            taken: &BTreeSet::new(),
            credentials: credentials.as_deref(),
        };
        let wanted = 0..cluster.spec.brokers.replicas;
        let (stock, all_are_here) = desk.read(|inventories| {
            let all = wanted.map(BrokerId).all(|id| inventories.contains_key(&id));
            (take_stock(known, inventories, &moment()), all)
        });
        match stock {
            // In local mode no further brokers will start.
            Stock::Waits(reason) if all_are_here => {
                bail!("the cluster cannot recover: it {reason}")
            }
            Stock::Waits(reason) => desk.say(&reason),
            Stock::Refused(reason) => bail!("the cluster cannot recover: {reason}"),
            Stock::New => {
                let id = TopicId::random().to_string();
                store.create(id.clone(), cluster.clone())?;
                return Ok(id);
            }
            Stock::Recovered(state, _) => {
                store.recover(&state).context("write the state")?;
                info!(
                    topics = state.topics.len(),
                    brokers = state.brokers.len(),
                    "the state is made of what the brokers have"
                );
                return Ok(state.cluster.id.clone());
            }
        }
        desk.news().await;
    }
}

impl LocalCluster {
    /// Starts the brokers for a recovery, if the controller has lost its state; returns whether it
    /// did.
    ///
    /// # Errors
    /// When a process ends meanwhile; the error includes the end of its log.
    pub(super) async fn recover(&self) -> anyhow::Result<bool> {
        if self.ask_status().await?.recovering.is_empty() {
            return Ok(false);
        }
        for id in self.brokers() {
            self.launch_broker(id).await?;
        }
        loop {
            for process in self.brokers().map(|id| self.broker(id)).chain([Ok(self.controller())]) {
                let process = process?;
                anyhow::ensure!(
                    process.pid().is_some(),
                    "{} did not come up; {}",
                    process.name(),
                    process.log_tail()
                );
            }
            match self.ask_status().await {
                Ok(status) if status.recovering.is_empty() => {
                    self.remember_cluster_id(&status.cluster_id)?;
                    return Ok(true);
                }
                // For a moment between the two servers none answers.
                Ok(_) | Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}

/// The service for the command line before there is a state.
struct Recovering {
    desk: Desk,
}

impl Recovering {
    fn not_yet<T>(&self) -> Result<T, Status> {
        Err(Status::unavailable(format!("the cluster recovers: it {}", self.desk.said())))
    }
}

#[tonic::async_trait]
impl Local for Recovering {
    async fn apply(&self, _: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        self.not_yet()
    }

    async fn delete(&self, _: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        self.not_yet()
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        self.not_yet()
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(StatusResponse {
            cluster_id: name(),
            recovering: self.desk.said(),
            ..StatusResponse::default()
        }))
    }
}
