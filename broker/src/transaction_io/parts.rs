//! The parts of the broker that transactions use, and the state of the marker task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use weir_protocol::types::{BrokerId, LeaderEpoch};

use super::peers::Peers;
use crate::controller_client::Controller;
use crate::coordinator::{Coordinator, StateMachine, partition_in};
use crate::group::Groups;
use crate::metadata::Metadata;
use crate::metrics::Metrics;
use crate::peer_addresses::PeerAddresses;
use crate::replica::Replicas;
use crate::transaction::{Producer, Transactions};

/// Sends the requests of transactions to other brokers, and writes the ends of transactions. One
/// per process.
#[derive(Debug)]
pub(crate) struct TransactionIo {
    /// This broker's id.
    pub(super) id: BrokerId,
    pub(super) metadata: Arc<Metadata>,
    pub(super) replicas: Arc<Replicas>,
    /// Allocates producer ids for producers that have used up their epochs.
    pub(super) controller: Arc<Controller>,
    pub(super) groups: Arc<Coordinator<Groups>>,
    pub(super) transactions: Arc<Coordinator<Transactions>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) peers: Peers,
    pub(super) markers: Markers,
}

impl TransactionIo {
    /// Starts nothing. `addresses` are those of the other brokers. [`TransactionIo::run`] writes
    /// the ends of transactions.
    pub(crate) fn new(
        (id, addresses): (BrokerId, PeerAddresses),
        metadata: &Arc<Metadata>,
        replicas: &Arc<Replicas>,
        controller: &Arc<Controller>,
        (groups, transactions): (&Arc<Coordinator<Groups>>, &Arc<Coordinator<Transactions>>),
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            id,
            metadata: Arc::clone(metadata),
            replicas: Arc::clone(replicas),
            controller: Arc::clone(controller),
            groups: Arc::clone(groups),
            transactions: Arc::clone(transactions),
            metrics: Arc::clone(metrics),
            peers: Peers::new(addresses),
            markers: Markers::default(),
        }
    }

    /// The number of open transactions that this broker coordinates, and the start of the oldest,
    /// in milliseconds since 1970.
    pub(crate) fn open(&self) -> (usize, Option<i64>) {
        self.markers.open()
    }

    /// Wakes the task after a transaction of this id has ended, or was aborted for its next
    /// producer.
    pub(crate) fn ended(&self, id: &str) {
        let partition = partition_in(&self.metadata.load(), Transactions::TOPIC, id);
        self.markers.ended.lock().extend(partition);
        self.markers.notify.notify_one();
    }
}

/// The work of the marker task: partitions of coordinators to ask, and transactions under way.
#[derive(Debug, Default)]
pub(super) struct Markers {
    pub(super) ended: Mutex<BTreeSet<i32>>,
    pub(super) notify: Notify,
    /// Transactions whose markers are being written, and those that this coordinator has given up.
    pub(super) begun: Mutex<BTreeMap<Key, Begun>>,
    /// The number of open transactions and the start of the oldest, by partition of
    /// `__transaction_state`, at the last request to its coordinator.
    pub(super) open: Mutex<BTreeMap<i32, (usize, Option<i64>)>>,
    /// Transactions that timed out, and for which a producer id is being fetched.
    pub(super) timing_out: Mutex<BTreeSet<String>>,
}

/// The end of a transaction under one epoch of its coordinator.
pub(super) type Key = (String, Producer, LeaderEpoch);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// The partition of `__transaction_state`.
    pub(super) partition: i32,
    /// A newer epoch has ended the transaction, so this coordinator writes no more of its markers.
    pub(super) is_given_up: bool,
}

impl Markers {
    fn open(&self) -> (usize, Option<i64>) {
        let open = self.open.lock();
        let count = open.values().map(|(count, _)| count).sum();
        (count, open.values().filter_map(|(_, oldest_ms)| *oldest_ms).min())
    }
}
