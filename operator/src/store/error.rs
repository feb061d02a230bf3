//! Errors of a store: it cannot read or write the state, or it refuses a resource.

use std::path::PathBuf;

use crate::controller::{Key, Kind};

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another controller holds the lock.
    #[error("another controller is at work on {0}")]
    Locked(PathBuf),
    /// Another controller has written since this one read.
    #[error("another controller has written the state since it was read")]
    Conflict,
    /// The file system fails.
    #[error("{action} {path}: {source}")]
    Io {
        /// The action.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The Kubernetes API refuses, or does not answer.
    #[error("{action} {object}: {source}")]
    Api {
        /// The action.
        action: &'static str,
        /// The object.
        object: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An object does not exist.
    #[error("{0} is not there")]
    Gone(String),
    /// An object of another cluster has the name of a part of the state.
    #[cfg(feature = "kubernetes")]
    #[error("{0}")]
    Taken(super::kube::ours::Taken),
    /// The store refused these resources. It wrote the other resources of the changes and nothing
    /// else. The state is still valid: commit what is decided without the refused ones.
    #[error("the store refuses {}", .0.iter().map(|one| format!("the {} {:?}: {}", one.kind, one.key.name, one.message)).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Refused>),
    /// This process no longer holds the Lease.
    #[error("another replica of the operator leads")]
    NotLeader,
    /// An object would exceed etcd's limit.
    #[error("{0} would be too large: the topics in it have too many partitions")]
    TooLarge(String),
    /// The content of an object was changed by others.
    #[error(
        "{object}, line {line}: {reason}. The object was changed by someone else: restore it from a backup"
    )]
    DamagedObject {
        /// The object.
        object: String,
        /// The line of its content, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The content of a file was changed by others.
    #[error(
        "{path}, line {line}: {reason}. The file is damaged: restore it from a backup, or remove the whole directory to begin anew"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line in it, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

impl StoreError {
    /// Whether a file is not there.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// A resource that the store refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: Key,
    /// Another resource has this name.
    pub taken: bool,
    /// It breaks a rule of the schema, not a quota or a policy.
    pub invalid: bool,
    /// The reason.
    pub message: String,
}
