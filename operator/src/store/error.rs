//! Why a store cannot read or write the state, or does not take a resource.

use std::path::PathBuf;

use crate::controller::{Key, Kind};

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another controller works on it.
    #[error("another controller is at work on {0}")]
    Locked(PathBuf),
    /// Another controller has written since.
    #[error("another controller has written the state since it was read")]
    Conflict,
    /// The file system refuses.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The Kubernetes API refuses, or does not answer.
    #[error("{action} {object}: {source}")]
    Api {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An object is not there.
    #[error("{0} is not there")]
    Gone(String),
    /// Another cluster's object has the name of a part of the state.
    #[cfg(feature = "kubernetes")]
    #[error("{0}")]
    Taken(super::kube::ours::Taken),
    /// It took some of the resources that the changes touch, and none of these. Nothing else was
    /// written, and nothing has to be read anew: commit what is decided without them.
    #[error("the store refuses {}", .0.iter().map(|one| format!("the {} {:?}: {}", one.kind, one.key.name, one.message)).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Refused>),
    /// This process does not hold the lease any more.
    #[error("another replica of the operator leads")]
    NotLeader,
    /// An object would be larger than etcd takes.
    #[error("{0} would be too large: the topics in it have too many partitions")]
    TooLarge(String),
    /// What an object holds is not what was written.
    #[error(
        "PartitionTable {object}, line {line}: {reason}. The object was changed by someone else: restore it from a backup"
    )]
    DamagedObject {
        /// The object.
        object: String,
        /// The line of its content, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// What is there is not what was written.
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

/// A resource that was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its kind.
    pub kind: Kind,
    /// Where it lies.
    pub key: Key,
    /// There is another resource of this name.
    pub taken: bool,
    /// It breaks a rule of the schema, and not a quota or a policy.
    pub invalid: bool,
    /// Why it was refused.
    pub message: String,
}
