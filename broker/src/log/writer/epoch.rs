//! Epochs in which nothing is written: they begin where the log ends, with their leader, and go
//! when another leader knows better.

use std::io;
use std::sync::atomic::Ordering;

use weir_protocol::batch::BatchHeader;
use weir_protocol::types::LeaderEpoch;

use super::super::reader::LogReader;
use super::LogWriter;

impl LogWriter {
    /// A leader's epoch begins at the end of the log (`UnifiedLog.assignEpochStartOffset`). Without
    /// that, nobody could say where an epoch ended that is later than the last record's: a follower
    /// whose log goes on from there would not learn where it is to be cut, and a consumer would
    /// take it for a log that was cut.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) {
        self.reader.epochs.write().assign(epoch, self.reader.log_end_offset());
    }

    /// Forgets the epoch that begins at the end of the log: the leader does not know it
    /// (`UnifiedLog.truncateTo`).
    pub(super) fn forget_epoch_without_records(&mut self) -> io::Result<()> {
        let reader = &self.reader;
        let is_forgotten = reader.epochs.write().truncate_from_end(reader.log_end_offset());
        if is_forgotten && reader.latest_epoch().is_none() && !reader.segments.load().is_empty() {
            // It was the first one too, and said where the log begins; now only the catalogue does.
            self.logs.write_catalogue()?;
        }
        Ok(())
    }
}

impl LogReader {
    /// Takes up the epoch of a batch that is being published. The first one of an epoch brings it
    /// to the disk.
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
