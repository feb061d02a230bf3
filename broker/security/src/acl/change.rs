//! CreateAcls and DeleteAcls: what is refused, and what a request deletes.

use std::collections::BTreeSet;

use super::filter::Filter;
use super::kinds::{Invalid, Operation, PatternType, Permission, ResourceType};
use super::rule::{Acl, CLUSTER_NAME};
use crate::principal::KafkaPrincipal;

/// The most ACLs that one request deletes (`QuorumController.MAX_RECORDS_PER_USER_OP`).
pub const ACLS_DELETED_MAX: usize = 10_000;

/// An ACL as a request has it, with the codes of the wire.
#[derive(Clone, Copy, Debug)]
pub struct Creation<'a> {
    /// The code of the resource's type.
    pub resource_type: i8,
    /// The pattern.
    pub name: &'a str,
    /// The code of the pattern's type.
    pub pattern_type: i8,
    /// The principal's text.
    pub principal: &'a str,
    /// The host's text; Kafka takes any.
    pub host: &'a str,
    /// The code of the operation.
    pub operation: i8,
    /// The code of the permission.
    pub permission: i8,
}

impl Creation<'_> {
    /// The ACL, checked in the order of `AclApis` and `AclControlManager.validateNewAcl`.
    ///
    /// # Errors
    /// Why it is no ACL.
    pub fn validate(self) -> Result<Acl, Invalid> {
        let is_cluster = self.resource_type == ResourceType::Cluster.code();
        if is_cluster && self.name != CLUSTER_NAME {
            return Err(Invalid::ClusterName);
        }
        if self.name.is_empty() {
            return Err(Invalid::EmptyName);
        }
        Ok(Acl {
            resource_type: ResourceType::of_creation(self.resource_type)?,
            pattern_type: PatternType::of_creation(self.pattern_type)?,
            name: self.name.to_owned(),
            operation: Operation::of_creation(self.operation)?,
            permission: Permission::of_creation(self.permission)?,
            principal: KafkaPrincipal::parse(self.principal)
                .map_err(|_| Invalid::Principal(self.principal.to_owned()))?,
            host: self.host.to_owned(),
        })
    }
}

/// A request wants too much. INVALID_REQUEST for the whole request, and nothing is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Cannot remove more than {ACLS_DELETED_MAX} acls in a single delete operation.")]
pub struct TooManyDeleted;

/// The ACLs that each filter of DeleteAcls wants. An ACL that several filters want is in the answer
/// of each.
///
/// # Errors
/// When the answers together would name more than [`ACLS_DELETED_MAX`].
pub fn matches_to_delete<'a>(
    acls: &'a BTreeSet<Acl>,
    filters: &[Filter],
) -> Result<Vec<Vec<&'a Acl>>, TooManyDeleted> {
    let mut left = ACLS_DELETED_MAX;
    let answer = |filter: &Filter| {
        let wanted = acls.iter().filter(|acl| filter.matches(acl));
        let answer: Vec<&Acl> = wanted.take(left + 1).collect();
        left = left.checked_sub(answer.len()).ok_or(TooManyDeleted)?;
        Ok(answer)
    };
    filters.iter().map(answer).collect()
}
