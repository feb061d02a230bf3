//! Leaders that this broker has just lost touch with.
//!
//! A follower sees that its leader died at the same moment as the leader's clients do, and well
//! before the controller has elected another. Clients that ask who leads would be told the name of
//! the dead, believe it, and ask again only when their timers say so (a second, for librdkafka). So
//! `api::metadata` lets them wait while a leader is put down here. A leader is taken from here when
//! a connection to it is answered again, and a while after it was lost in any case.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use weir_protocol::types::BrokerId;

/// The longest time that anybody waits for a lost leader's successor. A broker that was killed is
/// replaced in a few milliseconds, one whose connection broke is back or fenced within 150.
const WAIT_MAX: Duration = Duration::from_millis(300);

/// The leaders, and until when.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    until: Mutex<BTreeMap<BrokerId, Instant>>,
    changed: Notify,
}

impl Lost {
    /// The connection to a leader broke.
    pub(crate) fn lose(&self, leader: BrokerId) {
        self.until.lock().insert(leader, Instant::now() + WAIT_MAX);
        self.changed.notify_waiters();
    }

    /// It answers.
    pub(crate) fn find(&self, leader: BrokerId) {
        if self.until.lock().remove(&leader).is_some() {
            self.changed.notify_waiters();
        }
    }

    /// Until when to wait for a successor of one of those that `leads` is true for; `None`: there
    /// is none among them.
    pub(crate) fn wait_until(&self, leads: impl Fn(BrokerId) -> bool) -> Option<Instant> {
        let mut lost = self.until.lock();
        if lost.is_empty() {
            return None;
        }
        let now = Instant::now();
        lost.retain(|_, until| *until > now);
        lost.iter().filter(|(leader, _)| leads(**leader)).map(|(_, until)| *until).max()
    }

    /// Ends when one is lost or found after this was called.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_lost_until_it_is_found_or_time_is_up() {
        let lost = Lost::default();
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
