//! What the work on transactions holds: the parts of the broker that it uses, and how far it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use weir_protocol::types::{BrokerId, LeaderEpoch};

use super::peers::Peers;
use crate::controller_client::Controller;
use crate::coordinator::{Coordinator, Machine, partition_in};
use crate::group::Groups;
use crate::metadata::Metadata;
use crate::metrics::Metrics;
use crate::replica::Replicas;
use crate::transaction::{Producer, Transactions};

/// Asks other brokers what transactions need of them, and has the ends of transactions written. One
/// per process.
#[derive(Debug)]
pub(crate) struct TransactionIo {
    /// This broker.
    pub(super) id: BrokerId,
    pub(super) metadata: Arc<Metadata>,
    pub(super) replicas: Arc<Replicas>,
    /// For the producer ids with which transactions go on whose epochs are used up.
    pub(super) controller: Arc<Controller>,
    pub(super) groups: Arc<Coordinator<Groups>>,
    pub(super) transactions: Arc<Coordinator<Transactions>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) peers: Peers,
    pub(super) markers: Markers,
}

impl TransactionIo {
    /// Nothing under way. `listener` is the one on which brokers find each other;
    /// [`TransactionIo::run`] has the ends of transactions written.
    pub(crate) fn new(
        (id, listener): (BrokerId, String),
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
            peers: Peers::new(listener, Arc::clone(metadata)),
            markers: Markers::default(),
        }
    }

    /// How many transactions are open that this broker coordinates, and when the oldest of them
    /// began, in milliseconds since 1970.
    pub(crate) fn open(&self) -> (usize, Option<i64>) {
        self.markers.open()
    }

    /// A transaction of this id was ended, or aborted by whoever comes after its producer.
    pub(crate) fn ended(&self, id: &str) {
        let partition = partition_in(&self.metadata.load(), Transactions::TOPIC, id);
        self.markers.ended.lock().extend(partition);
        self.markers.notify.notify_one();
    }
}

/// What the task is to look at, and what it has begun.
#[derive(Debug, Default)]
pub(super) struct Markers {
    pub(super) ended: Mutex<BTreeSet<i32>>,
    pub(super) notify: Notify,
    /// Transactions whose markers are being written, and those of which nothing more is to be
    /// written.
    pub(super) begun: Mutex<BTreeMap<Key, Begun>>,
    /// How many transactions are open and when the oldest began, by partition of
    /// `__transaction_state`, as they were when somebody looked.
    pub(super) open: Mutex<BTreeMap<i32, (usize, Option<i64>)>>,
    /// Transactions that took too long, for which a producer id is being fetched.
    pub(super) timing_out: Mutex<BTreeSet<String>>,
}

/// The end of a transaction, as one coordinator has it written.
pub(super) type Key = (String, Producer, LeaderEpoch);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// Of `__transaction_state`.
    pub(super) partition: i32,
    /// Somebody newer has ended it: this coordinator writes nothing more of it.
    pub(super) is_given_up: bool,
}

impl Markers {
    fn open(&self) -> (usize, Option<i64>) {
        let open = self.open.lock();
        let count = open.values().map(|(count, _)| count).sum();
        (count, open.values().filter_map(|(_, oldest_ms)| *oldest_ms).min())
    }
}
