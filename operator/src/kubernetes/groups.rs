//! ConsumerGroups on Kubernetes: one watch for all of them, and for each cluster that is hosted here the task that looks after its groups ([`crate::groups::keep`]).
//!
//! As with topics there is no finalizer: a group whose resource is deleted while no operator runs stays, whatever its deletion policy says.

mod home;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt, TryStreamExt};
use kube::Api;
use kube::api::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use tokio::sync::watch;
use tracing::{debug, warn};
use weir_crds::{ConsumerGroup, KafkaCluster};

use self::home::{KubeHome, put_status};
use super::Context;
use super::clusters::apis;
use super::listed::Listed;
use super::namespaces;
use super::topics::{Key, now};
use crate::controller::state::State;
use crate::groups::keep;
use crate::groups::pace::Pace;
use crate::groups::reconcile::{Memory, Seen, Workload, reconcile};
use crate::kafka::Client;

/// How often it is looked for groups whose cluster does not exist; a cluster that is applied with its groups has this long to appear.
const ORPHANS_EVERY: Duration = Duration::from_secs(3);

/// What the watch knows, shared with the tasks of the clusters.
#[derive(Debug)]
pub(super) struct Shelf {
    held: Mutex<Held>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Held {
    groups: BTreeMap<Key, Known>,
    deleted: Vec<(Key, Arc<ConsumerGroup>)>,
    /// Clusters whose groups are looked after, with the number of tasks that do.
    hosted: BTreeMap<Key, usize>,
    /// The namespaces' watches that have not named all of theirs yet; `None` before they begin.
    unlisted: Option<BTreeSet<usize>>,
}

#[derive(Debug)]
struct Known {
    group: Arc<ConsumerGroup>,
    /// The namespace's watch that knows of it.
    scope: usize,
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            held: Mutex::default(),
            changed: watch::channel(0).0,
        }
    }
}

impl Shelf {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    fn put(&self, scope: usize, object: DeserializeGuard<ConsumerGroup>) -> Key {
        match object.0 {
            Ok(mut group) => {
                group.metadata.managed_fields = None;
                let key = key_of(&group.metadata);
                let group = Arc::new(group);
                self.held().groups.insert(key.clone(), Known { group, scope });
                self.change();
                key
            }
            Err(invalid) => {
                // The schema does not let such a resource in: it is older than the schema.
                warn!(
                    name = invalid.metadata.name,
                    namespace = invalid.metadata.namespace,
                    error = invalid.error,
                    "a ConsumerGroup cannot be read"
                );
                key_of(&invalid.metadata)
            }
        }
    }

    fn remove(&self, key: &Key) {
        let mut held = self.held();
        if let Some(known) = held.groups.remove(key) {
            let cluster = cluster_of(&known.group);
            // Nobody is there to act on the deletion of what belongs to no cluster.
            if held.hosted.contains_key(&cluster) {
                held.deleted.push((cluster, known.group));
            }
        }
        drop(held);
        self.change();
    }

    /// What a list did not name is gone.
    fn keep_only(&self, scope: usize, listed: &mut Listed) {
        let gone = listed.gone(scope, self.held().groups.iter().map(|(key, known)| (key, known.scope)));
        gone.iter().for_each(|key| self.remove(key));
    }

    /// There are so many watches, of which none has named all of its groups.
    fn begin(&self, scopes: usize) {
        self.held().unlisted = Some((0..scopes).collect());
    }

    /// A watch has named all of its groups once.
    fn listed(&self, scope: usize) {
        if let Some(unlisted) = &mut self.held().unlisted {
            unlisted.remove(&scope);
        }
    }

    fn knows_all(&self) -> bool {
        self.held().unlisted.as_ref().is_some_and(BTreeSet::is_empty)
    }

    fn of_cluster(&self, cluster: &Key) -> Vec<Arc<ConsumerGroup>> {
        let held = self.held();
        let groups = held.groups.values().map(|known| &known.group);
        groups.filter(|group| cluster_of(group) == *cluster).cloned().collect()
    }

    /// Whether there is a resource of this name, in whatever cluster.
    fn has(&self, key: &Key) -> bool {
        self.held().groups.contains_key(key)
    }

    fn take_deleted(&self, cluster: &Key) -> Vec<Arc<ConsumerGroup>> {
        let mut held = self.held();
        let (ours, others) = std::mem::take(&mut held.deleted).into_iter().partition(|(of, _)| of == cluster);
        held.deleted = others;
        let ours: Vec<(Key, Arc<ConsumerGroup>)> = ours;
        ours.into_iter().map(|(_, group)| group).collect()
    }

    /// Groups whose cluster nobody looks after, by cluster.
    fn homeless(&self) -> BTreeMap<Key, Vec<Arc<ConsumerGroup>>> {
        let held = self.held();
        let mut homeless: BTreeMap<Key, Vec<Arc<ConsumerGroup>>> = BTreeMap::new();
        for known in held.groups.values() {
            let cluster = cluster_of(&known.group);
            if !held.hosted.contains_key(&cluster) {
                homeless.entry(cluster).or_default().push(Arc::clone(&known.group));
            }
        }
        homeless
    }
}

/// Says that a cluster's groups are looked after, as long as it lives.
#[derive(Debug)]
struct Hosting {
    shelf: Arc<Shelf>,
    cluster: Key,
}

impl Hosting {
    fn begin(shelf: &Arc<Shelf>, cluster: &Key) -> Self {
        *shelf.held().hosted.entry(cluster.clone()).or_default() += 1;
        Self {
            shelf: Arc::clone(shelf),
            cluster: cluster.clone(),
        }
    }
}

impl Drop for Hosting {
    fn drop(&mut self) {
        let mut held = self.shelf.held();
        let left = held.hosted.get(&self.cluster).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            held.hosted.remove(&self.cluster);
            let cluster = &self.cluster;
            held.deleted.retain(|(of, _)| of != cluster);
        } else {
            held.hosted.insert(self.cluster.clone(), left);
        }
    }
}

fn key_of(metadata: &ObjectMeta) -> Key {
    Key::new(metadata.namespace.as_deref(), metadata.name.as_deref())
}

fn cluster_of(group: &ConsumerGroup) -> Key {
    let namespace = group.metadata.namespace.as_deref().unwrap_or_default();
    namespaces::cluster_of(namespace, &group.spec.cluster_ref)
}

/// Watches all ConsumerGroups, and tells those whose cluster does not exist.
pub(super) async fn watch_groups(context: Context) -> Infallible {
    let mut events: SelectAll<BoxStream<'static, _>> = SelectAll::new();
    for (scope, api) in apis::<DeserializeGuard<ConsumerGroup>>(&context.client, &context.scope)
        .into_iter()
        .enumerate()
    {
        let watched = watch_objects(api, watcher::Config::default()).default_backoff();
        events.push(watched.map_ok(move |event| (scope, event)).boxed());
    }
    let shelf = Arc::clone(&context.groups);
    shelf.begin(events.len());
    let mut listed = Listed::default();
    let mut orphans = tokio::time::interval(ORPHANS_EVERY);
    orphans.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    orphans.tick().await;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok((scope, event))) => match event {
                    Event::Init => listed.begins(scope),
                    Event::InitApply(object) => listed.names(scope, shelf.put(scope, object)),
                    Event::InitDone => {
                        shelf.keep_only(scope, &mut listed);
                        shelf.listed(scope);
                    }
                    Event::Apply(object) => drop(shelf.put(scope, object)),
                    Event::Delete(object) => shelf.remove(&key_of(object.0.as_ref().map_or_else(|invalid| &invalid.metadata, |group| &group.metadata))),
                },
                Some(Err(error)) => warn!(%error, "watch ConsumerGroups"),
                None => std::future::pending().await,
            },
            _ = orphans.tick() => {
                // Another operator may watch the namespaces that this one does not.
                for (cluster, groups) in shelf.homeless().iter().filter(|(cluster, _)| context.scope.has(&cluster.namespace)) {
                    tell_orphans(&context, cluster, groups).await;
                }
            }
        }
    }
}

/// Looks after the groups of a cluster whose controller runs here.
pub(super) async fn keep_groups(context: Context, cluster: Key, committed: watch::Receiver<State>) -> Infallible {
    let _hosting = Hosting::begin(&context.groups, &cluster);
    let home = Arc::new(KubeHome::new(context, cluster, committed.clone()));
    let keeping = keep::keep(Arc::clone(&home), Client::new(committed), Pace::KUBERNETES);
    tokio::select! {
        never = keeping => never,
        never = home.keep_telling() => never,
    }
}

/// Tells groups that their cluster does not exist, if that is so.
async fn tell_orphans(context: &Context, cluster: &Key, groups: &[Arc<ConsumerGroup>]) {
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
        tell(context, group, Seen::Nothing("ClusterNotFound", message.clone())).await;
    }
}

/// Tells a group that nobody looks after why.
async fn tell(context: &Context, group: &ConsumerGroup, seen: Seen<'_>) {
    let before = group.status.clone().unwrap_or_default();
    let now_ms = now().0.as_millisecond();
    let status = reconcile(group, &before, &seen, &Workload::None, &mut Memory::default(), now_ms).status;
    if status != before
        && let Err(error) = put_status(context, group, &status).await
    {
        debug!(resource = %key_of(&group.metadata), %error, "write the status of a ConsumerGroup that nobody looks after");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not on the shelf yet is not gone: no group is deleted, and no resource made, before every watch has named all of its own.
    #[test]
    fn all_are_known_once_each_watch_has_named_its_own() {
        let shelf = Shelf::default();
        let mut known = vec![shelf.knows_all()];
        shelf.begin(2);
        for scope in [1, 1, 0] {
            known.push(shelf.knows_all());
            shelf.listed(scope);
        }
        known.push(shelf.knows_all());
        assert_eq!(known, [false, false, false, false, true]);
    }
}
