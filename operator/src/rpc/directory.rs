//! The controllers of this process, by the id of their cluster.
//!
//! Local mode has one. On Kubernetes there is one for each `KafkaCluster`, as long as this process
//! holds the lease.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use super::Desk;
use crate::controller::Registration;
use crate::shell::{Controller, Unavailable};

/// Completes a broker's registration by what the broker cannot know of itself: its rack, and where
/// clients from outside reach it.
pub type Dresser =
    Arc<dyn Fn(Registration) -> Pin<Box<dyn Future<Output = Registration> + Send>> + Send + Sync>;

/// The controllers, shared between those who host them and the server.
#[derive(Clone, Default)]
pub struct Controllers {
    shared: Arc<RwLock<BTreeMap<String, Controller>>>,
    /// The desks of clusters that recover, and of those that have and whose brokers may not have
    /// heard of it, by what brokers are told in place of the cluster's id, and by that where it is
    /// known.
    desks: Arc<RwLock<BTreeMap<String, Desk>>>,
    /// Serves every cluster; a wrong id is then for the controller itself to refuse.
    only: Option<Controller>,
    dresser: Option<Dresser>,
}

impl std::fmt::Debug for Controllers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controllers").field("only", &self.only).finish_non_exhaustive()
    }
}

impl Controllers {
    /// One controller, whichever cluster is named.
    pub fn one(controller: Controller) -> Self {
        Self { only: Some(controller), ..Self::default() }
    }

    /// No controller yet; registrations are completed by `dresser`.
    pub fn with_dresser(dresser: Dresser) -> Self {
        Self { dresser: Some(dresser), ..Self::default() }
    }

    /// From now on this is the controller of the cluster.
    pub fn put(&self, cluster_id: String, controller: Controller) {
        self.shared.write().unwrap_or_else(PoisonError::into_inner).insert(cluster_id, controller);
    }

    /// The cluster has no controller here any more.
    pub fn remove(&self, cluster_id: &str) {
        self.shared.write().unwrap_or_else(PoisonError::into_inner).remove(cluster_id);
    }

    /// From now on this is the desk for brokers that call their cluster so.
    pub fn put_desk(&self, name: String, desk: Desk) {
        self.desks.write().unwrap_or_else(PoisonError::into_inner).insert(name, desk);
    }

    /// There is no such desk any more.
    pub fn remove_desk(&self, name: &str) {
        self.desks.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub(super) fn desk(&self, name: &str) -> Result<Desk, Unavailable> {
        let desks = self.desks.read().unwrap_or_else(PoisonError::into_inner);
        desks.get(name).cloned().ok_or(Unavailable)
    }

    /// No cluster has a controller here any more.
    pub fn clear(&self) {
        self.shared.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.desks.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// # Errors
    /// When the cluster has no controller here.
    pub(super) fn of(&self, cluster_id: &str) -> Result<Controller, Unavailable> {
        if let Some(only) = &self.only {
            return Ok(only.clone());
        }
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        shared.get(cluster_id).cloned().ok_or(Unavailable)
    }

    pub(super) async fn dress(&self, registration: Registration) -> Registration {
        match &self.dresser {
            Some(dresser) => dresser(registration).await,
            None => registration,
        }
    }
}
