//! ConsumerGroups on Kubernetes: one watch for all of them, and for each hosted cluster a task that
//! reconciles its groups ([`crate::groups::runner`]).
//!
//! As with topics there is no finalizer: if a resource is deleted while no operator runs, its group
//! stays, whatever the deletion policy says.

mod backend;
mod status;
mod store;

pub(super) use self::store::GroupStore;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::Api;
use tracing::{debug, warn};
use weir_crds::{ConsumerGroup, KafkaCluster};

use self::backend::KubeBackend;
use self::status::report_unreconciled;
use self::store::Hosting;
use super::context::Context;
use super::watch::{Change, in_scope};
use crate::controller::Key;
use crate::groups::reconcile::Seen;
use crate::groups::runner;
use crate::groups::schedule::Pace;
use crate::kafka::Client;

/// How often the watch looks for groups without a cluster. A cluster applied together with its
/// groups has this long to appear.
const ORPHANS_EVERY: Duration = Duration::from_secs(3);

/// Watches all ConsumerGroups, and writes a status to those without a cluster.
pub(super) async fn watch_groups(context: Context) -> Infallible {
    let mut changes = in_scope::<ConsumerGroup>(&context.client, &context.scope);
    let store = Arc::clone(&context.groups);
    store.begin(changes.len());
    let mut orphans = tokio::time::interval(ORPHANS_EVERY);
    orphans.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    orphans.tick().await;
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(Change::Applied(group))) => store.put(group),
                Some(Ok(Change::Deleted(key, _))) => store.remove(&key),
                Some(Ok(Change::Listed(watch))) => store.listed(watch),
                Some(Err(error)) => warn!(%error, "cannot watch ConsumerGroups; trying again"),
                None => std::future::pending().await,
            },
            _ = orphans.tick() => {
                // Another operator may watch namespaces that this one does not.
                for (cluster, groups) in store.homeless().iter().filter(|(cluster, _)| context.scope.has(&cluster.namespace)) {
                    report_orphans(&context, cluster, groups).await;
                }
            }
        }
    }
}

/// Reconciles the groups of a cluster whose controller runs here.
pub(super) async fn keep_groups(context: Context, cluster: Key, asking: Client) -> Infallible {
    let _hosting = Hosting::begin(&context.groups, &cluster);
    let backend = Arc::new(KubeBackend::new(context, cluster, asking.committed()));
    let keeping = runner::keep(Arc::clone(&backend), asking, Pace::KUBERNETES);
    tokio::select! {
        never = keeping => never,
        never = backend.keep_telling() => never,
    }
}

/// Writes a status to groups whose cluster does not exist.
async fn report_orphans(context: &Context, cluster: &Key, groups: &[Arc<ConsumerGroup>]) {
    let clusters: Api<KafkaCluster> = Api::namespaced(context.client.clone(), &cluster.namespace);
    match clusters.get_metadata_opt(&cluster.name).await {
        Ok(None) => {}
        Ok(Some(_)) => return,
        Err(error) => {
            debug!(cluster = cluster.name, %error, "look for the cluster of a ConsumerGroup");
            return;
        }
    }
    let message = format!(
        "there is no KafkaCluster {:?} in the namespace {:?}: make it, or delete this ConsumerGroup and name another",
        cluster.name, cluster.namespace
    );
    for group in groups {
        report_unreconciled(context, group, Seen::Nothing("ClusterNotFound", message.clone()))
            .await;
    }
}
