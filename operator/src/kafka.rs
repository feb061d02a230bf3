//! The operator's own Kafka client: on the brokers' internal listener, or as an ordinary one on
//! their first listener where brokers have no certificates. It takes leaders and addresses from the
//! committed state, which is what Metadata would answer. It finds a group's coordinator with
//! FindCoordinator.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use weir_client::{Address, ClientError, ConnectionSettings, Pool, PoolSettings, Repeat};
use weir_protocol::controller::INTERNAL_LISTENER;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{FindCoordinatorRequest, Request};
use weir_protocol::types::BrokerId;
use weir_tls::Identities;

use crate::controller::state::State;

/// The most time for a broker's answer, longer than a coordinator takes to load or to wait for its
/// followers.
const ANSWER_MAX: Duration = Duration::from_secs(15);

const POOL: PoolSettings = PoolSettings {
    connection: ConnectionSettings {
        client_id: "weir-operator",
        connect_max: Duration::from_secs(3),
        send_max: ANSWER_MAX,
        // The offsets of every partition of the largest cluster are less.
        response_bytes_max: 64 << 20,
    },
    answer_max: ANSWER_MAX,
    // Requests to a broker go one after the other: the operator is not to be its main load.
    connections_max: 1,
    idle_max: 1,
};

/// Why a request to the brokers failed.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// No broker serves.
    #[error("no broker serves")]
    NoBroker,
    /// A broker did not answer.
    #[error("broker {0} does not answer: {1}")]
    NoAnswer(i32, ClientError),
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

/// The client of one cluster. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    committed: watch::Receiver<State>,
    has_identity: bool,
    pool: Arc<Pool>,
}

impl Client {
    /// A client of the cluster with this watched state. `identities` is what it shows to brokers.
    pub fn new(committed: watch::Receiver<State>, identities: Option<Arc<Identities>>) -> Self {
        let has_identity = identities.is_some();
        Self { committed, has_identity, pool: Arc::new(Pool::new(POOL, identities)) }
    }

    /// The watched state.
    pub fn committed(&self) -> watch::Receiver<State> {
        self.committed.clone()
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
        self.call(broker, version, request, Repeat::IfBroken).await
    }

    /// Sends a request once.
    ///
    /// # Errors
    /// When the broker does not answer; it may have handled the request all the same.
    pub async fn send_once<R: Request>(
        &self,
        broker: i32,
        version: i16,
        request: &R,
    ) -> Result<R::Response, KafkaError> {
        self.call(broker, version, request, Repeat::Never).await
    }

    async fn call<R: Request>(
        &self,
        broker: i32,
        version: i16,
        request: &R,
        repeat: Repeat,
    ) -> Result<R::Response, KafkaError> {
        let broker = BrokerId(broker);
        let address = self.address_of(broker).ok_or(KafkaError::NoBroker)?;
        let answer = self.pool.call(broker, &address, version, request, repeat).await;
        answer.map_err(|error| KafkaError::NoAnswer(broker.0, error))
    }

    fn address_of(&self, id: BrokerId) -> Option<Address> {
        let committed = self.committed.borrow();
        let endpoints = &committed.brokers.get(&id)?.endpoints;
        let internal = endpoints.iter().find(|endpoint| endpoint.listener == INTERNAL_LISTENER);
        let [internal, first] = [internal.filter(|_| self.has_identity), endpoints.first()]
            .map(|endpoint| endpoint.map(|endpoint| (endpoint.host.as_str(), endpoint.port)));
        Address::of_broker(id, internal, first)
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
