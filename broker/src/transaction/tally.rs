//! PURE: what operators are told of the transactions of one partition.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::Prepared;

/// What has happened since somebody looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Transactions that were committed.
    pub(crate) committed: u64,
    /// Those that their client has aborted.
    pub(crate) aborted_by_client: u64,
    /// Those that took too long.
    pub(crate) aborted_by_timeout: u64,
    /// Those whose transactional id was taken up by another producer.
    pub(crate) aborted_by_fencing: u64,
    /// Requests of producers that were told that another one has their transactional id.
    pub(crate) fenced: u64,
}

/// What who looks from time to time is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Those that wait for markers.
    pub(crate) prepared: Vec<Prepared>,
    /// Transactional ids whose transaction took too long and whose producer has no epoch left: they wait for a producer id that nobody has.
    pub(crate) exhausted: Vec<String>,
    /// What happened since the last time.
    pub(crate) tally: Tally,
    /// How many are open.
    pub(crate) open: usize,
    /// When the oldest of them began, in milliseconds since 1970.
    pub(crate) oldest_ms: Option<i64>,
}
