//! The owner of a log directory, and how the last run left it: the small files at its root.
//!
//! Kafka counts no log as whole after an unclean stop. Here a process that dies leaves a whole log
//! as long as the kernel runs on, because that has every write. So what else happens to the files
//! must be noticed, or a leader that lacks records makes its followers cut theirs. These make a run
//! not whole:
//! - a log, a segment or the newest segment's end that the catalogue knows is missing (`compare`,
//!   `recovery::evidence`, `directories`), or is that of another log;
//! - a log ends before a producer snapshot, an index or an epoch of it says;
//! - recovery cuts off whole batches, or a segment that does not follow the one before it.
//!
//! This cannot be noticed: after a kill, a log whose newest segment lost records at its end that
//! were written after the last catalogue (half a minute) and in its last epoch. Nothing that is on
//! the disk says that they were there. The same holds if somebody removes the files that would say
//! it as well, and for directories that were made before they named their partition, if those are
//! exchanged. Damage inside of a log makes no run not whole: reads refuse it, and the end of the
//! log is known.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::storage::{Storage, read_file, replace_file};

const META: &str = "meta.properties";
const CLEAN: &str = ".kafka_cleanshutdown";
const RUN: &str = "run";
pub(super) const LOCK: &str = ".lock";

/// The largest size of any of these files.
const BYTES_MAX: u64 = 64 * 1024;

/// The cluster and the broker that a log directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster_id: String,
    /// The broker's id.
    pub broker_id: i32,
}

/// The state in which the previous process left a log directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousShutdown {
    /// After a clean stop: recovery need not scan.
    pub orderly: bool,
    /// The log is complete up to its end. Either the last run stopped cleanly, or its process died
    /// while the kernel ran on. That run had also found it complete, or had reported to a
    /// controller that it might not be.
    pub whole: bool,
    /// The broker epoch of the last run.
    pub broker_epoch: Option<i64>,
    /// The last run's writes cannot be trusted: a write or flush failed, after which the kernel may
    /// return data that is not on the disk.
    pub disowned: bool,
}

/// The record that a run writes for the next one when it begins.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Run {
    boot_id: String,
    broker_epoch: Option<i64>,
    /// The log may have lost its tail, and no controller knows it yet. A clean stop does not clear
    /// this.
    #[serde(default)]
    shortened: bool,
}

/// Why a log directory is refused.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It belongs to another broker.
    #[error("{path} belongs to {theirs}, this is {ours}")]
    Foreign {
        /// The directory.
        path: String,
        /// Its owner.
        theirs: String,
        /// This broker.
        ours: String,
    },
    /// It holds files, but none that names its owner.
    #[error(
        "{path} is not empty and has no {META}: it is no log directory, or a damaged one; nothing in it is touched"
    )]
    Unknown {
        /// The directory.
        path: String,
    },
    /// `meta.properties` is invalid.
    #[error("{path}/{META}: {reason}")]
    Meta {
        /// The directory.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Another process uses it.
    #[error("{path} is in use by another process")]
    Locked {
        /// The directory.
        path: String,
    },
    /// An I/O error of the file system.
    #[error("{path}: {error}")]
    Io {
        /// The directory.
        path: String,
        /// The error.
        error: io::Error,
    },
}

/// Checks the owner of `root`, formats it if it is empty, and returns the directory's id.
///
/// # Errors
/// When it belongs to another broker, or cannot be read or formatted.
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
                    // The broker cannot open this parent, so it cannot sync it.
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

/// Returns the owner of `root`; `None` when the directory is new.
///
/// # Errors
/// When it holds files but no owner, or cannot be read.
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

/// Refuses a directory that holds files but no owner.
fn check_is_new(storage: &dyn Storage, root: &Path) -> Result<(), OpenError> {
    // The root of a file system contains lost+found, and an interrupted format leaves its temporary
    // file.
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

/// Parses the owner of a directory and its id.
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

/// Reads how the last run left the directory.
pub(super) fn how_left(storage: &dyn Storage, root: &Path) -> PreviousShutdown {
    let run: Option<Run> = read_file(storage, &root.join(RUN), BYTES_MAX)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let orderly =
        storage.list(root).is_ok_and(|entries| entries.iter().any(|entry| entry.name == CLEAN));
    let boot_id = storage.boot_id();
    let disowned = !orderly && run.is_none();
    let same_boot = run.as_ref().is_some_and(|run| !boot_id.is_empty() && run.boot_id == boot_id);
    let shortened = run.as_ref().is_some_and(|run| run.shortened);
    PreviousShutdown {
        orderly,
        whole: !shortened && (orderly || same_boot),
        broker_epoch: run.and_then(|run| run.broker_epoch),
        disowned,
    }
}

/// Removes the marks that vouch for this run's writes. The disk is failing or full, so this removes
/// files instead of writing one.
pub(super) fn mark_unclean(storage: &dyn Storage, root: &Path) {
    // The mark of a clean stop may just have been written.
    let _ = storage.remove_file(&root.join(CLEAN));
    let removed = storage.remove_file(&root.join(RUN)).and_then(|()| storage.sync_dir(root));
    if let Err(error) = removed {
        tracing::error!(directory = %root.display(), %error, "cannot note that the log directory failed: replace the disk, or empty it, before this broker starts again");
    }
}

/// Records, synced, that a run has begun, before its first append. A log that may have lost its
/// tail is `whole` again only after the controller has been told. The controller then assigns a
/// broker epoch. A run that ends before leaves this report to the next run.
///
/// # Errors
/// When it cannot be written.
pub(super) fn begin_run(
    storage: &dyn Storage,
    root: &Path,
    broker_epoch: Option<i64>,
    whole: bool,
) -> io::Result<()> {
    match storage.remove_file(&root.join(CLEAN)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_run(storage, root, broker_epoch, whole)
}

/// Records, synced, that the logs may lack records, while a start still looks at what the last run
/// left. The mark of a clean stop stays: a start that follows compares with that stop's catalogue.
///
/// # Errors
/// When it cannot be written.
pub(super) fn note_doubt(
    storage: &dyn Storage,
    root: &Path,
    broker_epoch: Option<i64>,
) -> io::Result<()> {
    write_run(storage, root, broker_epoch, false)
}

fn write_run(
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
    replace_file(storage, &root.join(RUN), &serde_json::to_vec(&run)?)
}

/// Records a clean stop, after everything is on the disk.
///
/// # Errors
/// When it cannot be written.
pub(super) fn end_run(storage: &dyn Storage, root: &Path) -> io::Result<()> {
    replace_file(storage, &root.join(CLEAN), b"{\"version\":0}\n")
}
