//! ACLs: which principal may do which operation on which resource, from which host.
//!
//! The controller keeps a set of [`Acl`]s, and changes it by [`Creation`]s and [`Filter`]s. A
//! broker compiles each version of the set into an [`Authorizer`], which `api` asks before it acts.
//! The rules are those of Apache Kafka's `StandardAuthorizer`.

mod authorizer;
mod change;
mod filter;
mod index;
mod kinds;
mod rule;

#[cfg(test)]
mod tests;

pub use authorizer::{Authorizer, BadSuperUser, Policy, Requester, Resource, parse_super_users};
pub use change::{ACLS_DELETED_MAX, Creation, TooManyDeleted, matches_to_delete};
pub use filter::{Filter, PatternMatch};
pub use kinds::{Invalid, Operation, PatternType, Permission, ResourceType};
pub use rule::{Acl, CLUSTER_NAME, Decision, Rule, WILDCARD, host_text};
