//! An authorizer that looks at every ACL, as `StandardAuthorizerData` and the default of
//! `Authorizer.authorizeByResourceType` say, word by word. It is slow and has no index.

use std::collections::BTreeSet;

use crate::acl::{Acl, Operation, PatternType, Permission, Policy, ResourceType};
use crate::principal::KafkaPrincipal;

pub(super) struct Naive<'a> {
    pub(super) policy: &'a Policy,
    pub(super) acls: &'a BTreeSet<Acl>,
}

impl Naive<'_> {
    pub(super) fn authorize(
        &self,
        principal: &str,
        host: &str,
        operation: Operation,
        kind: ResourceType,
        name: &str,
    ) -> bool {
        let super_users: Vec<String> =
            self.policy.super_users.iter().map(ToString::to_string).collect();
        if super_users.iter().any(|user| user == principal) {
            return true;
        }
        let (mut has_resource_acls, mut allow) = (false, false);
        for acl in self.acls {
            if acl.resource_type != kind {
                continue;
            }
            let applies = match acl.pattern_type {
                PatternType::Literal => acl.name == name || acl.name == "*",
                PatternType::Prefixed => name.starts_with(&acl.name),
            };
            if !applies {
                continue;
            }
            has_resource_acls = true;
            match find_result(principal, host, operation, acl) {
                Some(false) => return false,
                Some(true) => allow = true,
                None => {}
            }
        }
        allow || (!has_resource_acls && self.policy.allow_everyone_if_no_acl_found)
    }

    pub(super) fn authorize_by_resource_type(
        &self,
        principal: &str,
        host: &str,
        operation: Operation,
        kind: ResourceType,
    ) -> bool {
        if self.authorize(principal, host, operation, kind, "hardcode") {
            return true;
        }
        let mut deny = (BTreeSet::new(), BTreeSet::new());
        let mut allow = (BTreeSet::new(), BTreeSet::new());
        let mut has_wildcard_allow = false;
        for acl in self.acls.iter().filter(|acl| acl.resource_type == kind) {
            let text = acl.principal.to_string();
            if acl.host != host && acl.host != "*" {
                continue;
            }
            if text != principal && text != "User:*" {
                continue;
            }
            if acl.operation != operation && acl.operation != Operation::All {
                continue;
            }
            match (acl.permission, acl.pattern_type) {
                (Permission::Deny, PatternType::Literal) if acl.name == "*" => return false,
                (Permission::Deny, PatternType::Literal) => _ = deny.0.insert(acl.name.clone()),
                (Permission::Deny, PatternType::Prefixed) => _ = deny.1.insert(acl.name.clone()),
                (Permission::Allow, PatternType::Literal) if acl.name == "*" => {
                    has_wildcard_allow = true;
                }
                (Permission::Allow, PatternType::Literal) => _ = allow.0.insert(acl.name.clone()),
                (Permission::Allow, PatternType::Prefixed) => _ = allow.1.insert(acl.name.clone()),
            }
        }
        if has_wildcard_allow {
            return true;
        }
        let literals = allow.0.iter().map(|name| (name, true));
        for (name, is_literal) in literals.chain(allow.1.iter().map(|name| (name, false))) {
            if is_literal && deny.0.contains(name) {
                continue;
            }
            let mut beginning = String::new();
            let dominated = name.chars().any(|c| {
                beginning.push(c);
                deny.1.contains(&beginning)
            });
            if !dominated {
                return true;
            }
        }
        false
    }
}

fn find_result(principal: &str, host: &str, operation: Operation, acl: &Acl) -> Option<bool> {
    use Operation::*;
    let matching = [KafkaPrincipal::parse(principal).unwrap(), KafkaPrincipal::user("*")];
    if !matching.contains(&acl.principal) {
        return None;
    }
    if acl.host != "*" && acl.host != host {
        return None;
    }
    let is_allow = acl.permission == Permission::Allow;
    if acl.operation != All {
        let fits = match operation {
            Describe if is_allow => [Describe, Read, Write, Delete, Alter].contains(&acl.operation),
            DescribeConfigs if is_allow => [DescribeConfigs, AlterConfigs].contains(&acl.operation),
            _ => operation == acl.operation,
        };
        if !fits {
            return None;
        }
    }
    Some(is_allow)
}
