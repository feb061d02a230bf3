//! DescribeClientQuotas (`ClientQuotasImage.describe`).

use std::collections::BTreeMap;

use super::entity::{CLIENT_ID, Entity, IP, Key, Quotas, USER, known_type, shortened};

/// A component of the request's filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// `user`, `client-id` or `ip`.
    pub kind: String,
    /// The code of how it matches.
    pub match_type: i8,
    /// The name to match.
    pub name: Option<String>,
}

/// How a part of an entity has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Of this name.
    Exact(String),
    /// The default.
    Default,
    /// Of any name, or the default.
    Any,
}

/// Why a filter is refused. INVALID_REQUEST (42) unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// A type without letters.
    #[error("Invalid empty entity type.")]
    EmptyType,
    /// A type twice.
    #[error("Entity type {0} cannot appear more than once in the filter.")]
    Twice(&'static str),
    /// A type that nobody knows: UNSUPPORTED_VERSION (35).
    #[error("Unsupported entity type {0}")]
    UnknownType(String),
    /// A name is missing.
    #[error("Request specified MATCH_TYPE_EXACT, but set match string to null.")]
    ExactWithoutName,
    /// A name is too much.
    #[error("Request specified {0}, but also specified a match string.")]
    UselessName(&'static str),
    /// A code that nobody knows.
    #[error("Unknown match type {0}")]
    UnknownMatch(i8),
    /// An address with something else.
    #[error(
        "Invalid entity filter component combination. IP filter component should not be used with \
         user or clientId filter component."
    )]
    IpWithOthers,
}

/// A filter of quotas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    wanted: BTreeMap<&'static str, Match>,
    /// Whether an entity may have no other parts.
    strict: bool,
}

impl Filter {
    /// Checks the components of a request. Without components it wants all.
    ///
    /// # Errors
    /// What is wrong with the first wrong component.
    pub fn new(components: &[Component], strict: bool) -> Result<Self, DescribeError> {
        let mut wanted = BTreeMap::new();
        for component in components {
            let kind = match known_type(&component.kind) {
                Some(kind) => kind,
                None if component.kind.is_empty() => return Err(DescribeError::EmptyType),
                None => return Err(DescribeError::UnknownType(shortened(&component.kind))),
            };
            if wanted.contains_key(kind) {
                return Err(DescribeError::Twice(kind));
            }
            let how = match (component.match_type, &component.name) {
                (0, Some(name)) => Match::Exact(name.clone()),
                (0, None) => return Err(DescribeError::ExactWithoutName),
                (1, None) => Match::Default,
                (1, Some(_)) => return Err(DescribeError::UselessName("MATCH_TYPE_DEFAULT")),
                (2, None) => Match::Any,
                (2, Some(_)) => return Err(DescribeError::UselessName("MATCH_TYPE_SPECIFIED")),
                (other, _) => return Err(DescribeError::UnknownMatch(other)),
            };
            wanted.insert(kind, how);
        }
        if wanted.contains_key(IP) && [USER, CLIENT_ID].iter().any(|k| wanted.contains_key(k)) {
            return Err(DescribeError::IpWithOthers);
        }
        Ok(Self { wanted, strict })
    }

    /// Whether it wants an entity.
    pub fn matches(&self, entity: &Entity) -> bool {
        let parts = entity.parts();
        let has = |(kind, how): (&&str, &Match)| {
            parts.iter().any(|(part, name)| {
                part == kind
                    && match how {
                        Match::Any => true,
                        Match::Default => name.is_none(),
                        Match::Exact(wanted) => *name == Some(wanted),
                    }
            })
        };
        (!self.strict || parts.len() == self.wanted.len()) && self.wanted.iter().all(has)
    }
}

/// The quotas that a filter wants.
pub fn describe<'a>(
    quotas: &'a Quotas,
    filter: &'a Filter,
) -> impl Iterator<Item = (&'a Entity, &'a BTreeMap<Key, f64>)> {
    quotas.iter().filter(|(entity, _)| filter.matches(entity))
}
