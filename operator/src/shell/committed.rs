//! The result of a commit.

use crate::store::Refused;

/// The result of a commit.
pub(super) enum Committed {
    /// The changes are durable, and brokers have been told.
    Done,
    /// The outcome is unknown: the shell has loaded the state again.
    Lost,
    /// The store wrote some of the resources, and nothing else.
    Refused(Vec<Refused>),
}
