//! Replication quotas (KIP-73, `ReplicationQuotaManager` in Apache Kafka): how many bytes a second
//! this broker sends to followers, or fetches from leaders, for throttled replicas.
//!
//! All traffic of throttled replicas counts, but only replicas outside the ISR wait. So a quota
//! never pushes a follower out of the ISR. Both sides of a fetch call this; it never waits itself.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use weir_protocol::types::BrokerId;

/// The length of a sample, and the number of samples (`replication.quota.window.size.seconds` and
/// `replication.quota.window.num` in Apache Kafka, at their defaults).
const WINDOW_MS: u64 = 1_000;
const WINDOWS: u64 = 11;

/// The quota of one direction. Times are milliseconds on a monotonic clock.
#[derive(Debug)]
pub(crate) struct Quota {
    /// Bytes a second.
    limit: AtomicU64,
    samples: Mutex<Samples>,
}

impl Default for Quota {
    fn default() -> Self {
        Self { limit: AtomicU64::new(u64::MAX), samples: Mutex::default() }
    }
}

impl Quota {
    /// Changes the limit, in bytes a second; `u64::MAX` means none.
    pub(super) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Counts bytes that were sent or fetched.
    pub(crate) fn record(&self, bytes: usize, now: u64) {
        self.samples.lock().record(bytes as u64, now);
    }

    /// `None` below the limit; else the time at which to check again.
    pub(crate) fn exceeded_until(&self, now: u64) -> Option<u64> {
        match self.limit.load(Ordering::Relaxed) {
            u64::MAX => None,
            limit => self.samples.lock().exceeded_until(limit, now),
        }
    }
}

/// The recent samples, oldest first: the start of each, and its bytes.
#[derive(Debug, Default)]
struct Samples(VecDeque<(u64, u64)>);

impl Samples {
    fn record(&mut self, bytes: u64, now: u64) {
        self.forget(now);
        match self.0.back_mut() {
            Some((begin, sum)) if *begin + WINDOW_MS > now => *sum += bytes,
            _ => self.0.push_back((now, bytes)),
        }
    }

    fn forget(&mut self, now: u64) {
        while self.0.front().is_some_and(|(begin, _)| begin + WINDOW_MS * WINDOWS <= now) {
            self.0.pop_front();
        }
    }

    /// `Rate.measure`: the rate is taken over at least [`WINDOWS`] - 1 samples, as if no bytes had
    /// been sent before the first one.
    fn exceeded_until(&mut self, limit: u64, now: u64) -> Option<u64> {
        self.forget(now);
        let (begin, _) = *self.0.front()?;
        let total: u64 = self.0.iter().map(|(_, bytes)| bytes).sum();
        let elapsed = (now - begin).max(WINDOW_MS * (WINDOWS - 1));
        let exceeds = u128::from(total) * 1_000 > u128::from(limit) * u128::from(elapsed);
        // The rate falls below the limit when enough time passes, or when the oldest sample
        // expires.
        exceeds.then(|| {
            let goes = begin + WINDOW_MS * WINDOWS;
            let enough = total
                .saturating_mul(1_000)
                .checked_div(limit)
                .map_or(goes, |ms| begin.saturating_add(ms));
            enough.min(goes).max(now + 1)
        })
    }
}

/// Whether `leader.replication.throttled.replicas` or `follower.replication.throttled.replicas` of
/// a topic names this replica: `*`, or `partition:broker` pairs.
pub(super) fn names_replica(setting: &str, partition: i32, broker: BrokerId) -> bool {
    let is_this = |pair: &str| {
        let (index, id) = pair.split_once(':')?;
        Some(index.trim().parse() == Ok(partition) && id.trim().parse() == Ok(broker.0))
    };
    setting.trim() == "*" || setting.split(',').any(|pair| is_this(pair) == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_named_by_its_pair_or_with_all() {
        for (setting, named) in [
            ("", false),
            ("*", true),
            ("0:1", false),
            ("0:1, 3:7", true),
            ("3:8,7:3", false),
            ("x,3:7", true),
        ] {
            assert_eq!(names_replica(setting, 3, BrokerId(7)), named, "{setting}");
        }
    }

    #[test]
    fn the_rate_is_that_of_the_last_ten_seconds() {
        let quota = Quota::default();
        quota.record(1_000_000, 0);
        assert_eq!(quota.exceeded_until(0), None, "there is no limit yet");
        quota.set_limit(1_000);
        assert_eq!(
            quota.exceeded_until(0),
            Some(11_000),
            "the sample goes before the rate is right"
        );
        assert_eq!(quota.exceeded_until(10_999), Some(11_000));
        assert_eq!(quota.exceeded_until(11_000), None);
        quota.record(10_000, 20_000);
        assert_eq!(quota.exceeded_until(20_000), None, "ten seconds' worth at once");
        quota.record(500, 20_500);
        assert_eq!(
            quota.exceeded_until(20_500),
            Some(30_500),
            "and then as much as the rate allows"
        );
        assert_eq!(quota.exceeded_until(30_500), None);
        quota.set_limit(0);
        assert_eq!(quota.exceeded_until(30_500), Some(31_000));
    }

    #[test]
    fn what_is_sent_as_soon_as_it_may_be_keeps_to_the_rate() {
        let quota = Quota::default();
        quota.set_limit(5_000);
        let (mut now, mut sent) = (0, 0);
        while now < 100_000 {
            match quota.exceeded_until(now) {
                Some(at) => now = at,
                None => {
                    quota.record(1_000, now);
                    sent += 1_000;
                }
            }
        }
        assert!((450_000..=600_000).contains(&sent), "{sent} bytes in 100 s");
    }
}
