//! Principals: the name under which a client or a node of the cluster acts.
//!
//! A client is a [`KafkaPrincipal`]. Brokers and the controller are kinds of their own, so no user
//! name, certificate or token of a client can make it a node.

mod certificate;
mod der;
mod dn;
mod fingerprint;
mod mapping;
mod validity;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use certificate::{Certificate, node_of, node_uri};
pub use der::BadDer;
pub use dn::rfc2253;
pub use fingerprint::Fingerprint;
pub use mapping::{BadRules, MappingRules, NoName};
pub use validity::Validity;

/// The type of every principal that logs in (`KafkaPrincipal.USER_TYPE`).
pub const USER: &str = "User";

/// A principal as ACLs name it: a type and a name.
///
/// Clients that log in always have the type `User`. Other types occur in ACLs only, and match
/// nobody.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KafkaPrincipal {
    kind: Arc<str>,
    name: Arc<str>,
}

/// A text that is no principal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a string in format principalType:principalName but got {0:?}")]
pub struct NotAPrincipal(String);

impl KafkaPrincipal {
    /// A user. Any text is a name, the empty one and one with colons too.
    pub fn user(name: &str) -> Self {
        Self { kind: USER.into(), name: name.into() }
    }

    /// The user of a connection without authentication.
    pub fn anonymous() -> Self {
        Self::user("ANONYMOUS")
    }

    /// `User:*`, which in an ACL means every principal.
    pub fn wildcard() -> Self {
        Self::user("*")
    }

    /// Parses `Type:Name`; the first colon separates them (`SecurityUtils.parseKafkaPrincipal`).
    ///
    /// # Errors
    /// When the text has no colon.
    pub fn parse(text: &str) -> Result<Self, NotAPrincipal> {
        let (kind, name) = text.split_once(':').ok_or_else(|| NotAPrincipal(shortened(text)))?;
        Ok(Self { kind: kind.into(), name: name.into() })
    }

    /// The type, such as `User`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Whether this is how it is written.
    pub fn is_written(&self, text: &str) -> bool {
        text.split_once(':') == Some((&*self.kind, &*self.name))
    }

    /// The name without its type.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// At most the first 100 characters: an error does not repeat a long text of a client.
fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 100;
    text.chars().take(CHARACTERS_MAX).collect()
}

impl fmt::Display for KafkaPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

impl fmt::Debug for KafkaPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// The sender of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// A client, or `User:ANONYMOUS`.
    Client(KafkaPrincipal),
    /// A broker of this cluster, by its id.
    Broker(i32),
    /// The controller of this cluster.
    Controller,
}

impl Principal {
    /// The sender on a connection without authentication.
    pub fn anonymous() -> Self {
        Self::Client(KafkaPrincipal::anonymous())
    }
}

impl From<KafkaPrincipal> for Principal {
    fn from(principal: KafkaPrincipal) -> Self {
        Self::Client(principal)
    }
}

/// A node is printed without a colon, so that no client's principal is printed alike.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(principal) => principal.fmt(f),
            Self::Broker(id) => write!(f, "broker {id}"),
            Self::Controller => f.write_str("controller"),
        }
    }
}
