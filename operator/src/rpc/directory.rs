//! The controllers of this process, by the id of their cluster.
//!
//! Local mode has one. On Kubernetes there is one for each `KafkaCluster`, as long as this process
//! holds the Lease.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use tonic::Status;
use weir_crds::KafkaCluster;
use weir_protocol::types::BrokerId;
use weir_tls::Identities;

use super::caller::Caller;
use super::desk::Desk;
use super::shown::ShownIdentities;
use crate::controller::Registration;
use crate::controller::state::Broker;
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
    shown: ShownIdentities,
    /// Serves every cluster id; the controller itself refuses a wrong one.
    only: Option<Only>,
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

/// The controller of the one cluster of this process.
#[derive(Clone, Debug)]
struct Only {
    controller: Controller,
    /// That of the brokers' certificates while a listener of the cluster has TLS.
    domain: &'static str,
}

impl Only {
    fn domain(&self) -> Option<&'static str> {
        let committed = self.controller.committed();
        let state = committed.borrow();
        is_secured(&state.cluster.resource).then_some(self.domain)
    }
}

/// Whether this broker is known as one without a certificate.
fn is_uncertified_broker(controller: &Controller, id: BrokerId) -> bool {
    let committed = controller.committed();
    let state = committed.borrow();
    state.brokers.get(&id).is_some_and(Broker::is_uncertified)
}

fn has_uncertified(controller: &Controller) -> bool {
    controller.committed().borrow().brokers.values().any(Broker::is_uncertified)
}

/// Whether brokers of a local cluster with this resource have certificates.
pub fn is_secured(cluster: &KafkaCluster) -> bool {
    cluster.spec.listeners.iter().any(|one| one.tls.is_some() || one.sasl.is_some())
}

impl std::fmt::Debug for Controllers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controllers").field("only", &self.only).finish_non_exhaustive()
    }
}

impl Controllers {
    /// One controller for every cluster id. Its brokers show certificates of the domain while a
    /// listener of the cluster has TLS.
    pub fn one(controller: Controller, domain: &'static str) -> Self {
        Self { only: Some(Only { controller, domain }), ..Self::default() }
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

    /// What the brokers with open streams show.
    pub fn shown(&self) -> &ShownIdentities {
        &self.shown
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
            Some(only) => (only.controller.clone(), only.domain().map(str::to_owned)),
            None => {
                let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
                let hosted = shared.get(cluster_id).ok_or_else(unavailable)?;
                (hosted.part.clone(), hosted.domain.clone())
            }
        };
        let is_of_a_version_before = || is_uncertified_broker(&controller, BrokerId(broker));
        caller.check(domain.as_deref(), broker, is_of_a_version_before)?;
        Ok(controller)
    }

    /// Whether the brokers of all clusters here have certificates, except those of a version
    /// before.
    pub(super) fn have_certificates(&self) -> bool {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        let desks = self.desks.read().unwrap_or_else(PoisonError::into_inner);
        self.only.as_ref().is_none_or(|only| only.domain().is_some())
            && shared.values().all(|hosted| hosted.domain.is_some())
            && desks.values().all(|hosted| hosted.domain.is_some())
    }

    /// Whether somebody without a certificate may be a broker of a cluster here.
    pub(super) fn take_strangers(&self) -> bool {
        // Before the lock: who reads twice waits for ever if somebody wants to write in between.
        if !self.have_certificates() {
            return true;
        }
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        shared.values().any(|hosted| has_uncertified(&hosted.part))
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tonic::Code;
    use weir_security::principal::Principal;

    use super::*;
    use crate::store::file::FileStore;

    /// The only controller of a process, of a cluster with this listener.
    async fn only(listener: serde_json::Value) -> (Controllers, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        let mut store = FileStore::open(root.path()).unwrap();
        let resource = json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "KafkaCluster",
            "metadata": {"name": "local"},
            "spec": {"listeners": [listener]},
        });
        store.create("id".to_owned(), serde_json::from_value(resource).unwrap()).unwrap();
        let (controller, _shell) = Controller::start(store).await.unwrap();
        (Controllers::one(controller, "local"), root)
    }

    #[tokio::test]
    async fn a_cluster_with_tls_believes_its_own_brokers_alone_locally_too() {
        let node = |domain: &str, id| Caller::Node(domain.to_owned(), Principal::Broker(id));
        let tls = json!({"name": "tls", "port": 9093, "type": "Internal", "tls": {}});
        let (with, _root) = only(tls).await;
        let code = |caller| with.of("id", &caller, 1).map_err(|status| status.code()).err();
        assert_eq!(code(Caller::Anybody), Some(Code::PermissionDenied));
        assert_eq!(code(node("local", 2)), Some(Code::PermissionDenied));
        assert_eq!(code(node("other", 1)), Some(Code::PermissionDenied));
        assert_eq!(code(node("local", 1)), None);
        assert!(with.have_certificates() && !with.take_strangers());

        let plain = json!({"name": "plain", "port": 9092, "type": "Internal"});
        let (without, _root) = only(plain).await;
        assert!(without.of("id", &Caller::Anybody, 1).is_ok());
        assert!(!without.have_certificates() && without.take_strangers());
    }
}
