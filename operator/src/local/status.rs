//! What `weir local status` shows.

use serde::Serialize;

/// What `weir local status` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// The controller.
    pub(crate) controller: ControllerStatus,
    /// The brokers, by id.
    pub(crate) brokers: Vec<BrokerStatus>,
    /// The partitions; not known while the controller is down.
    pub(crate) partitions: Option<PartitionsStatus>,
}

/// The controller's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ControllerStatus {
    /// Its pid, if it runs.
    pub(crate) pid: Option<i32>,
}

/// A broker's process, and what the controller says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct BrokerStatus {
    /// Its id.
    pub(crate) id: i32,
    /// Its pid, if it runs.
    pub(crate) pid: Option<i32>,
    /// Where it listens.
    pub(crate) port: u16,
    /// `ready`, `starting`, `fenced`, `stopping`, `stopped`, or `unknown` while the controller is
    /// down.
    pub(crate) state: &'static str,
}

/// The partitions of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartitionsStatus {
    /// All of them.
    pub(crate) total: u32,
    /// Those with fewer replicas in sync than they have.
    pub(crate) under_replicated: u32,
    /// Those without a leader.
    pub(crate) offline: u32,
}
