//! Whether a cluster takes the Topics and ConsumerGroups of a namespace, and the reasons in the
//! conditions of those that it does not take.

/// The reason of a resource whose namespace its cluster does not allow.
pub(crate) const NOT_ALLOWED: &str = "NotAllowedByCluster";

/// The reason of a resource of whose namespace nobody knows whether its cluster allows it.
pub(crate) const NOT_READABLE: &str = "NamespaceNotReadable";

/// Whether a cluster takes the resources of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does.
    Allowed,
    /// It does not; what helps.
    NotAllowed(String),
    /// The labels of the namespace cannot be read; why.
    Unknown(String),
    /// They are being read.
    Pending,
}
