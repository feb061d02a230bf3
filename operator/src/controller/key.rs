//! Which resource is meant: names are unique in their namespace alone.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

/// A namespace and a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
}

impl Key {
    /// The key of an object that has both, as each has that comes from an API server.
    pub fn new(namespace: Option<&str>, name: Option<&str>) -> Self {
        Self {
            namespace: namespace.unwrap_or_default().to_owned(),
            name: name.unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
