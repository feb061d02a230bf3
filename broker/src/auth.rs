//! Principals and their permissions. Every API checks here before it acts.
//!
//! `api` calls it. It holds no credentials and reads no request. A finer policy is another variant
//! of [`Policy`], and changes no caller.

use std::fmt;
use std::sync::Arc;

/// The authenticated sender of a request (`KafkaPrincipal` in Apache Kafka).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    name: Arc<str>,
}

impl Principal {
    /// The principal of a connection without authentication.
    pub fn anonymous() -> Self {
        Self::user("ANONYMOUS")
    }

    /// The principal of a client that has shown who it is.
    pub fn user(name: &str) -> Self {
        Self { name: name.into() }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User:{}", self.name)
    }
}

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

/// Decides which operations a principal may do.
#[derive(Debug)]
pub struct Authorizer {
    policy: Policy,
}

impl Authorizer {
    /// An authoriser with this policy.
    pub fn new(policy: Policy) -> Self {
        Self { policy }
    }

    /// Returns whether `principal` may do `operation` on `resource`.
    pub fn allows(
        &self,
        _principal: &Principal,
        _operation: Operation,
        _resource: Resource<'_>,
    ) -> bool {
        match self.policy {
            Policy::AllowEveryone => true,
            #[cfg(test)]
            Policy::DenyEveryone => false,
        }
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
