//! An ACL, and the rule by which a request is decided.

use std::fmt;
use std::net::IpAddr;

use super::kinds::{Operation, PatternType, Permission, ResourceType};
use crate::principal::KafkaPrincipal;

/// The only name of the cluster as a resource.
pub const CLUSTER_NAME: &str = "kafka-cluster";

/// Any host; as a literal pattern, any name.
pub const WILDCARD: &str = "*";

/// One ACL (`AclBinding`). The order is by resource, for answers that group by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// The type of the resources.
    pub resource_type: ResourceType,
    /// Whether the pattern is a whole name or a beginning.
    pub pattern_type: PatternType,
    /// The pattern; never empty.
    pub name: String,
    /// Whom it is about; `User:*` is everybody.
    pub principal: KafkaPrincipal,
    /// The host's address as Java prints it, or `*`.
    pub host: String,
    /// The operation.
    pub operation: Operation,
    /// Whether it permits or refuses.
    pub permission: Permission,
}

/// As Kafka's authorizer writes it into its audit log.
impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "StandardAcl[resourceType={}, resourceName={}, patternType={}, principal={}, host={}, \
             operation={}, permissionType={}]",
            self.resource_type,
            self.name,
            self.pattern_type,
            self.principal,
            self.host,
            self.operation,
            self.permission
        )
    }
}

/// The address as ACLs have it: Java's `getHostAddress`, which leaves out no zero group of IPv6 and
/// takes a mapped IPv4 address for IPv4.
pub fn host_text(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let groups: Vec<String> = address.segments().map(|group| format!("{group:x}")).into();
            groups.join(":")
        }
    }
}

/// Whether a request may go on, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may.
    pub allowed: bool,
    /// What decided.
    pub rule: Rule,
}

/// What decided about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// No authorizer is configured.
    NoAuthorizer,
    /// The principal is a super user.
    SuperUser,
    /// The sender is a node of the cluster, with what nodes may do.
    Node,
    /// No ACL is known yet.
    NotLoaded,
    /// This ACL.
    Acl(Acl),
    /// There are ACLs for the resource, and none permits it.
    NoneMatches,
    /// There is no ACL for the resource: `allow.everyone.if.no.acl.found`.
    NoAcl,
}

/// As Kafka's authorizer writes it into its audit log.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::NoAuthorizer => f.write_str("NoAuthorizer"),
            Rule::SuperUser => f.write_str("SuperUser"),
            Rule::Node => f.write_str("Node"),
            Rule::NotLoaded => f.write_str("AuthorizerNotReady"),
            Rule::Acl(acl) => write!(f, "MatchingAcl[acl={acl}]"),
            Rule::NoneMatches | Rule::NoAcl if self.allowed => f.write_str("DefaultAllow"),
            Rule::NoneMatches | Rule::NoAcl => f.write_str("DefaultDeny"),
        }
    }
}
