//! What is counted against the quotas of one key, by bucket (`ClientQuotaManager`).

use std::collections::BTreeMap;

use super::limit::{Bucket, Limit};
use super::rate::{Rate, Windows};

/// The share of a thread that so much time takes in a second, in percent: the unit of
/// `request_percentage`.
pub fn percentage(nanoseconds: u64) -> f64 {
    nanoseconds as f64 * 100.0 / 1_000_000_000.0
}

/// The rates of all buckets. A bucket that nothing is left of is forgotten: clients can invent
/// client ids without end.
#[derive(Debug)]
pub struct Limiter {
    windows: Windows,
    /// The longest throttle, in milliseconds. Kafka has one for `request_percentage` alone: a
    /// window.
    throttle_ms_max: u64,
    rates: BTreeMap<Bucket, Rate>,
    /// When the buckets are looked through again: at so many of them.
    swept_at: usize,
}

/// How many buckets there may be before they are looked through for the first time.
const BUCKETS_UNSWEPT: usize = 1_000;

impl Limiter {
    /// A limiter of bytes a second, whose throttles have no bound.
    pub fn of_bytes(windows: Windows) -> Self {
        let throttle_ms_max = u64::MAX;
        Self { windows, throttle_ms_max, rates: BTreeMap::new(), swept_at: BUCKETS_UNSWEPT }
    }

    /// A limiter of `request_percentage`, whose throttles last at most one window.
    pub fn of_requests(windows: Windows) -> Self {
        Self { throttle_ms_max: windows.length_ms, ..Self::of_bytes(windows) }
    }

    /// Counts `value`, and returns how long to throttle the client, in milliseconds.
    pub fn record(&mut self, limit: &Limit, value: f64, now_ms: u64) -> u64 {
        let (windows, max) = (self.windows, self.throttle_ms_max);
        let rate = self.rate(&limit.bucket, now_ms);
        rate.record(windows, value, now_ms);
        rate.throttle_ms(windows, limit.rate, now_ms).min(max)
    }

    /// Counts `value` without throttling: what is known only after the answer has gone.
    pub fn record_only(&mut self, limit: &Limit, value: f64, now_ms: u64) {
        let windows = self.windows;
        self.rate(&limit.bucket, now_ms).record(windows, value, now_ms);
    }

    /// Takes back `value`: a fetch that is throttled is answered without records.
    pub fn take_back(&mut self, limit: &Limit, value: f64, now_ms: u64) {
        self.record_only(limit, -value, now_ms);
    }

    /// How many buckets are counted.
    pub fn buckets(&self) -> usize {
        self.rates.len()
    }

    fn rate(&mut self, bucket: &Bucket, now_ms: u64) -> &mut Rate {
        if self.rates.len() >= self.swept_at {
            let windows = self.windows;
            self.rates.retain(|_, rate| !rate.is_idle(windows, now_ms));
            self.swept_at = BUCKETS_UNSWEPT.max(2 * self.rates.len());
        }
        self.rates.entry(bucket.clone()).or_default()
    }
}
