//! Requests to other brokers, over a pool of connections.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use parking_lot::Mutex;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::Request;
use weir_protocol::types::BrokerId;

use crate::metadata::Metadata;
use crate::replica::Connection;
use crate::transaction::Partition;

/// The longest time for an answer of another broker (`request.timeout.ms` between brokers).
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The most idle connections to one broker.
const IDLE_MAX: usize = 8;

/// The idle connections to other brokers. A connection carries one request at a time.
#[derive(Debug)]
pub(super) struct Peers {
    /// The listener that brokers use among themselves.
    listener: String,
    metadata: Arc<Metadata>,
    idle: Mutex<HashMap<BrokerId, Vec<Connection>>>,
}

impl Peers {
    /// A pool without connections.
    pub(super) fn new(listener: String, metadata: Arc<Metadata>) -> Self {
        Self { listener, metadata, idle: Mutex::default() }
    }

    /// Sends a request to another broker. May send it twice, if an idle connection fails.
    ///
    /// # Errors
    /// When the broker cannot be reached or does not answer in time.
    pub(super) async fn call<R: Request>(
        &self,
        peer: BrokerId,
        version: i16,
        request: &R,
    ) -> io::Result<R::Response> {
        let kept = self.idle.lock().get_mut(&peer).and_then(Vec::pop);
        if let Some(connection) = kept
            && let Ok(response) = self.call_on(connection, peer, version, request).await
        {
            return Ok(response);
        }
        // The other end may have closed the idle connection. The requests allow a repetition.
        let (host, port) = {
            let image = self.metadata.load();
            let found = image.brokers.get(&peer).and_then(|peer| peer.endpoint(&self.listener));
            let endpoint = found.ok_or(io::ErrorKind::AddrNotAvailable)?;
            (endpoint.host.clone(), endpoint.port)
        };
        let connection = Connection::open(&host, port).await?;
        self.call_on(connection, peer, version, request).await
    }

    async fn call_on<R: Request>(
        &self,
        mut connection: Connection,
        peer: BrokerId,
        version: i16,
        request: &R,
    ) -> io::Result<R::Response> {
        let response = tokio::time::timeout(ANSWER_MAX, connection.call(version, request))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        let mut idle = self.idle.lock();
        let kept = idle.entry(peer).or_default();
        if kept.len() < IDLE_MAX {
            kept.push(connection);
        }
        Ok(response)
    }
}

/// The error code for a request that another broker did not answer.
pub(super) fn failed(error: &io::Error) -> ErrorCode {
    tracing::debug!(%error, "another broker did not answer");
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
