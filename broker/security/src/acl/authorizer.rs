//! The authorizer: decides which operations a sender may do (`StandardAuthorizer`).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::index::{Asker, Hit, Index};
use super::kinds::{Operation, Permission, ResourceType};
use super::rule::{Acl, CLUSTER_NAME, Decision, Rule, WILDCARD, host_text};
use crate::principal::{KafkaPrincipal, NotAPrincipal, Principal};

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
    /// A delegation token, by its id.
    DelegationToken(&'a str),
    /// The owner of delegation tokens, as `User:name`.
    User(&'a str),
}

impl<'a> Resource<'a> {
    /// The type of the resource.
    pub const fn kind(self) -> ResourceType {
        match self {
            Self::Cluster => ResourceType::Cluster,
            Self::Topic(_) => ResourceType::Topic,
            Self::Group(_) => ResourceType::Group,
            Self::TransactionalId(_) => ResourceType::TransactionalId,
            Self::DelegationToken(_) => ResourceType::DelegationToken,
            Self::User(_) => ResourceType::User,
        }
    }

    /// The name of the resource.
    pub const fn name(self) -> &'a str {
        match self {
            Self::Cluster => CLUSTER_NAME,
            Self::Topic(name)
            | Self::Group(name)
            | Self::TransactionalId(name)
            | Self::DelegationToken(name)
            | Self::User(name) => name,
        }
    }
}

/// The sender of a request and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The sender.
    pub principal: Principal,
    /// The address as ACLs have it.
    host: Arc<str>,
}

impl Requester {
    /// A sender at an address.
    pub fn new(principal: Principal, address: IpAddr) -> Self {
        Self { principal, host: host_text(address).into() }
    }

    /// The address as ACLs have it.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// The settings of the authorizer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Those who may do everything (`super.users`).
    pub super_users: BTreeSet<KafkaPrincipal>,
    /// Whether everybody may use a resource without ACLs (`allow.everyone.if.no.acl.found`).
    pub allow_everyone_if_no_acl_found: bool,
}

/// An entry of `super.users` that is no principal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("super.users: {0}")]
pub struct BadSuperUser(#[from] NotAPrincipal);

/// Parses `super.users`: principals with semicolons between.
///
/// # Errors
/// When an entry is no principal.
pub fn parse_super_users(text: &str) -> Result<BTreeSet<KafkaPrincipal>, BadSuperUser> {
    let entries = text.split(';').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(|entry| Ok(KafkaPrincipal::parse(entry)?)).collect()
}

/// Decides which operations a sender may do, by one version of the ACLs.
#[derive(Debug)]
pub struct Authorizer {
    policy: Policy,
    state: State,
}

#[derive(Debug)]
enum State {
    Unconfigured,
    NotLoaded,
    Loaded { acls: Arc<BTreeSet<Acl>>, index: Index },
}

impl Authorizer {
    /// No authorizer is configured: every client may do everything, as in Kafka without
    /// `authorizer.class.name`.
    pub fn unconfigured() -> Self {
        Self { policy: Policy::default(), state: State::Unconfigured }
    }

    /// The ACLs are not known yet: only nodes and super users may do anything.
    pub fn not_loaded(policy: Policy) -> Self {
        Self { policy, state: State::NotLoaded }
    }

    /// Compiles a version of the ACLs.
    pub fn new(policy: Policy, acls: Arc<BTreeSet<Acl>>) -> Self {
        let index = Index::new(&acls);
        Self { policy, state: State::Loaded { acls, index } }
    }

    /// The ACLs; `None` when no authorizer is configured (SECURITY_DISABLED, 54).
    pub fn acls(&self) -> Option<&BTreeSet<Acl>> {
        const NONE: &BTreeSet<Acl> = &BTreeSet::new();
        match &self.state {
            State::Unconfigured => None,
            State::NotLoaded => Some(NONE),
            State::Loaded { acls, .. } => Some(acls),
        }
    }

    /// Returns whether the sender may do `operation` on `resource`.
    pub fn allows(
        &self,
        requester: &Requester,
        operation: Operation,
        resource: Resource<'_>,
    ) -> bool {
        self.verdict(requester, operation, resource).0
    }

    /// As [`Self::allows`], and says what decided: for the audit log.
    pub fn decide(
        &self,
        requester: &Requester,
        operation: Operation,
        resource: Resource<'_>,
    ) -> Decision {
        let (allowed, reason) = self.verdict(requester, operation, resource);
        let rule = match reason {
            Reason::Rule(rule) => rule,
            Reason::Hit(hit) => Rule::Acl(acl_of(requester, resource.kind(), hit)),
        };
        Decision { allowed, rule }
    }

    fn verdict<'a>(
        &'a self,
        requester: &Requester,
        operation: Operation,
        resource: Resource<'a>,
    ) -> (bool, Reason<'a>) {
        let (allowed, rule) = match (&self.state, &requester.principal) {
            (_, Principal::Controller) => (true, Rule::Node),
            (_, Principal::Broker(_)) => (a_broker_may(operation, resource), Rule::Node),
            (State::Unconfigured, _) => (true, Rule::NoAuthorizer),
            (_, Principal::Client(client)) if self.policy.super_users.contains(client) => {
                (true, Rule::SuperUser)
            }
            (State::NotLoaded, _) => (false, Rule::NotLoaded),
            (State::Loaded { index, .. }, Principal::Client(principal)) => {
                let asker = Asker { principal, host: &requester.host };
                let (kind, name) = (resource.kind(), resource.name());
                match index.decide(asker, operation, kind, name) {
                    Some(hit) => {
                        return (hit.permission == Permission::Allow, Reason::Hit(hit));
                    }
                    None if index.names(kind, name) => (false, Rule::NoneMatches),
                    None => (self.policy.allow_everyone_if_no_acl_found, Rule::NoAcl),
                }
            }
        };
        (allowed, Reason::Rule(rule))
    }

    /// Returns whether the sender may do `operation` on any resource of a type at all
    /// (`Authorizer.authorizeByResourceType`): an idempotent producer needs that for topics.
    pub fn allows_by_type(
        &self,
        requester: &Requester,
        operation: Operation,
        kind: ResourceType,
    ) -> bool {
        // Kafka asks for this name first. So `allow.everyone.if.no.acl.found` counts unless an ACL
        // applies to just this name.
        const ANY_NAME: &str = "hardcode";
        let (State::Loaded { index, .. }, Principal::Client(principal)) =
            (&self.state, &requester.principal)
        else {
            return self.allows(requester, operation, resource_of(kind, ANY_NAME));
        };
        let asker = Asker { principal, host: &requester.host };
        let one_name = || match index.decide(asker, operation, kind, ANY_NAME) {
            Some(hit) => hit.permission == Permission::Allow,
            None => self.policy.allow_everyone_if_no_acl_found && !index.names(kind, ANY_NAME),
        };
        self.policy.super_users.contains(principal)
            || one_name()
            || index.allows_some(asker, operation, kind)
    }

    /// Returns the bit set of the operations that the sender may do on `resource`
    /// ([`ResourceType::allowed_operations`]).
    pub fn allowed_operations(&self, requester: &Requester, resource: Resource<'_>) -> i32 {
        let allows = |operation| self.allows(requester, operation, resource);
        resource.kind().allowed_operations(allows)
    }
}

/// What decided, before it is spelled out.
enum Reason<'a> {
    Rule(Rule),
    Hit(Hit<'a>),
}

/// A broker acts on the cluster and reads what its peers know of topics.
fn a_broker_may(operation: Operation, resource: Resource<'_>) -> bool {
    match operation {
        Operation::ClusterAction => true,
        Operation::Describe => matches!(resource, Resource::Topic(_)),
        _ => false,
    }
}

fn resource_of(kind: ResourceType, name: &str) -> Resource<'_> {
    match kind {
        ResourceType::Cluster => Resource::Cluster,
        ResourceType::Topic => Resource::Topic(name),
        ResourceType::Group => Resource::Group(name),
        ResourceType::TransactionalId => Resource::TransactionalId(name),
        ResourceType::DelegationToken => Resource::DelegationToken(name),
        ResourceType::User => Resource::User(name),
    }
}

fn acl_of(requester: &Requester, resource_type: ResourceType, hit: Hit<'_>) -> Acl {
    let own = match &requester.principal {
        Principal::Client(principal) if !hit.of_everyone => principal.clone(),
        _ => KafkaPrincipal::wildcard(),
    };
    Acl {
        resource_type,
        pattern_type: hit.pattern_type,
        name: hit.name.to_owned(),
        principal: own,
        host: if hit.of_any_host { WILDCARD } else { requester.host() }.to_owned(),
        operation: hit.operation,
        permission: hit.permission,
    }
}
