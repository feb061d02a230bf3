//! The controller of one cluster, as long as it runs in this process: over its store, reachable for brokers and for topics.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;
use weir_crds::KafkaCluster;
use weir_protocol::types::TopicId;

use super::super::groups;
use super::super::sites::Sites;
use super::super::topics::{Book, Hosted, Key, Notice, keep_statuses};
use super::{CLUSTER_ID_ANNOTATION, Context, STATE_ANNOTATION};
use crate::controller::state::State;
use crate::rpc::Controllers;
use crate::shell::Controller;
use crate::store::StoreError;
use crate::store::kube::{KubeStore, Seen};

/// Why there is no controller.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The cluster has run, and its state is gone.
    StateLost,
    /// The state cannot be read or written.
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A running controller. It ends with this.
pub(super) struct Host {
    cluster_id: String,
    cluster: Key,
    controller: Controller,
    committed: watch::Receiver<State>,
    seen: Seen,
    shell: JoinHandle<Result<(), StoreError>>,
    statuses: JoinHandle<()>,
    groups: JoinHandle<()>,
    controllers: Controllers,
    sites: Arc<Sites>,
    notices: mpsc::Sender<Notice>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.controllers.remove(&self.cluster_id);
        self.sites.remove(&self.cluster_id);
        self.shell.abort();
        self.statuses.abort();
        self.groups.abort();
        // Who does not hear of it asks a controller that does not answer.
        let _ = self.notices.try_send(Notice::Gone(self.cluster.clone()));
    }
}

impl Host {
    pub(super) async fn start(
        context: &Context,
        sites: &Arc<Sites>,
        key: &Key,
        cluster: &KafkaCluster,
        resource: &watch::Receiver<Arc<KafkaCluster>>,
        notices: &mpsc::Sender<Notice>,
    ) -> Result<Self, Trouble> {
        let seen = Seen::default();
        let mut store = KubeStore::new(context.client.clone(), cluster, Arc::clone(&context.leads), seen.clone());
        let cluster_id = match store.cluster_id().await? {
            Some(id) => id,
            None => {
                let id = id_of_new(cluster)?;
                store.create(id.clone(), cluster.clone()).await?;
                id
            }
        };
        let (controller, shell) = Controller::start(store).await?;
        context.controllers.put(cluster_id.clone(), controller.clone());
        sites.put(cluster_id.clone(), resource.clone());
        let hosted = Hosted {
            cluster: key.clone(),
            controller: controller.clone(),
            seen: seen.clone(),
            book: Book::default(),
        };
        // Only a leader that is being deposed does not take it.
        let _ = notices.send(Notice::Hosted(hosted.clone())).await;
        let statuses = keep_statuses(context.clone(), hosted);
        let groups = groups::keep_groups(context.clone(), key.clone(), controller.committed());
        Ok(Self {
            cluster_id,
            cluster: key.clone(),
            committed: controller.committed(),
            controller,
            seen,
            shell,
            statuses: tokio::spawn(async move { match statuses.await {} }),
            groups: tokio::spawn(async move { match groups.await {} }),
            controllers: context.controllers.clone(),
            sites: Arc::clone(sites),
            notices: notices.clone(),
        })
    }

    pub(super) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    pub(super) fn controller(&self) -> &Controller {
        &self.controller
    }

    /// The committed state.
    pub(super) fn state(&self) -> State {
        self.committed.borrow().clone()
    }

    /// The cluster's resource was seen.
    pub(super) fn saw(&self, cluster: &KafkaCluster) {
        self.seen.put_cluster(cluster.clone());
    }

    /// Why the controller ended, if it did.
    pub(super) async fn ended(&mut self) -> Option<String> {
        if self.statuses.is_finished() {
            return Some("the task of the topics' statuses failed".to_owned());
        }
        if self.groups.is_finished() {
            return Some("the task of the consumer groups failed".to_owned());
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

/// Waits for something that the controller committed, or for its end.
pub(super) async fn news(host: Option<&mut Host>) {
    match host {
        Some(host) => {
            // The sender goes with the shell.
            let _ = host.committed.changed().await;
        }
        None => std::future::pending().await,
    }
}

/// The id of a cluster that has no state yet: that of its resource, in Kafka's form.
fn id_of_new(cluster: &KafkaCluster) -> Result<String, Trouble> {
    let annotation = |name: &str| cluster.metadata.annotations.as_ref().and_then(|all| all.get(name));
    match (annotation(CLUSTER_ID_ANNOTATION), annotation(STATE_ANNOTATION).map(String::as_str)) {
        (Some(id), Some("new")) => Ok(id.clone()),
        (Some(_), _) => Err(Trouble::StateLost),
        (None, _) => {
            let uid = cluster.metadata.uid.as_deref().and_then(|uid| Uuid::parse_str(uid).ok());
            Ok(uid.map_or_else(TopicId::random, TopicId).to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_has_run_does_not_begin_anew_by_itself() {
        let cluster = |annotations: &[(&str, &str)]| {
            let mut cluster = KafkaCluster::new("c", weir_crds::KafkaClusterSpec::default());
            cluster.metadata.uid = Some("5c5e8a1e-0000-4000-8000-000000000001".to_owned());
            cluster.metadata.annotations = Some(
                annotations
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            );
            cluster
        };
        let id = |annotations: &[(&str, &str)]| id_of_new(&cluster(annotations)).ok();
        assert_eq!(id(&[]).as_deref(), Some("XF6KHgAAQACAAAAAAAAAAQ"));
        assert_eq!(id(&[(CLUSTER_ID_ANNOTATION, "old")]), None);
        assert_eq!(id(&[(CLUSTER_ID_ANNOTATION, "old"), (STATE_ANNOTATION, "new")]).as_deref(), Some("old"));
    }
}
