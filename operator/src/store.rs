//! Where the controller's state lives between two lives of the controller.
//!
//! The shell loads once, at the start and after a commit that failed, and commits each batch of
//! changes. Homes: [`file::FileStore`] in local mode, `kube::KubeStore` on Kubernetes and, for
//! tests, [`memory::MemoryStore`]. A store never decides: it keeps what it is given, and refuses
//! what it cannot read.
//!
//! Order within a commit, for a crash in between: resources, then partitions, then the cluster's
//! counters and brokers. A topic whose partitions are missing gets them, and partitions whose topic
//! is missing are dropped, when the next controller takes over. Not those of a topic that is to be
//! retained: its resource lies beside them, and is made again of that.

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

use std::future::Future;

pub use self::error::{Refused, StoreError};
use crate::controller::state::{Change, State};

/// A home of the state.
pub trait Store: Send + 'static {
    /// All that was committed.
    fn load(&mut self) -> impl Future<Output = Result<State, StoreError>> + Send;

    /// Makes what the changes led to durable. After an error nobody knows what was written: load
    /// again.
    fn commit(
        &mut self,
        state: &State,
        changes: &[Change],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
