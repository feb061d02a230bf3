//! The access to the resources of consumer groups, in local mode and on Kubernetes.

use std::future::Future;
use std::sync::Arc;

use weir_crds::{ConsumerGroup, ConsumerGroupStatus};

use super::reconcile::Workload;

/// A resource's namespace and name.
pub type Named = (String, String);

/// Reads and writes the ConsumerGroups of one cluster, and the workloads that they scale.
pub trait GroupBackend: Send + Sync + 'static {
    /// The current ConsumerGroups of the cluster.
    fn groups(&self) -> Vec<Arc<ConsumerGroup>>;
    /// Whether these are all; at the start the list is incomplete.
    fn knows_all(&self) -> bool;
    /// The resources deleted since the last call.
    fn take_deleted(&self) -> Vec<Arc<ConsumerGroup>>;
    /// Waits for a change of any of them.
    fn changed(&self) -> impl Future<Output = ()> + Send;
    /// Writes a status. After `Ok` it is durable.
    fn write_status(
        &self,
        resource: &ConsumerGroup,
        status: &ConsumerGroupStatus,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// The workload that a resource scales.
    fn workload(&self, resource: &ConsumerGroup) -> impl Future<Output = Workload> + Send;
    /// Sets the workload's replicas.
    fn scale(
        &self,
        resource: &ConsumerGroup,
        replicas: i32,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// Creates a resource for a group that has none.
    fn make(&self, group: &str) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// Deletes a resource that was created for a group.
    fn remove(&self, resource: &ConsumerGroup) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// Updates the metrics of the groups: the last status of each, and whether the last pass over
    /// every group succeeded.
    fn show<'a>(
        &self,
        groups: impl Iterator<Item = (&'a Named, &'a ConsumerGroupStatus)>,
        all_looked_after: bool,
    );
    /// Whether this process may still act, because no other has replaced it.
    fn may_act(&self) -> impl Future<Output = bool> + Send;
}
