//! Principals and their permissions. Every API checks here before it acts.
//!
//! `api` calls it. It holds no credentials and reads no request. A finer policy is another variant
//! of [`Policy`], and changes no caller.

use std::fmt;
use std::sync::Arc;

use weir_protocol::controller::is_uncertified;
pub use weir_security::principal::{KafkaPrincipal, Principal};

use crate::metadata::Metadata;

/// An operation on a resource (`AclOperation`, with its code on the wire).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum Operation {
    /// Read records or a group's state.
    Read = 3,
    /// Write records.
    Write = 4,
    /// Create a topic.
    Create = 5,
    /// Delete a topic, a group or records.
    Delete = 6,
    /// Change anything except configuration.
    Alter = 7,
    /// See its existence and its state.
    Describe = 8,
    /// Act as a broker.
    ClusterAction = 9,
    /// Read configuration.
    DescribeConfigs = 10,
    /// Change configuration.
    AlterConfigs = 11,
    /// Obtain a producer id without a transactional id.
    IdempotentWrite = 12,
}

impl Operation {
    /// The operations on a topic (`AclEntry.supportedOperations`).
    pub const OF_TOPIC: [Self; 8] = [
        Self::Read,
        Self::Write,
        Self::Create,
        Self::Describe,
        Self::Delete,
        Self::Alter,
        Self::DescribeConfigs,
        Self::AlterConfigs,
    ];

    /// The operations on a group.
    pub const OF_GROUP: [Self; 5] =
        [Self::Read, Self::Describe, Self::Delete, Self::DescribeConfigs, Self::AlterConfigs];

    /// The operations on the cluster.
    pub const OF_CLUSTER: [Self; 7] = [
        Self::Create,
        Self::ClusterAction,
        Self::DescribeConfigs,
        Self::AlterConfigs,
        Self::IdempotentWrite,
        Self::Alter,
        Self::Describe,
    ];
}

/// The resource of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The cluster itself.
    Cluster,
    /// A topic, by name.
    Topic(&'a str),
    /// A group, by its id.
    Group(&'a str),
    /// A transactional id.
    TransactionalId(&'a str),
}

/// The policy in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// No authorisation is configured: every principal may do everything, as in Kafka without
    /// `authorizer.class.name`.
    AllowEveryone,
    /// No principal may do anything. Tests use it to show that an API checks.
    #[cfg(test)]
    DenyEveryone,
}

/// Who may act as a broker: fetch as a replica, write markers, speak for a coordinator.
#[derive(Clone)]
pub enum Brokers {
    /// Everybody, as the policy says: brokers have no certificates.
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

/// Decides which operations a principal may do.
#[derive(Debug)]
pub struct Authorizer {
    policy: Policy,
    brokers: Brokers,
}

impl Authorizer {
    /// An authoriser with this policy.
    pub fn new(policy: Policy, brokers: Brokers) -> Self {
        Self { policy, brokers }
    }

    /// Returns whether `principal` may do `operation` on `resource`.
    ///
    /// The controller may do everything, as the operator does for its users. A broker acts on the
    /// cluster and reads what its peers know of topics. No policy makes a client a broker.
    pub fn allows(
        &self,
        principal: &Principal,
        operation: Operation,
        resource: Resource<'_>,
    ) -> bool {
        match principal {
            Principal::Controller => true,
            Principal::Broker(_) => match operation {
                Operation::ClusterAction => true,
                Operation::Describe => matches!(resource, Resource::Topic(_)),
                _ => false,
            },
            Principal::Client(_) => {
                let acts_as_broker = operation == Operation::ClusterAction;
                match self.policy {
                    _ if acts_as_broker && !self.brokers.may_be_clients() => false,
                    Policy::AllowEveryone => true,
                    #[cfg(test)]
                    Policy::DenyEveryone => false,
                }
            }
        }
    }

    /// Returns whether `principal` may fetch as the replica of this broker: a broker only as its
    /// own.
    pub fn allows_replica(&self, principal: &Principal, id: i32) -> bool {
        let is_itself = match principal {
            Principal::Broker(own) => *own == id,
            Principal::Client(_) | Principal::Controller => true,
        };
        is_itself && self.allows(principal, Operation::ClusterAction, Resource::Cluster)
    }

    /// Returns the bit set of the operations that `principal` may do on `resource` (KIP-430).
    pub fn allowed_operations(
        &self,
        principal: &Principal,
        operations: &[Operation],
        resource: Resource<'_>,
    ) -> i32 {
        operations
            .iter()
            .filter(|&&operation| self.allows(principal, operation, resource))
            .fold(0, |bits, &operation| bits | 1 << operation as i32)
    }
}

#[cfg(test)]
mod tests {
    use weir_protocol::controller::{self as rpc, INTERNAL_LISTENER};
    use weir_protocol::types::ControllerEpoch;

    use super::*;
    use crate::metadata::MetadataImage;

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
        Authorizer::new(Policy::AllowEveryone, Brokers::Certified(Arc::new(metadata)))
    }

    #[test]
    fn only_a_broker_is_a_replica_and_only_itself() {
        let client = Principal::from(KafkaPrincipal::anonymous());
        let all = authorizer(&[&["A", INTERNAL_LISTENER], &[INTERNAL_LISTENER]]);
        assert!(all.allows_replica(&Principal::Broker(1), 1));
        assert!(!all.allows_replica(&Principal::Broker(1), 0));
        assert!(!all.allows_replica(&client, 1));
        assert!(!all.allows(&client, Operation::ClusterAction, Resource::Cluster));
        assert!(all.allows(&client, Operation::Alter, Resource::Cluster));
        // During the roll from a version before.
        let some = authorizer(&[&["A", INTERNAL_LISTENER], &["A"]]);
        assert!(some.allows_replica(&client, 1) && !some.allows_replica(&Principal::Broker(1), 0));
        // A recovery found the second one on its volume.
        let unheard = authorizer(&[&["A", INTERNAL_LISTENER], &[]]);
        assert!(!unheard.allows_replica(&client, 1));
        let anybody = Authorizer::new(Policy::AllowEveryone, Brokers::Anybody);
        assert!(anybody.allows_replica(&client, 1));
    }

    #[test]
    fn a_broker_may_do_what_brokers_do_and_the_controller_everything() {
        let authorizer = Authorizer::new(Policy::DenyEveryone, Brokers::Anybody);
        let broker = Principal::Broker(1);
        for operation in Operation::OF_TOPIC {
            let topic = Resource::Topic("t");
            let may = authorizer.allows(&broker, operation, topic);
            assert_eq!(may, operation == Operation::Describe, "{operation:?}");
            assert!(authorizer.allows(&Principal::Controller, operation, topic));
        }
        for operation in Operation::OF_CLUSTER {
            let may = authorizer.allows(&broker, operation, Resource::Cluster);
            assert_eq!(may, operation == Operation::ClusterAction, "{operation:?}");
        }
        assert!(!authorizer.allows(&broker, Operation::Read, Resource::Group("g")));
        assert!(!authorizer.allows_replica(&KafkaPrincipal::anonymous().into(), 1));
    }
}
