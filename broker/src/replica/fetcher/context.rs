//! The context of the fetchers.

use std::sync::Arc;

use weir_protocol::types::BrokerId;

use crate::metadata::Metadata;
use crate::peer_addresses::PeerAddresses;
use crate::replica::Replicas;

/// The parts of the broker that the fetchers use.
pub struct FetcherContext {
    /// This broker's id.
    pub id: BrokerId,
    /// The addresses of leaders.
    pub peers: PeerAddresses,
    /// Which leaders there are.
    pub metadata: Arc<Metadata>,
    /// The partitions of this broker.
    pub replicas: Arc<Replicas>,
    /// Returns the epoch of this broker's registration, for fetches; -1 before the first.
    pub broker_epoch: Box<dyn Fn() -> i64 + Send + Sync>,
}

impl std::fmt::Debug for FetcherContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FetcherContext")
            .field("id", &self.id)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}
