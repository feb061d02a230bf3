//! The controllers of this process, by the id of their cluster.
//!
//! Local mode has one. On Kubernetes there is one for each `KafkaCluster`, as long as this process holds the lease.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use crate::controller::Registration;
use crate::shell::{Controller, Unavailable};

/// Completes a broker's registration by what the broker cannot know of itself: its rack, and where clients from outside reach it.
pub type Dresser = Arc<dyn Fn(Registration) -> Pin<Box<dyn Future<Output = Registration> + Send>> + Send + Sync>;

/// The controllers, shared between those who host them and the server.
#[derive(Clone, Default)]
pub struct Controllers {
    shared: Arc<RwLock<BTreeMap<String, Controller>>>,
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
        Self {
            only: Some(controller),
            ..Self::default()
        }
    }

    /// No controller yet; registrations are completed by `dresser`.
    pub fn with_dresser(dresser: Dresser) -> Self {
        Self {
            dresser: Some(dresser),
            ..Self::default()
        }
    }

    /// From now on this is the controller of the cluster.
    pub fn put(&self, cluster_id: String, controller: Controller) {
        self.shared.write().unwrap_or_else(PoisonError::into_inner).insert(cluster_id, controller);
    }

    /// The cluster has no controller here any more.
    pub fn remove(&self, cluster_id: &str) {
        self.shared.write().unwrap_or_else(PoisonError::into_inner).remove(cluster_id);
    }

    /// No cluster has a controller here any more.
    pub fn clear(&self) {
        self.shared.write().unwrap_or_else(PoisonError::into_inner).clear();
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
