//! Shared parts of the process tests: the fake controller, the broker process, and a client for
//! single requests.

mod admin;
mod client;
mod controller;
mod keys;
mod process;
mod records;
mod replicated;

use std::future::Future;
use std::time::Duration;

pub(crate) use self::client::{Client, PRODUCE_VERSION, fetch_from, produce_to};
pub(crate) use self::controller::{FakeController, placed_topic, topic};
pub(crate) use self::keys::{Ca, Issued, Valid};
pub(crate) use self::process::{BrokerProcess, Launch};
pub(crate) use self::records::{batch, compressed, idempotent_batch, offsets_and_values};
pub(crate) use self::replicated::Brokers;

/// The cluster of every broker here.
pub(crate) const CLUSTER: &str = "process-test";

/// The limit of every wait in a test. Nothing needs to be fast: it only turns a hang into a
/// failure.
const LOST: Duration = Duration::from_secs(60);

/// Awaits an event that must happen; `what` names it in the failure.
pub(crate) async fn soon<T>(what: &str, happening: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LOST, happening).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("{what}: nothing happened for {LOST:?}"),
    }
}

/// A broker with its data directory and its controller.
pub(crate) struct Cluster {
    pub(crate) controller: FakeController,
    pub(crate) launch: Launch,
    pub(crate) broker: BrokerProcess,
    _data: tempfile::TempDir,
}

impl Cluster {
    /// A broker that serves `topics`.
    pub(crate) async fn start(topics: Vec<weir_protocol::controller::Topic>) -> Self {
        Self::start_with(topics, |launch| launch).await
    }

    /// As [`Cluster::start`], with a changed command line.
    pub(crate) async fn start_with(
        topics: Vec<weir_protocol::controller::Topic>,
        change: impl FnOnce(Launch) -> Launch,
    ) -> Self {
        let controller = FakeController::start(topics);
        let data = tempfile::tempdir().unwrap();
        let launch = change(Launch::new(data.path(), controller.address()));
        let broker = BrokerProcess::start(&launch).await;
        Self { controller, launch, broker, _data: data }
    }

    /// Starts the broker again, on the same directory, after it has ended.
    pub(crate) async fn restart(&mut self) {
        self.broker = BrokerProcess::start(&self.launch).await;
    }

    /// A new connection.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.broker.kafka()).await
    }
}
