//! What is to be fetched from whom: brought here with each new role of a partition, and taken by
//! the fetchers' thread.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use weir_protocol::types::{BrokerId, LeaderEpoch};

/// Where a partition is to be fetched from now on.
#[derive(Debug)]
pub(super) struct Assignment<P> {
    pub(super) partition: Arc<P>,
    /// `None`: from nowhere.
    pub(super) from: Option<(BrokerId, LeaderEpoch)>,
}

/// Where assignments are brought to, and taken by the thread once it runs.
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
    /// Has a partition fetched from there from now on. There are never more of these than changes
    /// of roles.
    pub(super) fn assign(&self, partition: &Arc<P>, from: Option<(BrokerId, LeaderEpoch)>) {
        // Without the thread the broker is stopping.
        let _ = self.sender.send(Assignment { partition: Arc::clone(partition), from });
    }

    /// What is assigned; to whoever asks first.
    pub(super) fn take(&self) -> Option<mpsc::UnboundedReceiver<Assignment<P>>> {
        self.receiver.lock().take()
    }
}
