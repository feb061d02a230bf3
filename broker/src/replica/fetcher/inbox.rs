//! What the task of a leader is told.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use weir_protocol::types::{LeaderEpoch, TopicPartition};

use crate::replica::Partition;

/// What a leader's task is told.
#[derive(Debug)]
pub(super) enum Told {
    Fetch(Arc<Partition>, LeaderEpoch),
    Leave(TopicPartition),
}

/// A leader's task's inbox.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) told: Mutex<Vec<Told>>,
    pub(super) notify: Notify,
}

impl Inbox {
    pub(super) fn tell(&self, told: Told) {
        self.told.lock().push(told);
        self.notify.notify_one();
    }
}
