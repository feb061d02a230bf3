//! PURE: what operators are told of the transactions of one partition.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

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
