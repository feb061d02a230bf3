//! PURE: the counts of one partition's transactions, for metrics.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// The counts since the last [`super::Request::Look`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Transactions that were committed.
    pub(crate) committed: u64,
    /// Transactions that their client has aborted.
    pub(crate) aborted_by_client: u64,
    /// Transactions that were aborted by a timeout.
    pub(crate) aborted_by_timeout: u64,
    /// Transactions that were aborted because another producer began with the id.
    pub(crate) aborted_by_fencing: u64,
    /// Requests that were refused because another producer has the transactional id.
    pub(crate) fenced: u64,
}
