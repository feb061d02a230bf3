//! Whether a cluster takes the Topics and ConsumerGroups of a namespace, and the conditions'
//! reasons if it does not.

/// The reason of a resource whose namespace its cluster does not allow.
pub(crate) const NOT_ALLOWED: &str = "NotAllowedByCluster";

/// The reason of a resource whose namespace's labels cannot be read.
pub(crate) const NOT_READABLE: &str = "NamespaceNotReadable";

/// Whether a cluster takes the resources of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It takes them.
    Allowed,
    /// It does not; the text says what helps.
    NotAllowed(String),
    /// The labels of the namespace cannot be read; the text says why.
    Unknown(String),
    /// The labels are being read.
    Pending,
}
