//! The status that `weir local status` prints.

use serde::Serialize;

/// The status that `weir local status` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// The controller.
    pub(crate) controller: ControllerStatus,
    /// The brokers, by id.
    pub(crate) brokers: Vec<BrokerStatus>,
    /// The partitions; unknown while the controller is down.
    pub(crate) partitions: Option<PartitionsStatus>,
}

/// The controller's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ControllerStatus {
    /// Its pid, if it runs.
    pub(crate) pid: Option<i32>,
}

/// A broker's process, and its state at the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct BrokerStatus {
    /// Its id.
    pub(crate) id: i32,
    /// Its pid, if it runs.
    pub(crate) pid: Option<i32>,
    /// Its port.
    pub(crate) port: u16,
    /// `ready`, `starting`, `fenced`, `stopping`, `stopped`, or `unknown` while the controller is
    /// down.
    pub(crate) state: &'static str,
}

/// Counts of the cluster's partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartitionsStatus {
    /// All partitions.
    pub(crate) total: u32,
    /// Partitions with a replica out of sync.
    pub(crate) under_replicated: u32,
    /// Partitions without a leader.
    pub(crate) offline: u32,
}
