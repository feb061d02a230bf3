//! Filters of DescribeAcls and DeleteAcls (`AclBindingFilter`).

use super::kinds::{Invalid, Operation, PatternType, Permission, ResourceType};
use super::rule::{Acl, WILDCARD};

/// Which patterns a filter wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternMatch {
    /// Patterns of either type whose text is the filter's name.
    Any,
    /// Patterns that apply to the resource of the filter's name.
    Match,
    /// Patterns of this type whose text is the filter's name.
    Only(PatternType),
}

/// A filter; `None` wants everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The type of the resources.
    pub resource_type: Option<ResourceType>,
    /// The name; [`Filter::pattern`] says how it is meant.
    pub name: Option<String>,
    /// Which patterns.
    pub pattern: PatternMatch,
    /// The principal's text, compared letter by letter.
    pub principal: Option<String>,
    /// The host's text.
    pub host: Option<String>,
    /// The operation as it is in the ACL: `All` wants only ACLs of `All`.
    pub operation: Option<Operation>,
    /// What the ACL says.
    pub permission: Option<Permission>,
}

/// The code of ANY.
const ANY: i8 = 1;

/// The code of a pattern type that is in filters only.
const MATCH: i8 = 2;

impl Filter {
    /// The filter that wants every ACL.
    pub const fn any() -> Self {
        Self {
            resource_type: None,
            name: None,
            pattern: PatternMatch::Any,
            principal: None,
            host: None,
            operation: None,
            permission: None,
        }
    }

    /// Sets the codes of a request.
    ///
    /// # Errors
    /// When a code has no meaning (`AclControlManager.validateFilter`).
    pub fn with_codes(
        self,
        resource_type: i8,
        pattern_type: i8,
        operation: i8,
        permission: i8,
    ) -> Result<Self, Invalid> {
        let pattern = match pattern_type {
            ANY => PatternMatch::Any,
            MATCH => PatternMatch::Match,
            code => PatternMatch::Only(PatternType::from_code(code).ok_or(Invalid::PatternFilter)?),
        };
        Ok(Self {
            resource_type: any_or(resource_type, ResourceType::from_code, Invalid::PatternFilter)?,
            pattern,
            operation: any_or(operation, Operation::from_code, Invalid::EntryFilter)?,
            permission: any_or(permission, Permission::from_code, Invalid::EntryFilter)?,
            ..self
        })
    }

    /// Whether it wants an ACL.
    pub fn matches(&self, acl: &Acl) -> bool {
        self.resource_type.is_none_or(|wanted| wanted == acl.resource_type)
            && self.wants_pattern(acl)
            && self.principal.as_deref().is_none_or(|wanted| acl.principal.is_written(wanted))
            && self.host.as_deref().is_none_or(|wanted| wanted == acl.host)
            && self.operation.is_none_or(|wanted| wanted == acl.operation)
            && self.permission.is_none_or(|wanted| wanted == acl.permission)
    }

    /// `ResourcePatternFilter.matches`, without the type of the resource.
    fn wants_pattern(&self, acl: &Acl) -> bool {
        let Some(name) = self.name.as_deref() else {
            return match self.pattern {
                PatternMatch::Any | PatternMatch::Match => true,
                PatternMatch::Only(wanted) => wanted == acl.pattern_type,
            };
        };
        match self.pattern {
            PatternMatch::Any => name == acl.name,
            PatternMatch::Only(wanted) => wanted == acl.pattern_type && name == acl.name,
            PatternMatch::Match => match acl.pattern_type {
                PatternType::Literal => name == acl.name || acl.name == WILDCARD,
                PatternType::Prefixed => name.starts_with(&acl.name),
            },
        }
    }
}

fn any_or<T>(code: i8, of: impl Fn(i8) -> Option<T>, error: Invalid) -> Result<Option<T>, Invalid> {
    match code {
        ANY => Ok(None),
        code => of(code).map(Some).ok_or(error),
    }
}
