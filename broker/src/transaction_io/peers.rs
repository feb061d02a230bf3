//! Asks other brokers, over connections that are kept.

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

/// How long another broker may take to answer (`request.timeout.ms` among brokers).
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Connections to one broker that are kept while nobody uses them.
const IDLE_MAX: usize = 8;

/// Connections to other brokers that nobody uses just now. One carries one request at a time.
#[derive(Debug)]
pub(super) struct Peers {
    /// The listener on which brokers find each other.
    listener: String,
    metadata: Arc<Metadata>,
    idle: Mutex<HashMap<BrokerId, Vec<Connection>>>,
}

impl Peers {
    /// No connection yet.
    pub(super) fn new(listener: String, metadata: Arc<Metadata>) -> Self {
        Self { listener, metadata, idle: Mutex::default() }
    }

    /// Asks another broker.
    ///
    /// # Errors
    /// When it cannot be reached or does not answer in time.
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
        // What was kept may have been closed at the other end meanwhile. What is asked may be asked
        // twice.
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

/// What a request that failed on its way means to who waits for it.
pub(super) fn failed(error: &io::Error) -> ErrorCode {
    tracing::debug!(%error, "another broker did not answer");
    ErrorCode::NetworkException
}

/// Partitions by their topics, in the order in which those are met. A transaction may have
/// thousands of either.
pub(super) fn by_topic(partitions: &[Partition]) -> impl Iterator<Item = (String, Vec<i32>)> {
    let mut topics: IndexMap<&str, Vec<i32>> = IndexMap::new();
    for (topic, index) in partitions {
        topics.entry(topic).or_default().push(*index);
    }
    topics.into_iter().map(|(topic, indexes)| (topic.to_owned(), indexes))
}
