//! One partition's log on disk: segments, indexes, epochs, producers, recovery, retention,
//! compaction.
//!
//! `replica` holds the one [`LogWriter`] of a log and hands out its readers. This module knows no
//! network and no request. The caller passes the time for records and the offset up to which they
//! are committed. Only the pace of flushes and of file deletions follows a clock here.
//!
//! Invariants
//! - A log has one writer (`&mut LogWriter`) and any number of readers (`Arc<LogReader>`). Readers
//!   see published views, which never change.
//! - A leader appends without gaps between offsets. Only compaction makes holes.
//! - A read returns whole batches. As in Kafka, the requested size may cut off the last one.
//! - Each index can be rebuilt from its segment. An entry is checked before it is used (`index`).
//! - Recovery cuts off only bytes that no flush covered (`recovery`).
//! - A truncation is on the disk when it returns. Before it removes the first byte, the catalogue
//!   on the disk counts nothing at or after the new end as flushed (`writer::truncate`).
//! - A compaction is in place as a whole or not at all (`cleaner::swap`). A truncation lowers the
//!   offset up to which the log counts as compacted before anything is appended at or after it.
//! - A failed write or flush takes the whole log directory offline and is never retried (`dir`).
//! - The log never deletes a file or a directory that it does not know.
//! - A directory name belongs to one log until that directory is renamed. Only then may the next
//!   log of that name write, and nothing more is done to the deleted log (`writer::delete`).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod catalogue;
pub mod cleaner;
mod compare;
mod config;
mod damage;
mod dir;
mod dir_state;
mod directories;
mod epochs;
#[cfg(test)]
mod faulty;
mod flush_queue;
mod flusher;
mod identity;
mod index;
mod inventory;
mod kept;
mod logs;
mod partition_dir;
pub mod producers;
mod reader;
mod recovery;
pub mod retention;
mod segment;
mod snapshots;
mod storage;
mod strays;
#[cfg(test)]
mod tests;
mod timestamps;
mod transactions;
pub mod validate;
mod writer;

pub use config::{
    Cleanup, Compression, FlushMode, InvalidConfig, LogConfig, RecordValidation, TimestampType,
};
pub use dir::{LogDir, LogDirOptions};
pub use dir_state::LogDirObserver;
pub use epochs::{EpochEnd, EpochStart, Epochs};
pub use identity::{Identity, OpenError, PreviousShutdown};
pub use inventory::{FoundLog, owner_of};
pub use reader::{LogReader, ReadError, ReadSlice, TimestampedOffset};
#[cfg(any(test, fuzzing))]
pub use recovery::recover_bytes;
pub use recovery::{Recovered, Recovery};
pub use segment::SegmentSummary;
pub use storage::{Disk, Entry, File, Mode, Storage};
pub use strays::{Stray, remove_strays, strays};
pub use transactions::Aborted;
pub use validate::{Origin, Prepared};
pub use writer::{AppendInfo, FollowError, LogWriter};

/// Why records were not appended.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AppendError {
    /// This broker does not lead the partition.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// The batch was appended, but the ISR became smaller than `min.insync.replicas` before enough
    /// replicas had it.
    #[error("the batch is on fewer replicas than min.insync.replicas asks for")]
    NotEnoughReplicasAfterAppend,
    /// The log directory is offline.
    #[error("the log directory is offline")]
    Storage,
    /// The log is deleted, or another log that is being deleted still has its name. In the second
    /// case a retry may succeed.
    #[error("a log that is being deleted still has this one's name")]
    Nameless,
    /// The batch does not follow its producer's last batch.
    #[error(transparent)]
    Producer(#[from] producers::ProducerError),
}
