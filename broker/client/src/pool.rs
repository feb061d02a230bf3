//! Requests to brokers over connections that are kept for the next request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;
use weir_protocol::messages::Request;
use weir_protocol::types::BrokerId;
use weir_tls::Identities;

use crate::{Address, ClientError, Connection, ConnectionSettings};

/// The bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolSettings {
    /// Those of each connection.
    pub connection: ConnectionSettings,
    /// The longest time for an answer, and before it for a connection to become free.
    pub answer_max: Duration,
    /// The most connections to one broker, idle or not. A connection carries one request at a time.
    pub connections_max: usize,
    /// The most idle connections to one broker.
    pub idle_max: usize,
}

/// Whether a request may be sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// The broker may handle it twice: if an idle connection turns out to be broken, it is sent
    /// again on a new one.
    IfBroken,
    /// It is sent once. The broker may have handled it although the call failed.
    Never,
}

/// The connections to the brokers of one cluster.
#[derive(Debug)]
pub struct Pool {
    settings: PoolSettings,
    identities: Option<Arc<Identities>>,
    brokers: Mutex<HashMap<BrokerId, Arc<Peer>>>,
}

/// The connections to one broker at one address.
#[derive(Debug)]
pub(crate) struct Peer {
    address: Address,
    pub(crate) places: Semaphore,
    /// The one that was used last is the last.
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    /// A pool without connections. `identities` is what this process shows to nodes.
    pub fn new(settings: PoolSettings, identities: Option<Arc<Identities>>) -> Self {
        Self { settings, identities, brokers: Mutex::default() }
    }

    /// Sends a request to a broker and awaits the response. Connections to another address that the
    /// broker had before are closed.
    ///
    /// # Errors
    /// When the broker cannot be reached or does not answer in time.
    pub async fn call<R: Request>(
        &self,
        broker: BrokerId,
        address: &Address,
        version: i16,
        request: &R,
        repeat: Repeat,
    ) -> Result<R::Response, ClientError> {
        let PoolSettings { connection: settings, answer_max, .. } = self.settings;
        let peer = self.peer(broker, address);
        let _place = match timeout(answer_max, peer.places.acquire()).await {
            Ok(Ok(place)) => place,
            _ => return Err(ClientError::Busy(answer_max)),
        };
        let kept = peer.idle.lock().pop();
        if let Some(mut connection) = kept {
            match connection.call(version, request, answer_max).await {
                Ok(answer) => {
                    self.keep(&peer, connection);
                    return Ok(answer);
                }
                // The broker closes idle connections, and all of them when it restarts.
                Err(error) if repeat == Repeat::IfBroken && error.is_broken() => {
                    debug!(%broker, %address, api = R::NAME, %error, "an idle connection is broken; the request is sent again on a new one");
                    // The others have been idle for longer.
                    peer.idle.lock().clear();
                }
                Err(error) => return Err(error),
            }
        }
        let mut connection =
            Connection::open(address, self.identities.as_deref(), settings).await?;
        let answer = connection.call(version, request, answer_max).await?;
        self.keep(&peer, connection);
        Ok(answer)
    }

    pub(crate) fn peer(&self, broker: BrokerId, address: &Address) -> Arc<Peer> {
        let mut brokers = self.brokers.lock();
        if let Some(peer) = brokers.get(&broker)
            && peer.address == *address
        {
            return Arc::clone(peer);
        }
        let peer = Arc::new(Peer {
            address: address.clone(),
            places: Semaphore::new(self.settings.connections_max),
            idle: Mutex::default(),
        });
        brokers.insert(broker, Arc::clone(&peer));
        peer
    }

    fn keep(&self, peer: &Peer, connection: Connection) {
        let mut idle = peer.idle.lock();
        if idle.len() < self.settings.idle_max {
            idle.push(connection);
        }
    }
}
