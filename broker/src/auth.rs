//! Principals and their permissions. Every API checks here before it acts.
//!
//! `api` calls it. It holds no credentials and reads no request. What everybody may do,
//! `weir_security::acl` says. Whether a client may act as a broker, the brokers' certificates say.

use std::fmt;
use std::sync::Arc;

use weir_protocol::controller::is_uncertified;
use weir_security::acl;
pub use weir_security::acl::{Operation, Requester, Resource};
pub use weir_security::principal::{KafkaPrincipal, Principal};

use crate::metadata::Metadata;

/// Who may act as a broker: fetch as a replica, write markers, speak for a coordinator.
#[derive(Clone)]
pub enum Brokers {
    /// Everybody, as the ACLs say: brokers have no certificates.
    Anybody,
    /// Brokers by their certificates. Clients too, as long as some broker of the metadata is of a
    /// version before and has none.
    Certified(Arc<Metadata>),
}

impl fmt::Debug for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anybody => "Anybody",
            Self::Certified(_) => "Certified",
        })
    }
}

impl Brokers {
    fn may_be_clients(&self) -> bool {
        match self {
            Self::Anybody => true,
            Self::Certified(metadata) => {
                let image = metadata.load();
                image.brokers.values().any(|broker| {
                    is_uncertified(broker.endpoints.iter().map(|endpoint| &*endpoint.listener))
                })
            }
        }
    }
}

/// Decides which operations the sender of a request may do.
#[derive(Debug)]
pub struct Authorizer {
    acls: acl::Authorizer,
    brokers: Brokers,
}

impl Authorizer {
    /// No authorizer is configured: every client may do everything but act as a broker, if brokers
    /// have certificates.
    pub fn unconfigured(brokers: Brokers) -> Self {
        Self { acls: acl::Authorizer::unconfigured(), brokers }
    }

    /// No client may do anything. Tests use it to show that an API checks.
    #[cfg(test)]
    pub fn of_nobody(brokers: Brokers) -> Self {
        Self { acls: acl::Authorizer::not_loaded(acl::Policy::default()), brokers }
    }

    /// Returns whether `requester` may do `operation` on `resource`.
    ///
    /// The controller may do everything, as the operator does for its users. A broker acts on the
    /// cluster and reads what its peers know of topics. No ACL makes a client a broker.
    pub fn allows(
        &self,
        requester: &Requester,
        operation: Operation,
        resource: Resource<'_>,
    ) -> bool {
        let is_client = matches!(requester.principal, Principal::Client(_));
        let acts_as_broker = is_client && operation == Operation::ClusterAction;
        (!acts_as_broker || self.brokers.may_be_clients())
            && self.acls.allows(requester, operation, resource)
    }

    /// Returns whether `requester` may fetch as the replica of this broker: a broker only as its
    /// own.
    pub fn allows_replica(&self, requester: &Requester, id: i32) -> bool {
        let is_itself = match requester.principal {
            Principal::Broker(own) => own == id,
            Principal::Client(_) | Principal::Controller => true,
        };
        is_itself && self.allows(requester, Operation::ClusterAction, Resource::Cluster)
    }

    /// Returns the bit set of the operations that `requester` may do on `resource` (KIP-430).
    pub fn allowed_operations(&self, requester: &Requester, resource: Resource<'_>) -> i32 {
        let allows = |operation| self.allows(requester, operation, resource);
        resource.kind().allowed_operations(allows)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use weir_protocol::controller::{self as rpc, INTERNAL_LISTENER};
    use weir_protocol::types::ControllerEpoch;
    use weir_security::acl::ResourceType;

    use super::*;
    use crate::metadata::MetadataImage;

    fn of(principal: Principal) -> Requester {
        Requester::new(principal, IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    fn authorizer(listeners: &[&[&str]]) -> Authorizer {
        let brokers = (0..).zip(listeners).map(|(id, listeners)| {
            let endpoint = |name: &&str| rpc::Endpoint {
                listener: (*name).to_owned(),
                host: "h".to_owned(),
                port: 1,
                ..Default::default()
            };
            let endpoints = listeners.iter().map(endpoint).collect();
            rpc::Broker { id, epoch: 1, endpoints, ..Default::default() }
        });
        let update = rpc::MetadataUpdate {
            version: 1,
            full: true,
            brokers: brokers.collect(),
            ..Default::default()
        };
        let metadata = Metadata::new();
        let image = MetadataImage::default().after(ControllerEpoch(1), &update).unwrap().0;
        metadata.publish(image);
        Authorizer::unconfigured(Brokers::Certified(Arc::new(metadata)))
    }

    #[test]
    fn only_a_broker_is_a_replica_and_only_itself() {
        let client = of(KafkaPrincipal::anonymous().into());
        let all = authorizer(&[&["A", INTERNAL_LISTENER], &[INTERNAL_LISTENER]]);
        assert!(all.allows_replica(&of(Principal::Broker(1)), 1));
        assert!(!all.allows_replica(&of(Principal::Broker(1)), 0));
        assert!(!all.allows_replica(&client, 1));
        assert!(!all.allows(&client, Operation::ClusterAction, Resource::Cluster));
        assert!(all.allows(&client, Operation::Alter, Resource::Cluster));
        // During the roll from a version before.
        let some = authorizer(&[&["A", INTERNAL_LISTENER], &["A"]]);
        assert!(
            some.allows_replica(&client, 1) && !some.allows_replica(&of(Principal::Broker(1)), 0)
        );
        // A recovery found the second one on its volume.
        let unheard = authorizer(&[&["A", INTERNAL_LISTENER], &[]]);
        assert!(!unheard.allows_replica(&client, 1));
        let anybody = Authorizer::unconfigured(Brokers::Anybody);
        assert!(anybody.allows_replica(&client, 1));
    }

    #[test]
    fn a_broker_may_do_what_brokers_do_and_the_controller_everything() {
        let authorizer = Authorizer::of_nobody(Brokers::Anybody);
        let (broker, controller) = (of(Principal::Broker(1)), of(Principal::Controller));
        for &operation in ResourceType::Topic.operations() {
            let topic = Resource::Topic("t");
            let may = authorizer.allows(&broker, operation, topic);
            assert_eq!(may, operation == Operation::Describe, "{operation:?}");
            assert!(authorizer.allows(&controller, operation, topic));
        }
        for &operation in ResourceType::Cluster.operations() {
            let may = authorizer.allows(&broker, operation, Resource::Cluster);
            assert_eq!(may, operation == Operation::ClusterAction, "{operation:?}");
        }
        assert!(!authorizer.allows(&broker, Operation::Read, Resource::Group("g")));
        assert!(!authorizer.allows_replica(&of(KafkaPrincipal::anonymous().into()), 1));
    }
}
