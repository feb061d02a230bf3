//! Whose log directory this is, and how it was left: the small files at its root.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::storage::{Storage, read_file, replace_file};

const META: &str = "meta.properties";
const CLEAN: &str = ".kafka_cleanshutdown";
const RUN: &str = "run";
pub(super) const LOCK: &str = ".lock";

/// The most that is read of any of them.
const BYTES_MAX: u64 = 64 * 1024;

/// The cluster and the broker that a log directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster_id: String,
    /// The broker's id.
    pub broker_id: i32,
}

/// How a log directory was left by the process that had it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// In order: nothing need be scanned.
    pub orderly: bool,
    /// The log is whole up to its end: it was left in order, or its process died and the kernel
    /// went on running, by a run that found it whole or told a controller that it may not be.
    pub whole: bool,
    /// The broker epoch that it was last used under.
    pub broker_epoch: Option<i64>,
    /// Nothing vouches for what the last run has written: a write or flush failed, after which the
    /// kernel may show what is not on the disk.
    pub disowned: bool,
}

/// What a run leaves for the next one, from its beginning on.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Run {
    boot_id: String,
    broker_epoch: Option<i64>,
    /// The log may have lost its tail, and no controller has heard of that yet: an end in order
    /// does not bring it back.
    #[serde(default)]
    shortened: bool,
}

/// Why a log directory is not taken.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It belongs to somebody else.
    #[error("{path} belongs to {theirs}, this is {ours}")]
    Foreign {
        /// The directory.
        path: String,
        /// Whom it belongs to.
        theirs: String,
        /// Who this is.
        ours: String,
    },
    /// It holds files, and none that says whose they are.
    #[error(
        "{path} is not empty and has no {META}: it is no log directory, or a damaged one; nothing in it is touched"
    )]
    Unknown {
        /// The directory.
        path: String,
    },
    /// `meta.properties` makes no sense.
    #[error("{path}/{META}: {reason}")]
    Meta {
        /// The directory.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Another process has it.
    #[error("{path} is in use by another process")]
    Locked {
        /// The directory.
        path: String,
    },
    /// The file system fails.
    #[error("{path}: {error}")]
    Io {
        /// The directory.
        path: String,
        /// What failed.
        error: io::Error,
    },
}

/// Checks whose directory `root` is, formats it if it is empty, and returns its own id.
///
/// # Errors
/// When it is not ours, or cannot be read or formatted.
pub(super) fn check_or_format(
    storage: &dyn Storage,
    root: &Path,
    ours: &Identity,
) -> Result<Uuid, OpenError> {
    let path = || root.display().to_string();
    let failed = |error| OpenError::Io { path: path(), error };
    match read_file(storage, &root.join(META), BYTES_MAX) {
        Ok(bytes) => check(&String::from_utf8_lossy(&bytes), path(), ours),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            check_is_new(storage, root)?;
            let id = Uuid::new_v4();
            let text = format!(
                "version=1\ncluster.id={}\nnode.id={}\ndirectory.id={id}\n",
                ours.cluster_id, ours.broker_id
            );
            replace_file(storage, &root.join(META), text.as_bytes()).map_err(failed)?;
            if let Some(parent) = root
                .parent()
                .map(|parent| if parent == Path::new("") { Path::new(".") } else { parent })
            {
                match storage.sync_dir(parent) {
                    // A parent that cannot be opened is somebody else's to sync.
                    Err(error)
                        if ![io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied]
                            .contains(&error.kind()) =>
                    {
                        return Err(failed(error));
                    }
                    _ => {}
                }
            }
            Ok(id)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Whose directory `root` is; `None` where it is new, and nobody's yet.
///
/// # Errors
/// When it holds files and does not say whose they are, or cannot be read.
pub(super) fn owner(storage: &dyn Storage, root: &Path) -> Result<Option<Identity>, OpenError> {
    let path = || root.display().to_string();
    match read_file(storage, &root.join(META), BYTES_MAX) {
        Ok(bytes) => {
            parse(&String::from_utf8_lossy(&bytes), path()).map(|(identity, _)| Some(identity))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            check_is_new(storage, root).map(|()| None)
        }
        Err(error) => Err(OpenError::Io { path: path(), error }),
    }
}

/// Refuses a directory that holds something, though nothing says whose it is.
fn check_is_new(storage: &dyn Storage, root: &Path) -> Result<(), OpenError> {
    // A directory of its own file system has lost+found in it, and a format that was cut off its
    // temporary file.
    let known = [LOCK, "lost+found", "meta.properties.tmp"];
    let path = || root.display().to_string();
    let entries = storage.list(root).map_err(|error| OpenError::Io { path: path(), error })?;
    if entries.iter().any(|entry| !known.contains(&entry.name.as_str())) {
        return Err(OpenError::Unknown { path: path() });
    }
    Ok(())
}

fn check(text: &str, path: String, ours: &Identity) -> Result<Uuid, OpenError> {
    let (theirs, id) = parse(text, path.clone())?;
    if theirs != *ours {
        let name = |it: &Identity| format!("broker {} of cluster {}", it.broker_id, it.cluster_id);
        return Err(OpenError::Foreign { path, theirs: name(&theirs), ours: name(ours) });
    }
    Ok(id)
}

/// Whose a directory is, and its own id.
fn parse(text: &str, path: String) -> Result<(Identity, Uuid), OpenError> {
    let value = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::trim)
    };
    let wrong = |reason: &str| OpenError::Meta { path: path.clone(), reason: reason.into() };
    if value("version") != Some("1") {
        return Err(wrong("its version is not 1"));
    }
    let cluster_id = value("cluster.id").ok_or_else(|| wrong("it has no cluster.id"))?.to_owned();
    let broker_id = value("node.id")
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| wrong("it has no node.id"))?;
    let id = value("directory.id")
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| wrong("it has no directory.id"))?;
    Ok((Identity { cluster_id, broker_id }, id))
}

/// How the last run left the directory.
pub(super) fn how_left(storage: &dyn Storage, root: &Path) -> Left {
    let run: Option<Run> = read_file(storage, &root.join(RUN), BYTES_MAX)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let orderly =
        storage.list(root).is_ok_and(|entries| entries.iter().any(|entry| entry.name == CLEAN));
    let boot_id = storage.boot_id();
    let disowned = !orderly && run.is_none();
    let same_boot = run.as_ref().is_some_and(|run| !boot_id.is_empty() && run.boot_id == boot_id);
    let shortened = run.as_ref().is_some_and(|run| run.shortened);
    Left {
        orderly,
        whole: !shortened && (orderly || same_boot),
        broker_epoch: run.and_then(|run| run.broker_epoch),
        disowned,
    }
}

/// Says that nothing vouches for what this run has written. As well as it can: the disk is failing,
/// or full, which is why a file is removed and none is written.
pub(super) fn disown_run(storage: &dyn Storage, root: &Path) {
    // The mark of a clean stop too, where that was just written.
    let _ = storage.remove_file(&root.join(CLEAN));
    let removed = storage.remove_file(&root.join(RUN)).and_then(|()| storage.sync_dir(root));
    if let Err(error) = removed {
        tracing::error!(directory = %root.display(), %error, "cannot note that the log directory failed: replace the disk, or empty it, before this broker starts again");
    }
}

/// Says that a run has begun: before the first append of it, and synced. A log that may have lost
/// its tail is `whole` again only when that was told to the controller, which gives a broker epoch
/// for it: a run that ends before, in whatever way, leaves it to the next one to tell.
///
/// # Errors
/// When that cannot be written.
pub(super) fn begin_run(
    storage: &dyn Storage,
    root: &Path,
    broker_epoch: Option<i64>,
    whole: bool,
) -> io::Result<()> {
    let run = Run {
        boot_id: if whole { storage.boot_id() } else { String::new() },
        broker_epoch,
        shortened: !whole,
    };
    match storage.remove_file(&root.join(CLEAN)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    replace_file(storage, &root.join(RUN), &serde_json::to_vec(&run)?)
}

/// Says that a run has ended in order: after everything is on the disk.
///
/// # Errors
/// When that cannot be written.
pub(super) fn end_run(storage: &dyn Storage, root: &Path) -> io::Result<()> {
    replace_file(storage, &root.join(CLEAN), b"{\"version\":0}\n")
}
