//! One partition's log on disk: segments, indexes, epochs, producers, recovery, retention,
//! compaction.
//!
//! `replica` holds the one [`LogWriter`] of a log and hands out its readers. Nothing here knows a
//! network, a request or a clock: what time it is, and up to where records are committed, is told
//! by the caller.

mod catalogue;
pub mod cleaner;
mod config;
mod damage;
mod dir;
mod dir_state;
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
pub(crate) mod transactions;
pub mod validate;
mod writer;

pub use config::{
    Cleanup, Compression, FlushMode, InvalidConfig, LogConfig, RecordValidation, TimestampType,
};
pub use dir::{LogDir, LogDirOptions};
pub use dir_state::LogDirObserver;
pub use epochs::{EpochEnd, EpochStart, Epochs};
pub use identity::{Identity, Left, OpenError};
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
    /// It is appended, but before enough replicas had it the ISR became smaller than
    /// `min.insync.replicas`.
    #[error("the batch is on fewer replicas than min.insync.replicas asks for")]
    NotEnoughReplicasAfterAppend,
    /// The log directory is offline.
    #[error("the log directory is offline")]
    Storage,
    /// The log is deleted, or one that is being deleted still has its name: asked again, it may be
    /// appended.
    #[error("a log that is being deleted still has this one's name")]
    Nameless,
    /// The batch does not follow what its producer sent before.
    #[error(transparent)]
    Producer(#[from] producers::ProducerError),
}
