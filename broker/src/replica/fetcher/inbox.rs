//! The messages to the task of a leader.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use weir_protocol::types::{LeaderEpoch, TopicPartition};

use crate::replica::Partition;

/// A message to the task of a leader: fetch a partition in an epoch, or stop fetching it.
#[derive(Debug)]
pub(super) enum Told {
    Fetch(Arc<Partition>, LeaderEpoch),
    Leave(TopicPartition),
}

/// The inbox of a leader's task.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) told: Mutex<Vec<Told>>,
    pub(super) notify: Notify,
}

impl Inbox {
    pub(super) fn deliver(&self, told: Told) {
        self.told.lock().push(told);
        self.notify.notify_one();
    }
}
