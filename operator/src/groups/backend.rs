//! Where the resources of consumer groups live: local mode and Kubernetes.

use std::future::Future;
use std::sync::Arc;

use weir_crds::{ConsumerGroup, ConsumerGroupStatus};

use super::reconcile::Workload;

/// A resource's namespace and name.
pub type Named = (String, String);

/// Reads and writes the ConsumerGroups of one cluster, and the workloads that they name.
pub trait GroupBackend: Send + Sync + 'static {
    /// The ConsumerGroups of the cluster, as they are now.
    fn groups(&self) -> Vec<Arc<ConsumerGroup>>;
    /// Whether that is all of them: at the start they are still being listed.
    fn knows_all(&self) -> bool;
    /// Those that were deleted since this was last asked.
    fn take_deleted(&self) -> Vec<Arc<ConsumerGroup>>;
    /// Waits for a change of one of them.
    fn changed(&self) -> impl Future<Output = ()> + Send;
    /// Writes a status. When it returns well, the status is durable.
    fn write_status(
        &self,
        resource: &ConsumerGroup,
        status: &ConsumerGroupStatus,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// The workload that a resource names.
    fn workload(&self, resource: &ConsumerGroup) -> impl Future<Output = Workload> + Send;
    /// Gives it so many replicas.
    fn scale(
        &self,
        resource: &ConsumerGroup,
        replicas: i32,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// Makes a resource for a group that has none.
    fn make(&self, group: &str) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// Removes a resource that was made for a group.
    fn remove(&self, resource: &ConsumerGroup) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// Shows how the groups do, for whoever collects figures: the last status of each, and whether
    /// the last look at each, with what followed from it, came to its end.
    fn show<'a>(
        &self,
        groups: impl Iterator<Item = (&'a Named, &'a ConsumerGroupStatus)>,
        all_looked_after: bool,
    );
    /// Whether this process may still act: it has not been replaced by another.
    fn may_act(&self) -> impl Future<Output = bool> + Send;
}
