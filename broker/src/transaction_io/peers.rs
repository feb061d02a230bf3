//! Requests to other brokers, over a pool of connections.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use weir_client::{ClientError, ConnectionSettings, Pool, PoolSettings, Repeat};
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::Request;
use weir_protocol::types::BrokerId;

use crate::peer_addresses::{NoAddress, PeerAddresses};
use crate::transaction::Partition;

const POOL: PoolSettings = PoolSettings {
    connection: ConnectionSettings {
        client_id: "replica",
        connect_max: Duration::from_secs(5),
        send_max: Duration::from_secs(5),
        // A transaction may have thousands of topics and of partitions.
        response_bytes_max: 64 << 20,
    },
    // `request.timeout.ms` between brokers.
    answer_max: Duration::from_secs(30),
    // A leader that is slow to commit markers holds some of these for up to 20 seconds. The
    // requests that find none free are retried, by the marker task or by the client.
    connections_max: 64,
    idle_max: 8,
};

/// The connections to other brokers.
#[derive(Debug)]
pub(super) struct Peers {
    addresses: PeerAddresses,
    pool: Pool,
}

/// Why another broker did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    #[error(transparent)]
    NoAddress(#[from] NoAddress),
    #[error(transparent)]
    NoAnswer(#[from] ClientError),
}

impl Peers {
    /// A pool without connections.
    pub(super) fn new(addresses: PeerAddresses) -> Self {
        let identities = addresses.identities().map(Arc::clone);
        Self { addresses, pool: Pool::new(POOL, identities) }
    }

    /// Sends a request to another broker. May send it twice, if an idle connection is broken: the
    /// requests allow a repetition.
    ///
    /// # Errors
    /// When the broker cannot be reached or does not answer in time.
    pub(super) async fn call<R: Request>(
        &self,
        peer: BrokerId,
        version: i16,
        request: &R,
    ) -> Result<R::Response, PeerError> {
        let address = self.addresses.of(peer)?;
        Ok(self.pool.call(peer, &address, version, request, Repeat::IfBroken).await?)
    }
}

/// The error code for a request that another broker did not answer.
pub(super) fn failed(peer: BrokerId, error: &PeerError) -> ErrorCode {
    tracing::debug!(%peer, %error, "another broker did not answer");
    ErrorCode::NetworkException
}

/// Groups partitions by topic, in the order of the first partition of each topic. A transaction may
/// have thousands of topics and of partitions.
pub(super) fn by_topic(partitions: &[Partition]) -> impl Iterator<Item = (String, Vec<i32>)> {
    let mut topics: IndexMap<&str, Vec<i32>> = IndexMap::new();
    for (topic, index) in partitions {
        topics.entry(topic).or_default().push(*index);
    }
    topics.into_iter().map(|(topic, indexes)| (topic.to_owned(), indexes))
}
