//! A keeper for every `KafkaCluster` in the watched namespaces: a task of its own, which each
//! change of the cluster's objects wakes.
//!
//! A watch event only wakes a keeper, which then reads what it acts on. For owned objects the
//! watches receive only metadata, and keep none of it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ObjectMeta;
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{Instrument as _, error, info_span, warn};
use weir_crds::KafkaCluster;

use super::args::Scope;
use super::context::Context;
use super::groups;
use super::hosted_clusters::HostedClusters;
use super::keeper::{ClusterReconciler, Wake};
use super::namespaces;
use super::objects::{MANAGED_BY, MANAGER, SLICE_MANAGED_BY};
use super::topics::{self, Notice};
use super::watch::{Change, apis, in_scope, metadata_of};
use crate::controller::Key;
use crate::store::kube::CLUSTER_LABEL;

/// The most notices that wait for the task of the topics.
const NOTICES: usize = 64;

/// The wait before a keeper that panicked restarts, or all tasks after a panic of a shared one.
const AFTER_A_DEFECT: Duration = Duration::from_secs(5);

/// What a watch reports.
enum WatchEvent {
    Cluster(Box<Change<KafkaCluster>>),
    Owned(&'static str, Box<Event<ObjectMeta>>),
}

struct ClusterEntry {
    resource: watch::Sender<Arc<KafkaCluster>>,
    wake: Arc<Wake>,
    task: tokio::task::AbortHandle,
}

/// Runs every cluster until it is dropped; dropping it ends all tasks that it started.
pub(super) async fn run(context: Context, sites: Arc<HostedClusters>) -> Infallible {
    loop {
        run_until_defect(context.clone(), Arc::clone(&sites)).await;
        context.controllers.clear();
        tokio::time::sleep(AFTER_A_DEFECT).await;
    }
}

async fn run_until_defect(context: Context, sites: Arc<HostedClusters>) {
    let mut tasks = JoinSet::new();
    let (notices, noticed) = mpsc::channel(NOTICES);
    let topics = tasks.spawn(topics::run(context.clone(), noticed).map(|never| match never {}));
    let groups = tasks.spawn(groups::watch_groups(context.clone()).map(|never| match never {}));
    let namespaces = tasks.spawn(
        namespaces::watch(context.client.clone(), Arc::clone(&context.namespaces))
            .map(|never| match never {}),
    );
    let mut happenings = watches(&context.client, &context.scope);
    let mut all = Clusters { context, sites, notices, kept: BTreeMap::new() };
    loop {
        tokio::select! {
            happening = happenings.next() => match happening {
                Some(Ok(happening)) => all.handle(happening, &mut tasks),
                Some(Err(error)) => warn!(%error, "cannot watch clusters and their objects; trying again"),
                None => std::future::pending().await,
            },
            Some(ended) = tasks.join_next() => {
                // A keeper ends only by a panic: the others go on, and it is restarted.
                if let Err(panicked) = ended && panicked.is_panic() {
                    error!(error = %panicked, "a task of the operator failed");
                    if topics.is_finished() || groups.is_finished() || namespaces.is_finished() {
                        return;
                    }
                    all.restart_ended(&mut tasks);
                }
            }
        }
    }
}

struct Clusters {
    context: Context,
    sites: Arc<HostedClusters>,
    notices: mpsc::Sender<Notice>,
    kept: BTreeMap<Key, ClusterEntry>,
}

impl Clusters {
    fn handle(&mut self, happening: WatchEvent, tasks: &mut JoinSet<()>) {
        match happening {
            WatchEvent::Owned(kind, event) => match *event {
                Event::Apply(metadata) | Event::InitApply(metadata) => {
                    self.wake(kind, &metadata, false)
                }
                Event::Delete(metadata) => self.wake(kind, &metadata, true),
                Event::Init => {}
                // A change while no watch ran, such as a deletion, is repaired by applying all
                // objects of the kind again.
                Event::InitDone => self.kept.values().for_each(|kept| kept.wake.all_of(kind)),
            },
            WatchEvent::Cluster(change) => match *change {
                Change::Applied(cluster) => self.put(cluster, tasks),
                Change::Deleted(key, _) => self.remove(&key),
                Change::Listed(_) => {}
            },
        }
    }

    fn wake(&self, kind: &'static str, metadata: &ObjectMeta, deleted: bool) {
        let cluster = metadata.labels.as_ref().and_then(|labels| labels.get(CLUSTER_LABEL));
        let key = Key::new(metadata.namespace.as_deref(), cluster.map(String::as_str));
        if let Some(kept) = self.kept.get(&key) {
            kept.wake.touched(kind, metadata, deleted);
        }
    }

    fn put(&mut self, cluster: KafkaCluster, tasks: &mut JoinSet<()>) {
        let key = Key::of(&cluster.metadata);
        if let Some(kept) = self.kept.get(&key) {
            if kept.resource.borrow().metadata.uid == cluster.metadata.uid {
                kept.resource.send_replace(Arc::new(cluster));
                return;
            }
            // Deleted and created again: another cluster.
            self.remove(&key);
        }
        self.start(key, Arc::new(cluster), Duration::ZERO, tasks);
    }

    fn start(
        &mut self,
        key: Key,
        cluster: Arc<KafkaCluster>,
        after: Duration,
        tasks: &mut JoinSet<()>,
    ) {
        let (resource, received) = watch::channel(cluster);
        let wake = Arc::new(Wake::default());
        let keeper = ClusterReconciler::new(
            self.context.clone(),
            Arc::clone(&self.sites),
            key.clone(),
            received,
            Arc::clone(&wake),
            self.notices.clone(),
        );
        // Every log line for a cluster names it, including those of its controller.
        let span = info_span!("cluster", namespace = key.namespace, name = key.name);
        let run = async move {
            tokio::time::sleep(after).await;
            match Box::pin(keeper.run()).await {}
        };
        let task = tasks.spawn(run.instrument(span));
        self.kept.insert(key, ClusterEntry { resource, wake, task });
        self.count();
    }

    fn remove(&mut self, key: &Key) {
        if let Some(kept) = self.kept.remove(key) {
            kept.task.abort();
            self.count();
        }
    }

    fn count(&self) {
        let count = u64::try_from(self.kept.len()).unwrap_or(u64::MAX);
        self.context.figures.clusters.store(count, std::sync::atomic::Ordering::Relaxed);
    }

    fn restart_ended(&mut self, tasks: &mut JoinSet<()>) {
        let ended: Vec<(Key, Arc<KafkaCluster>)> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.task.is_finished())
            .map(|(key, kept)| (key.clone(), Arc::clone(&kept.resource.borrow())))
            .collect();
        for (key, cluster) in ended {
            self.remove(&key);
            self.start(key, cluster, AFTER_A_DEFECT, tasks);
        }
    }
}

type Happenings = SelectAll<BoxStream<'static, Result<WatchEvent, watcher::Error>>>;

fn watches(client: &Client, scope: &Scope) -> Happenings {
    let mut all = SelectAll::new();
    let clusters = in_scope::<KafkaCluster>(client, scope);
    all.push(clusters.map_ok(|change| WatchEvent::Cluster(Box::new(change))).boxed());
    watch_owned::<StatefulSet>(&mut all, client, scope, MANAGED_BY, "StatefulSet");
    watch_owned::<Pod>(&mut all, client, scope, MANAGED_BY, "Pod");
    watch_owned::<Service>(&mut all, client, scope, MANAGED_BY, "Service");
    watch_owned::<ConfigMap>(&mut all, client, scope, MANAGED_BY, "ConfigMap");
    watch_owned::<ServiceAccount>(&mut all, client, scope, MANAGED_BY, "ServiceAccount");
    watch_owned::<PersistentVolumeClaim>(
        &mut all,
        client,
        scope,
        MANAGED_BY,
        "PersistentVolumeClaim",
    );
    watch_owned::<PodDisruptionBudget>(&mut all, client, scope, MANAGED_BY, "PodDisruptionBudget");
    watch_owned::<NetworkPolicy>(&mut all, client, scope, MANAGED_BY, "NetworkPolicy");
    // Kubernetes copies a service's labels to the slices that it creates itself.
    watch_owned::<EndpointSlice>(&mut all, client, scope, SLICE_MANAGED_BY, "EndpointSlice");
    all
}

fn watch_owned<K>(
    all: &mut Happenings,
    client: &Client,
    scope: &Scope,
    label: &str,
    kind: &'static str,
) where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    for api in apis::<PartialObjectMeta<K>>(client, scope) {
        let config = watcher::Config::default().labels(&format!("{label}={MANAGER}"));
        let events = watch_objects(api, config).default_backoff();
        all.push(
            events
                .map_ok(move |event| WatchEvent::Owned(kind, Box::new(metadata_of(event))))
                .boxed(),
        );
    }
}
