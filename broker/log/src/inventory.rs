//! What a log directory offers to a cluster that rebuilds its tables: the owner, the logs, and the
//! metadata that the last run kept.
//!
//! The broker reads it after it has opened, and so recovered, the directory, and before it opens
//! any log. Nothing changes it meanwhile.

use std::io;
use std::path::Path;

use weir_protocol::types::{LeaderEpoch, TopicPartition};

use super::identity::{self, Identity, OpenError};
use super::storage::Storage;
use super::{LogDir, kept};

/// An existing log that no partition has claimed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLog {
    /// The partition.
    pub id: TopicPartition,
    /// The topic's name in the directory's name.
    pub topic: String,
    /// Its newest leader epoch, if it has one.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Its log end offset.
    pub end_offset: i64,
}

/// Returns the owner of the directory at `root`; `None` when it is new. Creates a missing
/// directory.
///
/// # Errors
/// When it holds files but no owner, or cannot be created or read.
pub fn owner_of(storage: &dyn Storage, root: &Path) -> Result<Option<Identity>, OpenError> {
    storage
        .create_dir(root)
        .map_err(|error| OpenError::Io { path: root.display().to_string(), error })?;
    identity::owner(storage, root)
}

impl LogDir {
    /// The unclaimed logs, in order of their ids.
    pub fn found_logs(&self) -> Vec<FoundLog> {
        let found = self.logs.found.lock();
        let mut logs: Vec<FoundLog> = found
            .iter()
            .map(|(id, log)| FoundLog {
                id: *id,
                topic: log.topic.clone(),
                leader_epoch: log.epochs.last().map(|(epoch, _)| LeaderEpoch(*epoch)),
                end_offset: log.log_end_offset,
            })
            .collect();
        logs.sort_by_key(|log| log.id);
        logs
    }

    /// Returns the metadata frames that some run kept here, as far as they can be read and however
    /// old they are. No partition takes a role from them.
    pub fn last_known(&self) -> Vec<Vec<u8>> {
        kept::read_as_far_as_it_goes(
            self.state.storage(),
            self.state.root(),
            &self.identity,
            self.id(),
        )
    }

    /// Records that the cluster has tables that do not come from the kept metadata, and removes the
    /// kept frames. With `was_heard`, a controller has built the tables from this directory's
    /// report; the log then counts as whole.
    ///
    /// # Errors
    /// When it cannot be written, or the directory is offline.
    pub fn there_are_tables(&self, was_heard: bool) -> io::Result<()> {
        self.kept.forget(self.state.storage(), self.state.root())?;
        match self.left().broker_epoch.filter(|_| was_heard) {
            Some(epoch) => self.set_broker_epoch(epoch),
            None => Ok(()),
        }
    }
}
