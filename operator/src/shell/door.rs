//! What the shell takes from outside its mailbox: the time, and the arrival of brokers' calls.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weir_protocol::types::BrokerId;

use crate::controller::Moment;
use crate::controller::sessions::{StreamId, Timestamp};
use crate::time;

/// A monotonic clock and the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) started: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { now: self.now(), ..moment() }
    }

    pub(super) async fn sleep_until(&self, at: Option<Timestamp>) {
        match at {
            Some(at) => {
                tokio::time::sleep(Duration::from_millis(at.0.saturating_sub(self.now().0))).await
            }
            None => std::future::pending().await,
        }
    }
}

/// The wall-clock moment of decisions without a controller.
pub fn moment() -> Moment {
    Moment {
        now: Timestamp::default(),
        wall: time::now(),
        seed: uuid::Uuid::new_v4().as_u128(),
        given: BTreeMap::new(),
    }
}

/// The recent arrivals of brokers' calls. A broker whose call has arrived is alive, even if earlier
/// calls take long to decide.
#[derive(Debug)]
pub(super) struct Door {
    clock: Clock,
    heard: Mutex<BTreeMap<BrokerId, (StreamId, Timestamp)>>,
}

impl Door {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, heard: Mutex::default() }
    }

    pub(super) fn note(&self, broker: BrokerId, stream: StreamId) {
        let now = self.clock.now();
        self.heard().insert(broker, (stream, now));
    }

    pub(super) fn take(&self) -> BTreeMap<BrokerId, (StreamId, Timestamp)> {
        std::mem::take(&mut *self.heard())
    }

    /// The map is valid after any panic: each change of it is one step.
    fn heard(&self) -> MutexGuard<'_, BTreeMap<BrokerId, (StreamId, Timestamp)>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
