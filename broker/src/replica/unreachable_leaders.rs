//! Leaders to which this broker has just lost its connection.
//!
//! A follower notices the death of its leader at the same moment as the leader's clients, well
//! before the controller elects another. Without this, a client that asks for the leader gets the
//! id of the dead broker. It asks again only when its timers expire (a second, for librdkafka). So
//! `api::metadata` delays the answer while the leader is listed here. A leader leaves the list when
//! a connection to it answers again, and after [`WAIT_MAX`] at the latest.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use weir_protocol::types::BrokerId;

/// The longest time that a request waits for the successor of a lost leader. The controller
/// replaces a killed broker in a few milliseconds. A broker whose connection broke is back or
/// fenced within 150.
const WAIT_MAX: Duration = Duration::from_millis(300);

/// The lost leaders, and until when each is listed.
#[derive(Debug, Default)]
pub(crate) struct UnreachableLeaders {
    until: Mutex<BTreeMap<BrokerId, Instant>>,
    changed: Notify,
}

impl UnreachableLeaders {
    /// Records that the connection to a leader broke.
    pub(crate) fn lose(&self, leader: BrokerId) {
        self.until.lock().insert(leader, Instant::now() + WAIT_MAX);
        self.changed.notify_waiters();
    }

    /// Records that a leader answers again.
    pub(crate) fn find(&self, leader: BrokerId) {
        if self.until.lock().remove(&leader).is_some() {
            self.changed.notify_waiters();
        }
    }

    /// The time until which to wait for a successor of the lost leaders for which `leads` is true;
    /// `None` when there is none.
    pub(crate) fn wait_until(&self, leads: impl Fn(BrokerId) -> bool) -> Option<Instant> {
        let mut lost = self.until.lock();
        if lost.is_empty() {
            return None;
        }
        let now = Instant::now();
        lost.retain(|_, until| *until > now);
        lost.iter().filter(|(leader, _)| leads(**leader)).map(|(_, until)| *until).max()
    }

    /// Completes when a leader is lost or found after this call.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_lost_until_it_is_found_or_time_is_up() {
        let lost = UnreachableLeaders::default();
        let is_lost = |id: i32| lost.wait_until(|leader| leader == BrokerId(id)).is_some();
        assert!(!is_lost(1));
        lost.lose(BrokerId(1));
        lost.lose(BrokerId(2));
        assert!(is_lost(1) && is_lost(2) && !is_lost(3));
        lost.find(BrokerId(1));
        assert!(!is_lost(1) && is_lost(2));
        lost.until.lock().insert(BrokerId(2), Instant::now());
        assert!(!is_lost(2));
    }
}
