//! The controllers of this process, by the id of their cluster.
//!
//! Local mode has one. On Kubernetes there is one for each `KafkaCluster`, as long as this process
//! holds the Lease.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use tonic::Status;
use weir_protocol::controller::INTERNAL_LISTENER;
use weir_protocol::types::BrokerId;
use weir_tls::Identities;

use super::caller::Caller;
use super::desk::Desk;
use crate::controller::Registration;
use crate::shell::{Controller, Unavailable};

/// Adds to a broker's registration what the broker does not know: its rack, and its addresses for
/// clients outside. Or says why that is not known yet.
pub type RegistrationEnricher = Arc<
    dyn Fn(Registration) -> Pin<Box<dyn Future<Output = Result<Registration, String>> + Send>>
        + Send
        + Sync,
>;

/// The controllers, shared between their hosts and the server.
#[derive(Clone, Default)]
pub struct Controllers {
    shared: Arc<RwLock<BTreeMap<String, Hosted<Controller>>>>,
    /// The desks, by the name that brokers get in place of the cluster's id, and by that id if it
    /// is known. A desk exists while its cluster recovers, and afterwards for brokers that may not
    /// know the result.
    desks: Arc<RwLock<BTreeMap<String, Hosted<Desk>>>>,
    /// What this process shows to brokers, by the domain of their cluster.
    identities: Arc<RwLock<BTreeMap<String, Arc<Identities>>>>,
    /// Serves every cluster id; the controller itself refuses a wrong one.
    only: Option<Controller>,
    dresser: Option<RegistrationEnricher>,
}

fn unavailable() -> Status {
    Status::unavailable(Unavailable.to_string())
}

/// What a cluster has here, and the domain whose certificates its brokers show.
#[derive(Clone, Debug)]
struct Hosted<T> {
    part: T,
    domain: Option<String>,
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

    /// Adds the controller of a cluster. With a domain its brokers show certificates of it; those
    /// of a version before may come without as long as they have not been seen with one.
    pub fn put(&self, cluster_id: String, controller: Controller, domain: Option<String>) {
        let hosted = Hosted { part: controller, domain };
        self.shared.write().unwrap_or_else(PoisonError::into_inner).insert(cluster_id, hosted);
    }

    /// Removes the controller of a cluster.
    pub fn remove(&self, cluster_id: &str) {
        self.shared.write().unwrap_or_else(PoisonError::into_inner).remove(cluster_id);
    }

    /// Adds the desk for brokers with this cluster id or name, and certificates of this domain.
    pub fn put_desk(&self, name: String, desk: Desk, domain: Option<String>) {
        let hosted = Hosted { part: desk, domain };
        self.desks.write().unwrap_or_else(PoisonError::into_inner).insert(name, hosted);
    }

    /// Adds what this process shows to the brokers of a domain.
    pub fn put_identities(&self, domain: String, identities: Arc<Identities>) {
        let mut all = self.identities.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(domain, identities);
    }

    /// What this process shows to the brokers of a domain.
    pub fn identities(&self, domain: &str) -> Option<Arc<Identities>> {
        let all = self.identities.read().unwrap_or_else(PoisonError::into_inner);
        all.get(domain).cloned()
    }

    /// Removes what this process shows to the brokers of a domain, unless others are there now.
    pub fn remove_identities(&self, domain: &str, identities: &Arc<Identities>) {
        let mut all = self.identities.write().unwrap_or_else(PoisonError::into_inner);
        if all.get(domain).is_some_and(|there| Arc::ptr_eq(there, identities)) {
            all.remove(domain);
        }
    }

    /// Removes a desk.
    pub fn remove_desk(&self, name: &str) {
        self.desks.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The desk for this broker, which has to be who it says.
    ///
    /// # Errors
    /// When there is no desk of this name, or the broker is another.
    pub(super) fn desk(&self, name: &str, caller: &Caller, broker: i32) -> Result<Desk, Status> {
        let desks = self.desks.read().unwrap_or_else(PoisonError::into_inner);
        let hosted = desks.get(name).ok_or_else(unavailable)?;
        // A desk does not know of what version a broker is.
        caller.check(hosted.domain.as_deref(), broker, || false)?;
        Ok(hosted.part.clone())
    }

    /// Whether there is a desk of this name.
    pub(super) fn has_desk(&self, name: &str) -> bool {
        self.desks.read().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// Whether this process is the controller of no cluster.
    pub(super) fn are_none(&self) -> bool {
        self.identities.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Removes all controllers, desks and identities.
    pub fn clear(&self) {
        self.shared.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.desks.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.identities.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The controller of a cluster for this broker, which has to be who it says.
    ///
    /// # Errors
    /// When the cluster has no controller here, or the broker is another.
    pub(super) fn of(
        &self,
        cluster_id: &str,
        caller: &Caller,
        broker: i32,
    ) -> Result<Controller, Status> {
        let (controller, domain) = match &self.only {
            Some(only) => (only.clone(), None),
            None => {
                let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
                let hosted = shared.get(cluster_id).ok_or_else(unavailable)?;
                (hosted.part.clone(), hosted.domain.clone())
            }
        };
        let is_of_a_version_before = || {
            let committed = controller.committed();
            let state = committed.borrow();
            let known = state.brokers.get(&BrokerId(broker));
            // One that a recovery has found on its volume, and that has not registered, has no
            // endpoints, which says nothing of its version.
            known.is_some_and(|known| {
                !known.endpoints.is_empty()
                    && known.endpoints.iter().all(|one| one.listener != INTERNAL_LISTENER)
            })
        };
        caller.check(domain.as_deref(), broker, is_of_a_version_before)?;
        Ok(controller)
    }

    /// Adds what is known of a broker that registers.
    ///
    /// # Errors
    /// `UNAVAILABLE` if it cannot be read now: the broker tries again.
    pub(super) async fn enrich(&self, registration: Registration) -> Result<Registration, Status> {
        match &self.dresser {
            Some(dresser) => dresser(registration).await.map_err(Status::unavailable),
            None => Ok(registration),
        }
    }
}
