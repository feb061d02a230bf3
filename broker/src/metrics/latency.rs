//! A histogram of durations that takes no lock: the library's own does, once per observation, and
//! every request is observed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// The buckets' upper bounds: from what a produce takes in memory to the longest poll.
const BOUNDS: [Duration; 16] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// The same in nanoseconds.
const BOUNDS_NS: [u64; BOUNDS.len()] = {
    let mut bounds = [0; BOUNDS.len()];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = BOUNDS[at].as_nanos() as u64;
        at += 1;
    }
    bounds
};

/// How long something takes. A reader may see an observation in a bucket before it is in the sum.
#[derive(Debug, Default)]
pub(super) struct Latency {
    counts: [AtomicU64; BOUNDS.len()],
    beyond: AtomicU64,
    sum_ns: AtomicU64,
}

impl Latency {
    /// It took so long this time.
    pub(super) fn observe(&self, elapsed: Duration) {
        self.observe_ns(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The same in nanoseconds.
    pub(super) fn observe_ns(&self, elapsed_ns: u64) {
        // Most of what is measured is short.
        let at = BOUNDS_NS.iter().position(|bound| elapsed_ns <= *bound);
        let count = at.and_then(|at| self.counts.get(at)).unwrap_or(&self.beyond);
        count.fetch_add(1, Ordering::Relaxed);
        if elapsed_ns > 0 {
            // Wraps after 584 years of latency.
            self.sum_ns.fetch_add(elapsed_ns, Ordering::Relaxed);
        }
    }

    /// Adds what `other` has observed.
    pub(super) fn add(&self, other: &Self) {
        let sums = self.counts.iter().chain([&self.beyond, &self.sum_ns]);
        for (sum, other) in sums.zip(other.counts.iter().chain([&other.beyond, &other.sum_ns])) {
            sum.fetch_add(other.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// How often it was observed.
    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().chain([&self.beyond]).map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl EncodeMetric for Latency {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let beyond = (f64::INFINITY, self.beyond.load(Ordering::Relaxed));
        let bounded = BOUNDS
            .iter()
            .zip(&self.counts)
            .map(|(bound, count)| (bound.as_secs_f64(), count.load(Ordering::Relaxed)));
        let buckets: Vec<(f64, u64)> = bounded.chain([beyond]).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// The same histogram for the one who observes and for the registry.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedLatency(pub(super) Arc<Latency>);

impl EncodeMetric for SharedLatency {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.0.metric_type()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_is_in_the_bucket_that_bounds_it() {
        let latency = Latency::default();
        for elapsed in [
            Duration::ZERO,
            BOUNDS[0],
            BOUNDS[0] + Duration::from_nanos(1),
            BOUNDS[15],
            Duration::MAX,
        ] {
            latency.observe(elapsed);
        }
        let counts: Vec<u64> =
            latency.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(
            (counts[0], counts[1], counts[15], latency.beyond.load(Ordering::Relaxed)),
            (2, 1, 1, 1)
        );
        assert_eq!(latency.count(), 5);
        let sum = Latency::default();
        sum.add(&latency);
        sum.add(&latency);
        assert_eq!((sum.count(), sum.counts[0].load(Ordering::Relaxed)), (10, 4));
        assert!(BOUNDS.is_sorted());
    }
}
