//! The namespace and name of a resource; names are unique only within a namespace.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The namespace of resources that do not state one.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A namespace and a name. Keys are ordered as resources are; kube's `ObjectRef` has no order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
}

impl Key {
    /// The key of an object that has both, as every object from an API server does.
    pub fn new(namespace: Option<&str>, name: Option<&str>) -> Self {
        Self {
            namespace: namespace.unwrap_or_default().to_owned(),
            name: name.unwrap_or_default().to_owned(),
        }
    }

    /// The key of the object that has this metadata.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self::new(metadata.namespace.as_deref(), metadata.name.as_deref())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
