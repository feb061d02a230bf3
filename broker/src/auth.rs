//! Who asks, and whether they may: every API asks here before it acts.
//!
//! Called by `api`. Holds no credentials and reads no request. A finer policy is another variant of
//! [`Policy`], and changes no caller.

use std::fmt;
use std::sync::Arc;

/// Who sent a request, as authentication established it (`KafkaPrincipal` in Apache Kafka).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    name: Arc<str>,
}

impl Principal {
    /// The principal of a connection without authentication.
    pub fn anonymous() -> Self {
        Self { name: "ANONYMOUS".into() }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User:{}", self.name)
    }
}

/// What a request wants to do to a resource (`AclOperation`, with its code on the wire).
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
    /// Change what is not configuration.
    Alter = 7,
    /// See that it exists, and its state.
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
    /// Those that a topic knows (`AclEntry.supportedOperations`).
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

    /// Those that a group knows.
    pub const OF_GROUP: [Self; 5] =
        [Self::Read, Self::Describe, Self::Delete, Self::DescribeConfigs, Self::AlterConfigs];

    /// Those that the cluster knows.
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

/// What a request wants to act on.
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

/// The policy that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// No authorisation is configured: everyone may do everything, as in Kafka without
    /// `authorizer.class.name`.
    AllowEveryone,
    /// Nobody may do anything: what shows, in tests, that an API asks.
    #[cfg(test)]
    DenyEveryone,
}

/// Decides what a principal may do.
#[derive(Debug)]
pub struct Authorizer {
    policy: Policy,
}

impl Authorizer {
    /// An authoriser with this policy.
    pub fn new(policy: Policy) -> Self {
        Self { policy }
    }

    /// Whether `principal` may do `operation` to `resource`.
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

    /// The bit set of the operations that `principal` may do to `resource` (KIP-430).
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
