//! When a follower reports that it does not reach its leader.
//!
//! An election takes seconds and is no news. A follower that never reaches its leader, for instance
//! because it has no address of it, would otherwise lag for ever without a line in the log.

use std::time::{Duration, Instant};

/// How long a leader is silent before that is reported.
const REPORTED_AFTER: Duration = Duration::from_secs(10);

/// The time between two reports.
const REPEATED_AFTER: Duration = Duration::from_secs(60);

/// How long a leader has been silent, and when that was reported.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: Option<Instant>,
    reported: Option<Instant>,
}

impl Silence {
    /// An attempt to fetch failed. Returns how long the leader has been silent if that is to be
    /// reported now.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Duration> {
        let silent = now.duration_since(*self.since.get_or_insert(now));
        let is_due = match self.reported {
            None => silent >= REPORTED_AFTER,
            Some(reported) => now.duration_since(reported) >= REPEATED_AFTER,
        };
        is_due.then(|| {
            self.reported = Some(now);
            silent
        })
    }

    /// The leader has answered, or nothing is fetched from it any more.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_leader_is_reported_after_ten_seconds_and_each_minute() {
        let start = Instant::now();
        let mut silence = Silence::default();
        let mut reported = Vec::new();
        let mut fail = |silence: &mut Silence, second: u64| {
            if let Some(silent) = silence.failed(start + Duration::from_secs(second)) {
                reported.push((second, silent.as_secs()));
            }
        };
        for second in 0..=130 {
            fail(&mut silence, second);
        }
        silence.end();
        for second in 131..=141 {
            fail(&mut silence, second);
        }
        assert_eq!(reported, [(10, 10), (70, 70), (130, 130), (141, 10)]);
    }
}
