//! The ConsumerGroups of a local cluster: a file for each, with its status, beside the controller's
//! store.
//!
//! The status is in the resource's file because of its resets: a completed one must not run again.
//! There are no workloads to scale.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use tokio::sync::{Notify, watch};
use weir_crds::{ClusterRef, ConsumerGroup, ConsumerGroupSpec, ConsumerGroupStatus};

use crate::controller::state::State;
use crate::controller::{DEFAULT_NAMESPACE, resource_name};
use crate::groups::backend::{GroupBackend, Named};
use crate::groups::mirror::REFLECTED_LABEL;
use crate::groups::reconcile::Workload;
use crate::store::StoreError;
use crate::store::file::{create_dir, files_in, read_resource, sync_dir, write_resource};
use crate::time::now;

/// The ConsumerGroups of one cluster.
#[derive(Debug)]
pub(super) struct LocalGroups {
    folder: PathBuf,
    held: Mutex<Held>,
    changed: Notify,
    committed: watch::Receiver<State>,
}

#[derive(Debug, Default)]
struct Held {
    groups: BTreeMap<String, Arc<ConsumerGroup>>,
    deleted: Vec<Arc<ConsumerGroup>>,
}

impl LocalGroups {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read or parsed.
    pub(super) fn open(data: &Path, committed: watch::Receiver<State>) -> Result<Self, StoreError> {
        let folder = data.join("consumergroups");
        create_dir(&folder)?;
        let mut held = Held::default();
        for path in files_in(&folder)? {
            let group = read_resource::<ConsumerGroup>(&path)?;
            held.groups.insert(group.metadata.name.clone().unwrap_or_default(), Arc::new(group));
        }
        Ok(Self { folder, held: Mutex::new(held), changed: Notify::new(), committed })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<ConsumerGroup>> {
        self.held().groups.get(name).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<ConsumerGroup>> {
        self.held().groups.values().cloned().collect()
    }

    /// Stores a user's resource; returns what happened in one word.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn apply(&self, wanted: ConsumerGroup) -> anyhow::Result<&'static str> {
        let name = wanted.metadata.name.clone().unwrap_or_default();
        let mut held = self.held();
        let before = held.groups.get(&name).cloned();
        let next = merged(before.as_deref(), wanted);
        let verb = match &before {
            Some(before) if **before == next => return Ok("unchanged"),
            Some(_) => "configured",
            None => "created",
        };
        self.write(&mut held, next)?;
        drop(held);
        self.changed.notify_one();
        Ok(verb)
    }

    fn write(&self, held: &mut Held, group: ConsumerGroup) -> anyhow::Result<()> {
        let name = group.metadata.name.clone().unwrap_or_default();
        write_resource(&self.folder, &name, &group)?;
        sync_dir(&self.folder)?;
        held.groups.insert(name, Arc::new(group));
        Ok(())
    }

    /// Deletes a resource; returns whether it existed.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(super) fn delete(&self, name: &str) -> anyhow::Result<bool> {
        let mut held = self.held();
        let Some(gone) = held.groups.get(name).cloned() else { return Ok(false) };
        let path = self.folder.join(name);
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        sync_dir(&self.folder)?;
        held.groups.remove(name);
        held.deleted.push(gone);
        drop(held);
        self.changed.notify_one();
        Ok(true)
    }
}

/// The stored form of a user's resource, given the earlier one.
fn merged(before: Option<&ConsumerGroup>, wanted: ConsumerGroup) -> ConsumerGroup {
    let mut next =
        ConsumerGroup::new(wanted.metadata.name.as_deref().unwrap_or_default(), wanted.spec);
    let changed = before.is_none_or(|before| before.spec != next.spec);
    let generation = before.and_then(|before| before.metadata.generation).unwrap_or_default();
    next.metadata = ObjectMeta {
        name: wanted.metadata.name,
        namespace: Some(DEFAULT_NAMESPACE.to_owned()),
        labels: wanted.metadata.labels.filter(|labels| !labels.is_empty()),
        annotations: wanted.metadata.annotations.filter(|annotations| !annotations.is_empty()),
        generation: Some(generation + i64::from(changed)),
        uid: before
            .and_then(|before| before.metadata.uid.clone())
            .or_else(|| Some(uuid::Uuid::new_v4().to_string())),
        creation_timestamp: before
            .and_then(|before| before.metadata.creation_timestamp.clone())
            .or_else(|| Some(now())),
        ..ObjectMeta::default()
    };
    next.status = before.and_then(|before| before.status.clone());
    next
}

impl GroupBackend for LocalGroups {
    fn groups(&self) -> Vec<Arc<ConsumerGroup>> {
        self.all()
    }

    fn knows_all(&self) -> bool {
        true
    }

    fn take_deleted(&self) -> Vec<Arc<ConsumerGroup>> {
        std::mem::take(&mut self.held().deleted)
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn write_status(
        &self,
        resource: &ConsumerGroup,
        status: &ConsumerGroupStatus,
    ) -> anyhow::Result<()> {
        let mut held = self.held();
        let now = held.groups.get(resource.metadata.name.as_deref().unwrap_or_default());
        let Some(mut next) = now
            .filter(|now| now.metadata.uid == resource.metadata.uid)
            .map(|now| ConsumerGroup::clone(now))
        else {
            anyhow::bail!("the resource is gone");
        };
        next.status = Some(status.clone());
        self.write(&mut held, next)
    }

    async fn workload(&self, _: &ConsumerGroup) -> Workload {
        Workload::Trouble(
            "NotOnKubernetes",
            "local mode has no workloads to scale: spec.scaling has a meaning on Kubernetes only"
                .to_owned(),
        )
    }

    async fn scale(&self, _: &ConsumerGroup, _: i32) -> anyhow::Result<()> {
        anyhow::bail!("local mode has no workloads to scale")
    }

    async fn make(&self, group: &str) -> anyhow::Result<()> {
        let name = resource_name(group, |name| self.held().groups.contains_key(name));
        let cluster = self.committed.borrow().cluster.name().to_owned();
        let spec = ConsumerGroupSpec {
            cluster_ref: ClusterRef { name: cluster, namespace: None },
            group_id: Some(group.to_owned()).filter(|group| *group != name),
            ..ConsumerGroupSpec::default()
        };
        let mut resource = ConsumerGroup::new(&name, spec);
        resource.metadata.labels = Some([(REFLECTED_LABEL.to_owned(), "true".to_owned())].into());
        self.apply(resource).map(drop)
    }

    async fn remove(&self, resource: &ConsumerGroup) -> anyhow::Result<()> {
        self.delete(resource.metadata.name.as_deref().unwrap_or_default()).map(drop)
    }

    fn show<'a>(&self, _: impl Iterator<Item = (&'a Named, &'a ConsumerGroupStatus)>, _: bool) {}

    async fn may_act(&self) -> bool {
        true
    }
}
