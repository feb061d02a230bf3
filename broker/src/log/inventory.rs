//! What a log directory holds, for a cluster whose tables are made anew of that: whose it is, its
//! logs, and what the last run knew.
//!
//! Looked at after the directory was opened, and so recovered, and before any log in it is: nothing
//! of it changes meanwhile.

use std::io;
use std::path::Path;

use weir_protocol::types::{LeaderEpoch, TopicPartition};

use super::identity::{self, Identity, OpenError};
use super::storage::Storage;
use super::{LogDir, kept};

/// A log that was found and that nobody has claimed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLog {
    /// The partition.
    pub id: TopicPartition,
    /// The topic's name, as the directory has it.
    pub topic: String,
    /// The newest leader epoch in it, if there was any.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Where the next record would go.
    pub end_offset: i64,
}

/// Whose the directory at `root` is; `None` where it is new, and nobody's yet.
///
/// # Errors
/// When it holds files and does not say whose they are, or cannot be made or read.
pub fn owner_of(storage: &dyn Storage, root: &Path) -> Result<Option<Identity>, OpenError> {
    storage
        .create_dir(root)
        .map_err(|error| OpenError::Io { path: root.display().to_string(), error })?;
    identity::owner(storage, root)
}

impl LogDir {
    /// The logs that were found and that nobody has claimed yet, in order.
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

    /// What some run knew of the cluster and left here, as far as it can be read, however old it
    /// is: nobody takes up a role by it.
    pub fn last_known(&self) -> Vec<Vec<u8>> {
        kept::read_as_far_as_it_goes(
            self.state.storage(),
            self.state.root(),
            &self.identity,
            self.id(),
        )
    }

    /// Notes that the cluster has tables that do not come from what the last run knew: nobody goes
    /// on with that. Where a controller has made them of what is here, `was_heard`, the log is
    /// whole as it is.
    ///
    /// # Errors
    /// When that cannot be written, or the directory is offline.
    pub fn there_are_tables(&self, was_heard: bool) -> io::Result<()> {
        self.kept.forget(self.state.storage(), self.state.root())?;
        match self.left().broker_epoch.filter(|_| was_heard) {
            Some(epoch) => self.set_broker_epoch(epoch),
            None => Ok(()),
        }
    }
}
