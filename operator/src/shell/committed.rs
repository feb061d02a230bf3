//! What became of changes that were given to the store.

use crate::store::Refused;

/// What became of changes.
pub(super) enum Committed {
    /// They are durable, and brokers were told.
    Done,
    /// Nobody knows: everything was read anew.
    Lost,
    /// The store took some of the resources, and none of the rest.
    Refused(Vec<Refused>),
}
