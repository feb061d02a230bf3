//! What the shell is told outside of its mailbox: the time, and who has come to the door.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weir_protocol::types::BrokerId;

use crate::controller::Moment;
use crate::controller::sessions::{StreamId, Timestamp};
use crate::time;

/// The time: a clock that never goes back, and that of the day.
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

/// The time of day, for what is decided before there is a controller.
pub fn moment() -> Moment {
    Moment {
        now: Timestamp::default(),
        wall: time::now(),
        seed: uuid::Uuid::new_v4().as_u128(),
        given: BTreeMap::new(),
    }
}

/// Who has come to the door lately, and when: who is heard is alive, though its call waits behind
/// others that take long to decide.
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

    /// The map is whole after any panic: each change of it is one step.
    fn heard(&self) -> MutexGuard<'_, BTreeMap<BrokerId, (StreamId, Timestamp)>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
