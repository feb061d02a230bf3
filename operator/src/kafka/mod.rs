//! The operator's own Kafka client: an ordinary one, on the brokers' first listener. It takes
//! leaders and addresses from the committed state, which is what Metadata would answer. It finds a
//! group's coordinator with FindCoordinator.

mod connection;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{FindCoordinatorRequest, Request};
use weir_protocol::types::BrokerId;

use self::connection::Connection;
use crate::controller::state::State;

/// Why a request to the brokers failed.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// No broker serves.
    #[error("no broker serves")]
    NoBroker,
    /// A broker did not answer.
    #[error("broker {0} does not answer: {1}")]
    Io(i32, io::Error),
    /// A broker answered with an error.
    #[error("{0}: {name}: {message}", name = .1.name(), message = .1.message())]
    Code(&'static str, ErrorCode),
}

/// Turns an error code into an error.
///
/// # Errors
/// When the code is one.
pub fn check(what: &'static str, code: i16) -> Result<(), KafkaError> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(KafkaError::Code(what, code)),
    }
}

type Slot = Arc<tokio::sync::Mutex<Option<((String, u16), Connection)>>>;

/// The client of one cluster. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    committed: watch::Receiver<State>,
    connections: Arc<Mutex<BTreeMap<i32, Slot>>>,
}

impl Client {
    /// A client of the cluster with this watched state.
    pub fn new(committed: watch::Receiver<State>) -> Self {
        Self { committed, connections: Arc::default() }
    }

    /// The committed state.
    pub fn state(&self) -> State {
        self.committed.borrow().clone()
    }

    /// The brokers that serve.
    pub fn brokers(&self) -> Vec<i32> {
        self.committed.borrow().usable_brokers().map(|broker| broker.id.0).collect()
    }

    /// Sends a request that may be repeated: if a kept connection is broken, it is sent once more.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn ask<R: Request>(
        &self,
        broker: i32,
        version: i16,
        request: &R,
    ) -> Result<R::Response, KafkaError> {
        self.call(broker, version, request, true).await
    }

    /// Sends a request once.
    ///
    /// # Errors
    /// When the broker does not answer; it may have handled the request all the same.
    pub async fn tell<R: Request>(
        &self,
        broker: i32,
        version: i16,
        request: &R,
    ) -> Result<R::Response, KafkaError> {
        self.call(broker, version, request, false).await
    }

    async fn call<R: Request>(
        &self,
        broker: i32,
        version: i16,
        request: &R,
        again: bool,
    ) -> Result<R::Response, KafkaError> {
        let address = self
            .committed
            .borrow()
            .brokers
            .get(&BrokerId(broker))
            .and_then(|broker| broker.endpoints.first())
            .map(|endpoint| (endpoint.host.clone(), endpoint.port));
        let address = address.ok_or(KafkaError::NoBroker)?;
        let slot = Arc::clone(
            self.connections
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(broker)
                .or_default(),
        );
        let mut slot = slot.lock().await;
        if slot.as_ref().is_some_and(|(known, _)| *known != address) {
            *slot = None;
        }
        let failed = |error| KafkaError::Io(broker, error);
        let kept = slot.take();
        let was_kept = kept.is_some();
        let mut connection = match kept {
            Some((_, connection)) => connection,
            None => Connection::open(&address.0, address.1).await.map_err(failed)?,
        };
        let answer = match connection.call(version, request).await {
            // A kept connection may have been closed for being idle, or by a restart.
            Err(error) if again && was_kept && error.kind() != io::ErrorKind::TimedOut => {
                connection = Connection::open(&address.0, address.1).await.map_err(failed)?;
                connection.call(version, request).await
            }
            answer => answer,
        };
        let answer = answer.map_err(failed)?;
        *slot = Some((address, connection));
        Ok(answer)
    }

    /// The coordinator of a group.
    ///
    /// # Errors
    /// When there is none, or no broker answers.
    pub async fn coordinator(&self, group: &str) -> Result<i32, KafkaError> {
        let request = FindCoordinatorRequest {
            coordinator_keys: vec![group.to_owned()],
            ..Default::default()
        };
        let mut last = KafkaError::NoBroker;
        for broker in self.brokers() {
            match self.ask(broker, 4, &request).await {
                Ok(response) => {
                    let Some(found) = response.coordinators.first() else { continue };
                    check("find the coordinator", found.error_code)?;
                    return Ok(found.node_id);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
