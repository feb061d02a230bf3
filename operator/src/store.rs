//! Where the controller's state is kept between two runs of the controller.
//!
//! The shell loads once at the start, and again after a failed commit. It commits each batch of
//! changes. Implementations: [`file::FileStore`] in local mode, `kube::KubeStore` on Kubernetes,
//! and [`memory::MemoryStore`] for tests. A store never decides: it keeps what it gets, and refuses
//! what it cannot read.
//!
//! The order within a commit protects against a crash in between: resources, then partitions, then
//! the cluster's counters and brokers. When the next controller takes over, a topic without its
//! partitions gets them, and partitions without a topic are dropped. The exception are retained
//! topics: their shard also holds the resource, from which it is created again.

mod credentials;
mod error;
pub mod file;
#[cfg(feature = "kubernetes")]
pub mod kube;
mod lenient;
pub mod memory;
pub mod packed;
mod parts;
mod touched;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use self::credentials::write_credentials as written_credentials;

use std::future::Future;

pub use self::error::{Refused, StoreError};
use crate::controller::state::{Change, State};

/// A store of the state.
pub trait Store: Send + 'static {
    /// Returns everything that was committed.
    fn load(&mut self) -> impl Future<Output = Result<State, StoreError>> + Send;

    /// Writes the result of the changes durably. After an error it is unknown what was written:
    /// load again.
    fn commit(
        &mut self,
        state: &State,
        changes: &[Change],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// After a commit: tells the state which versions of users' objects contain it. The next
    /// decision has to know the controller's own writes. Does nothing where nobody else writes.
    fn settle(&self, _state: &mut State, _changes: &[Change]) {}
}
