//! The queue of fetch assignments. A partition sends one with each new role, and the fetchers'
//! thread receives it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use weir_protocol::types::{BrokerId, LeaderEpoch};

/// A partition, and the leader that this broker fetches it from from now on.
#[derive(Debug)]
pub(super) struct Assignment<P> {
    pub(super) partition: Arc<P>,
    /// The leader and its epoch; `None` when the partition is not fetched.
    pub(super) from: Option<(BrokerId, LeaderEpoch)>,
}

/// The channel of assignments, and its receiver until the fetchers' thread takes it.
#[derive(Debug)]
pub(super) struct Assignments<P> {
    sender: mpsc::UnboundedSender<Assignment<P>>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Assignment<P>>>>,
}

impl<P> Default for Assignments<P> {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

impl<P> Assignments<P> {
    /// Sends the new assignment of a partition. The queue holds at most one per change of a role.
    pub(super) fn assign(&self, partition: &Arc<P>, from: Option<(BrokerId, LeaderEpoch)>) {
        // The send fails only when the fetchers' thread has ended, because the broker stops.
        let _ = self.sender.send(Assignment { partition: Arc::clone(partition), from });
    }

    /// The receiver; the first caller gets it, every later caller `None`.
    pub(super) fn take(&self) -> Option<mpsc::UnboundedReceiver<Assignment<P>>> {
        self.receiver.lock().take()
    }
}
