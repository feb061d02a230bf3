//! The ConsumerGroups that the watch has reported, shared with the tasks of the clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use weir_crds::ConsumerGroup;

use super::super::namespaces;
use crate::controller::Key;

/// All ConsumerGroups, and the deleted ones that no task has handled yet.
#[derive(Debug)]
pub(in crate::kubernetes) struct GroupStore {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    groups: BTreeMap<Key, Arc<ConsumerGroup>>,
    deleted: Vec<(Key, Arc<ConsumerGroup>)>,
    /// Clusters whose groups are reconciled here, with the number of tasks.
    hosted: BTreeMap<Key, usize>,
    /// The namespaces' watches that have not listed all of their groups; `None` before they start.
    unlisted: Option<BTreeSet<usize>>,
}

impl Default for GroupStore {
    fn default() -> Self {
        Self { inner: Mutex::default(), changed: watch::channel(0).0 }
    }
}

impl GroupStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the changes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn change(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    pub(super) fn put(&self, group: ConsumerGroup) {
        self.inner().groups.insert(Key::of(&group.metadata), Arc::new(group));
        self.change();
    }

    pub(super) fn remove(&self, key: &Key) {
        let mut inner = self.inner();
        if let Some(group) = inner.groups.remove(key) {
            let cluster = cluster_of(&group);
            // A resource of a cluster without a task: no task would handle its deletion.
            if inner.hosted.contains_key(&cluster) {
                inner.deleted.push((cluster, group));
            }
        }
        drop(inner);
        self.change();
    }

    /// Sets the number of watches; none has listed its groups yet.
    pub(super) fn begin(&self, scopes: usize) {
        self.inner().unlisted = Some((0..scopes).collect());
    }

    /// Records that a watch has listed all of its groups.
    pub(super) fn listed(&self, scope: usize) {
        if let Some(unlisted) = &mut self.inner().unlisted {
            unlisted.remove(&scope);
        }
    }

    pub(super) fn knows_all(&self) -> bool {
        self.inner().unlisted.as_ref().is_some_and(BTreeSet::is_empty)
    }

    pub(super) fn of_cluster(&self, cluster: &Key) -> Vec<Arc<ConsumerGroup>> {
        let inner = self.inner();
        inner.groups.values().filter(|group| cluster_of(group) == *cluster).cloned().collect()
    }

    /// Whether a resource of this name exists, of any cluster.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.inner().groups.contains_key(key)
    }

    pub(super) fn take_deleted(&self, cluster: &Key) -> Vec<Arc<ConsumerGroup>> {
        let mut inner = self.inner();
        let (ours, others) =
            std::mem::take(&mut inner.deleted).into_iter().partition(|(of, _)| of == cluster);
        inner.deleted = others;
        let ours: Vec<(Key, Arc<ConsumerGroup>)> = ours;
        ours.into_iter().map(|(_, group)| group).collect()
    }

    /// Groups whose clusters are not hosted here, by cluster.
    pub(super) fn homeless(&self) -> BTreeMap<Key, Vec<Arc<ConsumerGroup>>> {
        let inner = self.inner();
        let mut homeless: BTreeMap<Key, Vec<Arc<ConsumerGroup>>> = BTreeMap::new();
        for group in inner.groups.values() {
            let cluster = cluster_of(group);
            if !inner.hosted.contains_key(&cluster) {
                homeless.entry(cluster).or_default().push(Arc::clone(group));
            }
        }
        homeless
    }
}

/// Marks a cluster's groups as reconciled here until it is dropped.
#[derive(Debug)]
pub(super) struct Hosting {
    store: Arc<GroupStore>,
    cluster: Key,
}

impl Hosting {
    pub(super) fn begin(store: &Arc<GroupStore>, cluster: &Key) -> Self {
        *store.inner().hosted.entry(cluster.clone()).or_default() += 1;
        Self { store: Arc::clone(store), cluster: cluster.clone() }
    }
}

impl Drop for Hosting {
    fn drop(&mut self) {
        let mut inner = self.store.inner();
        let left = inner.hosted.get(&self.cluster).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            inner.hosted.remove(&self.cluster);
            let cluster = &self.cluster;
            inner.deleted.retain(|(of, _)| of != cluster);
        } else {
            inner.hosted.insert(self.cluster.clone(), left);
        }
    }
}

fn cluster_of(group: &ConsumerGroup) -> Key {
    let namespace = group.metadata.namespace.as_deref().unwrap_or_default();
    namespaces::cluster_of(namespace, &group.spec.cluster_ref)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An incomplete store proves nothing: before every watch has listed its groups, no group is
    /// deleted and no resource created.
    #[test]
    fn all_are_known_once_each_watch_has_named_its_own() {
        let store = GroupStore::default();
        let mut known = vec![store.knows_all()];
        store.begin(2);
        for scope in [1, 1, 0] {
            known.push(store.knows_all());
            store.listed(scope);
        }
        known.push(store.knows_all());
        assert_eq!(known, [false, false, false, false, true]);
    }
}
