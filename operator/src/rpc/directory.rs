//! The controllers of this process, by the id of their cluster.
//!
//! Local mode has one. On Kubernetes there is one for each `KafkaCluster`, as long as this process
//! holds the Lease.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use super::Desk;
use crate::controller::Registration;
use crate::shell::{Controller, Unavailable};

/// Adds to a broker's registration what the broker does not know: its rack, and its addresses for
/// clients outside.
pub type RegistrationEnricher =
    Arc<dyn Fn(Registration) -> Pin<Box<dyn Future<Output = Registration> + Send>> + Send + Sync>;

/// The controllers, shared between their hosts and the server.
#[derive(Clone, Default)]
pub struct Controllers {
    shared: Arc<RwLock<BTreeMap<String, Controller>>>,
    /// The desks, by the name that brokers get in place of the cluster's id, and by that id if it
    /// is known. A desk exists while its cluster recovers, and afterwards for brokers that may not
    /// know the result.
    desks: Arc<RwLock<BTreeMap<String, Desk>>>,
    /// Serves every cluster id; the controller itself refuses a wrong one.
    only: Option<Controller>,
    dresser: Option<RegistrationEnricher>,
}

impl std::fmt::Debug for Controllers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controllers").field("only", &self.only).finish_non_exhaustive()
    }
}

impl Controllers {
    /// One controller for every cluster id.
    pub fn one(controller: Controller) -> Self {
        Self { only: Some(controller), ..Self::default() }
    }

    /// No controllers yet; `dresser` completes registrations.
    pub fn with_dresser(dresser: RegistrationEnricher) -> Self {
        Self { dresser: Some(dresser), ..Self::default() }
    }

    /// Adds the controller of a cluster.
    pub fn put(&self, cluster_id: String, controller: Controller) {
        self.shared.write().unwrap_or_else(PoisonError::into_inner).insert(cluster_id, controller);
    }

    /// Removes the controller of a cluster.
    pub fn remove(&self, cluster_id: &str) {
        self.shared.write().unwrap_or_else(PoisonError::into_inner).remove(cluster_id);
    }

    /// Adds the desk for brokers with this cluster id or name.
    pub fn put_desk(&self, name: String, desk: Desk) {
        self.desks.write().unwrap_or_else(PoisonError::into_inner).insert(name, desk);
    }

    /// Removes a desk.
    pub fn remove_desk(&self, name: &str) {
        self.desks.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub(super) fn desk(&self, name: &str) -> Result<Desk, Unavailable> {
        let desks = self.desks.read().unwrap_or_else(PoisonError::into_inner);
        desks.get(name).cloned().ok_or(Unavailable)
    }

    /// Removes all controllers and desks.
    pub fn clear(&self) {
        self.shared.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.desks.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The controller of a cluster.
    ///
    /// # Errors
    /// When the cluster has no controller here.
    pub(super) fn of(&self, cluster_id: &str) -> Result<Controller, Unavailable> {
        if let Some(only) = &self.only {
            return Ok(only.clone());
        }
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        shared.get(cluster_id).cloned().ok_or(Unavailable)
    }

    pub(super) async fn enrich(&self, registration: Registration) -> Registration {
        match &self.dresser {
            Some(dresser) => dresser(registration).await,
            None => registration,
        }
    }
}
