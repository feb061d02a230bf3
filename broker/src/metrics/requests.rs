//! Requests by API: how many, how many failed, and where their time went, as in Kafka's
//! `RequestMetrics`.
//!
//! A request's time has four phases, one after the other:
//! - `queue`: it waits for its memory, and from its last byte until it is handled.
//! - `work`: it is handled, until it is answered or has to wait.
//! - `wait`: it waits for others: for followers and the disk (Produce), for records (Fetch), for
//!   members of a group, for the controller.
//! - `send`: from its answer until that has left for the socket, behind earlier answers and at the
//!   pace of its client.
//!
//! A fetch is called by who fetches, as in Kafka: `FetchConsumer` or `FetchFollower`.
//!
//! Every request counts in each phase, with zero where it spent no time. Threads count in different
//! places, so that none waits for a cache line of another.

use std::array;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use weir_protocol::api::ApiKey;

use super::latency::Latency;

const APIS: usize = ApiKey::ALL.len();

/// Where an API's counts are, by its key: no search on the way of a request.
const SLOTS: [u8; SLOTS_LEN] = {
    let mut slots = [0; SLOTS_LEN];
    let mut at = 0;
    while at < APIS {
        slots[ApiKey::ALL[at] as usize] = at as u8;
        at += 1;
    }
    slots
};

/// One more than the largest key, which is the last.
const SLOTS_LEN: usize = ApiKey::ALL[APIS - 1] as usize + 1;

/// The slot of followers' fetches, behind those of the APIs. The slot of Fetch has those of
/// consumers.
const FETCH_FOLLOWER: u8 = APIS as u8;

/// The values of the label `phase`.
const PHASES: [&str; 4] = ["queue", "work", "wait", "send"];

/// The places in which threads count. The threads of connections have one each, up to this many.
const SHARDS: usize = 16;

/// What a request is called in metrics: its API, and for a fetch who fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestName(u8);

impl RequestName {
    /// A fetch of a follower. Every other fetch is a consumer's.
    pub(crate) const FETCH_FOLLOWER: Self = Self(FETCH_FOLLOWER);

    /// The name of a request of this API.
    pub(crate) const fn of(api: ApiKey) -> Self {
        Self(SLOTS[api as usize])
    }

    /// The name as in Kafka, which tells apart who fetches.
    fn label(self) -> &'static str {
        match ApiKey::ALL.get(usize::from(self.0)) {
            Some(ApiKey::Fetch) => "FetchConsumer",
            Some(api) => api.name(),
            None => "FetchFollower",
        }
    }
}

/// The times of one request, once it is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    name: RequestName,
    /// Whether it is known how long the request waited.
    is_split: bool,
    queue_ns: u64,
    work_ns: u64,
    wait_ns: u64,
    answered: Instant,
}

impl Timing {
    /// A request is answered now that waited for `queue` and was `started` then. All the time since
    /// counts as its work.
    pub(crate) fn answered(name: RequestName, queue: Duration, started: Instant) -> Self {
        let answered = Instant::now();
        let work_ns = ns(answered.saturating_duration_since(started));
        Self { name, is_split: false, queue_ns: ns(queue), work_ns, wait_ns: 0, answered }
    }

    /// When it was answered.
    #[cfg(test)]
    pub(super) fn answered_at(&self) -> Instant {
        self.answered
    }

    /// The queue, the work and the wait.
    #[cfg(test)]
    pub(crate) fn phases(&self) -> [Duration; 3] {
        [self.queue_ns, self.work_ns, self.wait_ns].map(Duration::from_nanos)
    }

    /// It has waited for others since then.
    pub(crate) fn waited_since(&mut self, since: Instant) {
        if std::mem::replace(&mut self.is_split, true) {
            return;
        }
        self.wait_ns = ns(self.answered.saturating_duration_since(since)).min(self.work_ns);
        self.work_ns -= self.wait_ns;
    }

    /// From `asked` on it waited until another thread `began` with it, which was `busy` with it for
    /// so long.
    pub(crate) fn handled_aside(&mut self, asked: Instant, began: Instant, busy: Duration) {
        self.waited_since(asked);
        let queued = ns(began.saturating_duration_since(asked)).min(self.wait_ns);
        let busy = ns(busy).min(self.wait_ns - queued);
        self.queue_ns += queued;
        self.work_ns += busy;
        self.wait_ns -= queued + busy;
    }
}

/// Longer than any request takes, for the rest.
fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 8).min(u64::MAX / 8)
}

/// The counts of one request's name, from cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counts {
    answered: AtomicU64,
    errors: AtomicU64,
    total: Latency,
    phases: [Latency; PHASES.len()],
}

impl Counts {
    fn add(&self, other: &Self) {
        self.answered.fetch_add(other.answered.load(Ordering::Relaxed), Ordering::Relaxed);
        self.errors.fetch_add(other.errors.load(Ordering::Relaxed), Ordering::Relaxed);
        self.total.add(&other.total);
        for (phase, other) in self.phases.iter().zip(&other.phases) {
            phase.add(other);
        }
    }
}

/// The counts of some threads. A name takes memory once it is counted.
#[derive(Debug)]
struct Shard([OnceLock<Box<Counts>>; APIS + 1]);

/// The counts of all requests.
#[derive(Debug)]
pub(super) struct Requests {
    shards: [Shard; SHARDS],
}

impl Default for Requests {
    fn default() -> Self {
        Self { shards: array::from_fn(|_| Shard(array::from_fn(|_| OnceLock::new()))) }
    }
}

impl Requests {
    /// A request was answered.
    pub(super) fn answered(&self, name: RequestName, failed: bool) {
        let Some(counts) = self.mine(name) else { return };
        counts.answered.fetch_add(1, Ordering::Relaxed);
        if failed {
            counts.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The answer of a request has left.
    pub(super) fn left(&self, timing: &Timing, now: Instant) {
        let Some(counts) = self.mine(timing.name) else { return };
        let send_ns = ns(now.saturating_duration_since(timing.answered));
        let phases = [timing.queue_ns, timing.work_ns, timing.wait_ns, send_ns];
        counts.total.observe_ns(phases.iter().sum());
        for (latency, phase_ns) in counts.phases.iter().zip(phases) {
            latency.observe_ns(phase_ns);
        }
    }

    /// The counts of this thread.
    fn mine(&self, name: RequestName) -> Option<&Counts> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
        }
        let shard = self.shards.get(MINE.with(|mine| *mine))?;
        Some(shard.0.get(usize::from(name.0))?.get_or_init(Box::default))
    }

    /// The counts of all threads; `None` if there are none.
    fn of(&self, name: RequestName) -> Option<Counts> {
        let counted =
            self.shards.iter().filter_map(|shard| shard.0.get(usize::from(name.0))?.get());
        counted.fold(None, |sum, counts| {
            let sum = sum.unwrap_or_default();
            sum.add(counts);
            Some(sum)
        })
    }
}

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let names = || (0..=FETCH_FOLLOWER).map(RequestName);
        let counts: Vec<(&str, Option<Counts>)> =
            names().map(|name| (name.label(), self.of(name))).collect();
        type Of = fn(&Counts) -> &AtomicU64;
        let counters: [(&str, &str, Of); 2] = [
            ("requests", "Requests answered, by API.", |counts| &counts.answered),
            ("request_errors", "Requests whose answer carries an error, by API.", |counts| {
                &counts.errors
            }),
        ];
        for (name, help, of) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (api, counts) in &counts {
                let count = counts.as_ref().map_or(0, |counts| of(counts).load(Ordering::Relaxed));
                family
                    .encode_family(&[("api", *api)])?
                    .encode_counter::<NoLabelSet, _, f64>(&count, None)?;
            }
        }
        // Only of those that there were: a broker is asked for a dozen of all APIs.
        let counts = || counts.iter().filter_map(|(api, counts)| Some((*api, counts.as_ref()?)));
        let help = "From a request's last byte until its answer has left, by API, with the wait for its memory.";
        let name = "request_duration_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (api, counts) in counts() {
            counts.total.encode(family.encode_family(&[("api", api)])?)?;
        }
        let help = "Where that time goes: a request is in the queue, is worked on, waits for others, and its answer is sent.";
        let name = "request_phase_duration_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (api, counts) in counts() {
            for (phase, latency) in PHASES.into_iter().zip(&counts.phases) {
                latency.encode(family.encode_family(&[("api", api), ("phase", phase)])?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The times of a request in milliseconds, which was answered `total` after its start.
    fn answered(total: u32) -> (Timing, Instant) {
        let started = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let timing = Timing {
            name: RequestName::of(ApiKey::Produce),
            is_split: false,
            queue_ns: ns(2 * MS),
            work_ns: ns(total * MS),
            wait_ns: 0,
            answered: started + total * MS,
        };
        (timing, started)
    }

    fn phases(timing: &Timing) -> [u128; 3] {
        timing.phases().map(|phase| phase.as_millis())
    }

    #[test]
    fn the_phases_of_a_request_follow_one_another() {
        let (at_once, _) = answered(7);
        assert_eq!(phases(&at_once), [2, 7, 0]);
        let (mut waited, started) = answered(7);
        waited.waited_since(started + 3 * MS);
        assert_eq!(phases(&waited), [2, 3, 4]);
        waited.waited_since(started);
        assert_eq!(phases(&waited), [2, 3, 4], "who knows it first has said it");
        // A thread is 1 ms at work before it hands the request over, and another one takes it up
        // 4 ms later.
        let (mut aside, started) = answered(20);
        aside.handled_aside(started + MS, started + 5 * MS, 9 * MS);
        assert_eq!(phases(&aside), [6, 10, 6]);
        aside.waited_since(started + MS);
        assert_eq!(phases(&aside), [6, 10, 6]);
        // The last poll ends after the answer.
        let (mut long, started) = answered(5);
        long.handled_aside(started, started + MS, 9 * MS);
        assert_eq!(phases(&long), [3, 4, 0]);
        let (mut backwards, started) = answered(5);
        backwards.waited_since(started + 9 * MS);
        assert_eq!(phases(&backwards), [2, 5, 0]);
    }

    #[test]
    fn all_threads_are_counted_and_fetches_by_who_fetches() {
        let requests = Requests::default();
        let (mut timing, started) = answered(7);
        std::thread::scope(|scope| {
            for name in [RequestName::of(ApiKey::Fetch), RequestName::FETCH_FOLLOWER] {
                for _ in 0..SHARDS + 1 {
                    timing.name = name;
                    let requests = &requests;
                    scope.spawn(move || {
                        requests.answered(name, name == RequestName::FETCH_FOLLOWER);
                        requests.left(&timing, started + 10 * MS);
                    });
                }
            }
        });
        let counted = |name| {
            let counts = requests.of(name).unwrap();
            assert!(counts.phases.iter().all(|phase| phase.count() == counts.total.count()));
            (counts.answered.into_inner(), counts.errors.into_inner(), counts.total.count())
        };
        let threads = SHARDS as u64 + 1;
        assert_eq!(counted(RequestName::of(ApiKey::Fetch)), (threads, 0, threads));
        assert_eq!(counted(RequestName::FETCH_FOLLOWER), (threads, threads, threads));
        assert!(requests.of(RequestName::of(ApiKey::Produce)).is_none());
    }
}
