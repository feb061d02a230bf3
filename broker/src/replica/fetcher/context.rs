//! What fetching needs to know of the broker.

use std::sync::Arc;

use weir_protocol::types::BrokerId;

use crate::metadata::Metadata;
use crate::replica::Replicas;

/// The parts of the broker that fetching uses.
pub struct FetcherContext {
    /// This broker.
    pub id: BrokerId,
    /// The listener on which brokers find each other.
    pub listener: String,
    /// Where leaders are found.
    pub metadata: Arc<Metadata>,
    /// What is followed.
    pub replicas: Arc<Replicas>,
    /// The epoch of this broker's registration, as fetches carry it; -1 before the first.
    pub broker_epoch: Box<dyn Fn() -> i64 + Send + Sync>,
}

impl std::fmt::Debug for FetcherContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FetcherContext")
            .field("id", &self.id)
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}
