//! Epochs without records. They begin at the log end offset when a leader begins, and are removed
//! when another leader does not have them.

use std::io;
use std::sync::atomic::Ordering;

use weir_protocol::batch::BatchHeader;
use weir_protocol::types::LeaderEpoch;

use super::super::reader::LogReader;
use super::LogWriter;

impl LogWriter {
    /// Begins a leader's epoch at the end of the log (`UnifiedLog.assignEpochStartOffset`). Without
    /// it, no one can tell where an epoch ended that is later than the last record's. A follower
    /// with a longer log would not learn where to truncate, and a consumer would see a truncated
    /// log.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) {
        self.reader.epochs.write().assign(epoch, self.reader.log_end_offset());
    }

    /// Removes the epoch that begins at the end of the log, because the leader does not have it
    /// (`UnifiedLog.truncateTo`).
    pub(super) fn forget_epoch_without_records(&mut self) -> io::Result<()> {
        let reader = &self.reader;
        let is_forgotten = reader.epochs.write().truncate_from_end(reader.log_end_offset());
        if is_forgotten && reader.latest_epoch().is_none() && !reader.segments.load().is_empty() {
            // It was also the first epoch and said where the log begins. Now only the catalogue
            // does.
            self.logs.write_catalogue()?;
        }
        Ok(())
    }
}

impl LogReader {
    /// Records the epoch of a batch that is being published. The first batch of an epoch marks the
    /// epochs for the next flush.
    pub(super) fn note_epoch(&self, header: &BatchHeader) {
        let latest = self.epochs.read().entries().last().copied();
        let is_first = match latest {
            Some(latest) if latest.epoch == header.leader_epoch => {
                latest.start_offset == header.base_offset
            }
            _ => self.epochs.write().assign(header.leader_epoch, header.base_offset),
        };
        if is_first {
            self.unsynced.epochs.store(true, Ordering::Release);
        }
    }
}
