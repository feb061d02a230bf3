//! The state in the Kubernetes API: users see `KafkaCluster` and `Topic`; the operator keeps
//! `PartitionTable`s for itself.
//!
//! A cluster has seventeen tables: sixteen shards of partitions and one registry of brokers and
//! counters, each one object with one packed string. Its SCRAM credentials are in a Secret.
//!
//! Invariants
//! - Each write of a table is a compare-and-swap by the `resourceVersion` that this controller read
//!   or wrote. After a conflict it reads everything again and merges nothing.
//! - A controller that takes over writes every table under its new epoch before it sends anything.
//!   From then on each write of its predecessor fails with [`StoreError::Conflict`].
//! - Loading lists etcd's objects, tables before topics, without a cache. It succeeds only if this
//!   process holds the Lease at that moment.
//! - Users write `Topic`s and the `KafkaCluster` too. The store patches only the fields that a
//!   decision changed (`merge::owed`). What users wrote and the controller has not accepted stays
//!   as it is.
//! - If the API server refuses such a write ([`StoreError::Refused`]), the shell decides that batch
//!   again without it, at the same moment and epoch (`shell::requests`). Other requests are not
//!   affected.
//! - A topic's id is its resource's uid, or the id that a client's creation wrote on it.
//! - Where the volumes outlive the cluster ([`goes_with_the_cluster`]), no table and no topic names
//!   it as an owner. A table then belongs to the cluster by name, namespace and `spec.cluster`. The
//!   registry and each volume have the cluster's id. A new cluster with the same name takes over
//!   the existing tables.

mod calls;
pub(crate) mod cluster_cache;
mod credentials;
mod merge;
pub mod ours;
mod read;
mod recover;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, ObjectMeta, PostParams};
use kube::{Client, Resource as _};
use tracing::warn;
use weir_crds::{
    KafkaCluster, KafkaClusterSpec, PartitionTable, PartitionTableSpec, Topic, VolumePolicy,
};

use self::calls::{answered, is_forbidden};
pub use self::ours::CLUSTER_LABEL;
use self::ours::{Taken, controller_of};
pub use self::recover::Written;
use super::Store;
use super::error::StoreError;
use super::packed::Shard;
use super::parts::{registry_text, shard_text};
use super::touched::Touched;
use crate::controller::state::{Change, Cluster, SHARDS, State, TakenUp};

pub use self::cluster_cache::{ClusterCache, ObservedTopic};

/// The field manager of the operator's writes (`kubectl get --show-managed-fields`).
pub const FIELD_MANAGER: &str = "weir-operator";

/// The most bytes of a part's content: etcd takes objects up to 1.5 MiB.
const CONTENT_BYTES_MAX: usize = 1_450_000;

/// Asks the API server itself whether this process still holds the Lease.
pub type LeaseCheck = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// A part of the state besides the resources, named by the suffix of its object's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Shard(u8),
    Registry,
    /// The one that is a Secret.
    Credentials,
}

impl Part {
    fn of_suffix(suffix: &str) -> Option<Self> {
        if suffix == "registry" {
            return Some(Self::Registry);
        }
        let shard = suffix.parse().ok().filter(|shard| *shard < SHARDS)?;
        (suffix.len() == 2).then_some(Self::Shard(shard))
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shard(shard) => write!(f, "{shard:02}"),
            Self::Registry => f.write_str("registry"),
            Self::Credentials => f.write_str("scram-credentials"),
        }
    }
}

/// The store of one cluster.
pub struct KubeStore {
    cluster: String,
    namespace: String,
    owner: OwnerReference,
    clusters: Api<KafkaCluster>,
    tables: Api<PartitionTable>,
    client: Client,
    leads: LeaseCheck,
    /// The `resourceVersion` of each part that this controller last read or wrote.
    versions: BTreeMap<Part, String>,
    /// The last state that was loaded or committed, before any later decision.
    committed: Option<State>,
    cache: ClusterCache,
}

impl std::fmt::Debug for KubeStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeStore").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// The contents of a registry before its state is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The cluster's id in the Kafka protocol, which its volumes have too.
    pub cluster_id: String,
    /// No existing `KafkaCluster` wrote it: it belongs to a deleted one of this name, or comes from
    /// a backup.
    pub of_a_former_one: bool,
}

impl KubeStore {
    /// The store of `cluster`. `cache` also holds the last observation of resources that users
    /// write.
    pub fn new(
        client: Client,
        cluster: &KafkaCluster,
        leads: LeaseCheck,
        cache: ClusterCache,
    ) -> Self {
        let namespace = cluster.metadata.namespace.clone().unwrap_or_default();
        Self {
            cluster: cluster.metadata.name.clone().unwrap_or_default(),
            owner: owner(cluster),
            clusters: Api::namespaced(client.clone(), &namespace),
            tables: Api::namespaced(client.clone(), &namespace),
            namespace,
            client,
            leads,
            versions: BTreeMap::new(),
            committed: None,
            cache,
        }
    }

    /// Reads the registry; `None` if there is none.
    ///
    /// # Errors
    /// When the registry cannot be read, and [`StoreError::Taken`] when it belongs to another
    /// cluster.
    pub async fn kept(&self) -> Result<Option<Kept>, StoreError> {
        let name = self.object(Part::Registry);
        let found = answered("get", &name, self.tables.get_opt(&name)).await?;
        let Some(table) = found else { return Ok(None) };
        self.check_ours(&table)?;
        let registry = read::registry(&name, &table.spec.content)?;
        Ok(Some(Kept {
            cluster_id: registry.cluster_id,
            of_a_former_one: controller_of(&table.metadata).is_none()
                && table.spec.cluster_uid.as_ref() != Some(&self.owner.uid),
        }))
    }

    /// Whether the state has parts other than the registry.
    ///
    /// # Errors
    /// When they cannot be listed, and [`StoreError::Taken`] when one belongs to another cluster.
    pub async fn has_shards(&self) -> Result<bool, StoreError> {
        let parts = self.parts().await?;
        Ok(parts.iter().any(|(part, _)| matches!(part, Part::Shard(_))))
    }

    /// The existing parts.
    async fn parts(&self) -> Result<Vec<(Part, PartitionTable)>, StoreError> {
        let params = ListParams::default().labels(&format!("{CLUSTER_LABEL}={}", self.cluster));
        let tables = answered("list", "PartitionTables", self.tables.list(&params)).await?;
        let prefix = format!("{}-", self.cluster);
        let mut parts = Vec::new();
        for table in tables.items {
            let name = table.metadata.name.as_deref().unwrap_or_default();
            if let Some(part) = name.strip_prefix(&prefix).and_then(Part::of_suffix) {
                self.check_ours(&table)?;
                parts.push((part, table));
            }
        }
        Ok(parts)
    }

    /// Creates the registry of a cluster that has none.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another controller created it meanwhile.
    pub async fn create(
        &mut self,
        cluster_id: String,
        resource: KafkaCluster,
    ) -> Result<(), StoreError> {
        let state = State::new(Cluster::new(cluster_id, resource));
        self.put(Part::Registry, registry_text(&state), &state).await
    }

    /// Refuses a table of another cluster, such as a deleted one of the same name whose tables are
    /// still being deleted. A table that was kept or restored names no owner; it belongs to the
    /// cluster in its `spec.cluster`.
    fn check_ours(&self, table: &PartitionTable) -> Result<(), StoreError> {
        let of_cluster = table.spec.cluster == self.cluster;
        let of_nobody_else =
            controller_of(&table.metadata).is_none_or(|owner| owner.uid == self.owner.uid);
        if of_cluster && of_nobody_else {
            return Ok(());
        }
        let text = |of: &Option<String>| of.clone().unwrap_or_default();
        let (namespace, name) = (text(&table.metadata.namespace), text(&table.metadata.name));
        Err(StoreError::Taken(Taken::of("PartitionTable", &namespace, &name, &table.metadata)))
    }

    fn object(&self, part: Part) -> String {
        format!("{}-{part}", self.cluster)
    }

    fn table(&self, part: Part, content: String, state: &State) -> PartitionTable {
        let spec = PartitionTableSpec {
            cluster: self.cluster.clone(),
            cluster_uid: Some(self.owner.uid.clone()),
            controller_epoch: state.cluster.controller_epoch.0,
            content,
        };
        let mut table = PartitionTable::new(&self.object(part), spec);
        table.metadata.labels = Some([(CLUSTER_LABEL.to_owned(), self.cluster.clone())].into());
        table.metadata.owner_references = self.owners(state);
        table.metadata.resource_version = self.versions.get(&part).cloned();
        table
    }

    /// The owner of a part, or of a topic that a client created. There is none if the volumes are
    /// kept: without these objects their contents cannot be interpreted.
    fn owners(&self, state: &State) -> Option<Vec<OwnerReference>> {
        goes_with_the_cluster(&state.cluster.resource).then(|| vec![self.owner.clone()])
    }

    /// Writes a part by compare-and-swap on the version that this controller saw last.
    async fn put(&mut self, part: Part, content: String, state: &State) -> Result<(), StoreError> {
        let version = self.swap(part, content, state).await?;
        self.versions.insert(part, version);
        Ok(())
    }

    async fn swap(&self, part: Part, content: String, state: &State) -> Result<String, StoreError> {
        let name = self.object(part);
        if content.len() > CONTENT_BYTES_MAX {
            return Err(StoreError::TooLarge(name));
        }
        let table = self.table(part, content, state);
        let params = PostParams::default();
        let written = if table.metadata.resource_version.is_some() {
            answered("replace", &name, self.tables.replace(&name, &params, &table)).await?
        } else {
            match answered("create", &name, self.tables.create(&params, &table)).await {
                Err(StoreError::Conflict) => {
                    // The listing does not include a table without the label.
                    if let Some(there) = answered("get", &name, self.tables.get_opt(&name)).await? {
                        self.check_ours(&there)?;
                    }
                    return Err(StoreError::Conflict);
                }
                created => created?,
            }
        };
        written.metadata.resource_version.ok_or(StoreError::Conflict)
    }

    async fn swap_shard(&self, shard: u8, state: &State) -> Result<(Part, String), StoreError> {
        let part = Part::Shard(shard);
        Ok((part, self.swap(part, shard_text(state, shard), state).await?))
    }

    /// The Topics of a namespace, including those with invalid specs.
    async fn list_topics(&self, namespace: &str) -> Result<Vec<DynamicObject>, StoreError> {
        let topics: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<Topic>(&()));
        Ok(answered("list", "Topics", topics.list(&ListParams::default())).await?.items)
    }

    /// The Topics of another namespace; `None` if this operator may no longer list them.
    async fn list_topics_elsewhere(
        &self,
        namespace: &str,
    ) -> Result<Option<Vec<DynamicObject>>, StoreError> {
        match self.list_topics(namespace).await {
            Ok(topics) => Ok(Some(topics)),
            Err(StoreError::Api { source, .. }) if is_forbidden(&*source) => {
                warn!(
                    namespace,
                    "the operator may not list Topics there: the cluster's topics of this namespace stay as they are"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn load_all(&mut self) -> Result<State, StoreError> {
        // Tables before topics: if a predecessor writes in between, the first write fails, and none
        // of its partitions counts as an orphan.
        let parts = self.parts().await?;
        let resource = answered("get", &self.cluster, self.clusters.get(&self.cluster)).await?;
        let home = resource.metadata.namespace.clone().unwrap_or_default();
        let topics = self.list_topics(&home).await?;
        self.versions.clear();
        let credentials = self.read_credentials().await?.unwrap_or_default();
        let mut contents = BTreeMap::new();
        for (part, table) in parts {
            self.versions.insert(part, table.metadata.resource_version.unwrap_or_default());
            contents.insert(part, (table.metadata.name.unwrap_or_default(), table.spec.content));
        }
        let registry = contents
            .remove(&Part::Registry)
            .ok_or_else(|| StoreError::Gone(self.object(Part::Registry)))?;
        let registry = read::registry(&registry.0, &registry.1)?;
        let mut shards = Shard::default();
        for (name, content) in contents.values() {
            shards.extend(read::shard(name, content)?);
        }
        self.cache.observe_cluster(resource.clone());
        let mut taken: BTreeSet<String> =
            topics.iter().filter_map(|topic| topic.metadata.name.clone()).collect();
        let mut topics = read::topics(&self.cluster, &home, topics, &shards.partitions);
        for (namespace, kept) in read::by_other_namespace(&shards.kept) {
            let there = self.list_topics_elsewhere(&namespace).await?;
            topics.extend(read::topics_elsewhere(kept, there, &shards.partitions));
        }
        let topics = read::oldest_of_each(topics);
        for topic in &topics {
            let metadata = &topic.resource.metadata;
            if metadata.namespace.as_ref() == Some(&home) {
                taken.remove(metadata.name.as_deref().unwrap_or_default());
            }
            topic.seen.iter().for_each(|seen| self.cache.observe_topic(seen));
        }
        let cluster = TakenUp::of(&resource.metadata, &resource.spec);
        let seen: Vec<ObjectMeta> = topics
            .iter()
            .filter_map(|topic| topic.seen.as_ref().map(|seen| seen.metadata.clone()))
            .collect();
        let mut state = read::assemble(registry, resource, topics, shards, credentials);
        take_up(&mut state, cluster, &seen);
        // Another cluster of the namespace may have a topic of the same name. After a conflict over
        // a name, the reload finds it here.
        state.taken = Arc::new(taken);
        Ok(state)
    }
}

impl Store for KubeStore {
    /// Checks the Lease first: a controller that was paused beyond its Lease must not trust what it
    /// reads.
    async fn load(&mut self) -> Result<State, StoreError> {
        if !(self.leads)().await {
            return Err(StoreError::NotLeader);
        }
        let state = self.load_all().await?;
        self.committed = Some(state.clone());
        Ok(state)
    }

    async fn commit(&mut self, state: &State, changes: &[Change]) -> Result<(), StoreError> {
        let touched = Touched::by(changes);
        self.write_resources(state, &touched, changes).await?;
        // A new epoch goes into every part, so that a controller with an older one can write none
        // of them. A change of the parts' owner goes into every part too.
        let fences = changes.iter().any(|change| matches!(change, Change::ControllerEpoch(_)));
        let goes = goes_with_the_cluster(&state.cluster.resource);
        let is_other = |before: &State| goes_with_the_cluster(&before.cluster.resource) != goes;
        let all = fences || self.committed.as_ref().is_some_and(is_other);
        let mut writes = Vec::new();
        for shard in (0..SHARDS).filter(|shard| all || touched.shards.contains(shard)) {
            writes.push(self.swap_shard(shard, state));
        }
        let written = futures::future::try_join_all(writes).await?;
        self.versions.extend(written);
        if all || touched.credentials {
            self.put_credentials(state).await?;
        }
        if all || touched.registry {
            self.put(Part::Registry, registry_text(state), state).await?;
        }
        self.committed = Some(state.clone());
        Ok(())
    }

    fn settle(&self, state: &mut State, changes: &[Change]) {
        self.settle_objects(state, changes);
    }
}

/// Records the objects of a loaded state as taken up. The watch offers each of them once more. That
/// completes and checks what the state holds.
fn take_up(state: &mut State, cluster: Option<TakenUp<KafkaClusterSpec>>, topics: &[ObjectMeta]) {
    state.objects.cluster = cluster.map(TakenUp::but_one);
    for metadata in topics {
        let key = state.cluster.key_of(metadata);
        if let Some(topic) = state.topic_by_resource(&key)
            && let Some(object) = TakenUp::of(metadata, &topic.resource.spec)
        {
            state.objects.topics.insert(key, object.but_one());
        }
    }
}

/// Whether deleting the cluster also deletes its tables, topics and volumes.
pub fn goes_with_the_cluster(cluster: &KafkaCluster) -> bool {
    cluster.spec.brokers.storage.on_delete == VolumePolicy::Delete
}

/// The owner reference that deletes an object with its cluster. It does not block the cluster's
/// deletion.
pub fn owner(cluster: &KafkaCluster) -> OwnerReference {
    OwnerReference {
        api_version: weir_crds::API_VERSION.to_owned(),
        kind: KafkaCluster::kind(&()).into_owned(),
        name: cluster.metadata.name.clone().unwrap_or_default(),
        uid: cluster.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    }
}

#[cfg(test)]
pub(crate) mod tests;
