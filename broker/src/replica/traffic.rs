//! Counters of produce and fetch for each topic on this broker, for its metrics.
//!
//! A partition holds the counters of its topic, so no record needs a lookup. Clients choose the
//! names of topics, so the number of topics with counters of their own is bounded. All others share
//! one set.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Counters of the partitions of a topic that this broker leads, and of what consumers read from it
/// as a follower (`BrokerTopicMetrics`).
#[derive(Debug, Default)]
pub(crate) struct TopicTraffic {
    appended_records: AtomicU64,
    appended_bytes: AtomicU64,
    fetched_bytes: AtomicU64,
    produces: AtomicU64,
    failed_produces: AtomicU64,
    fetches: AtomicU64,
    failed_fetches: AtomicU64,
}

/// The counters of a topic at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// The topic; `None` for all topics without counters of their own.
    pub(crate) topic: Option<Arc<str>>,
    pub(crate) appended_records: u64,
    pub(crate) appended_bytes: u64,
    /// Bytes sent to consumers, not to followers.
    pub(crate) fetched_bytes: u64,
    /// Counted per partition of a request, as the three below.
    pub(crate) produces: u64,
    pub(crate) failed_produces: u64,
    pub(crate) fetches: u64,
    pub(crate) failed_fetches: u64,
}

impl TopicTraffic {
    /// Counts records that this broker appended as the leader.
    pub(super) fn appended(&self, records: u64, bytes: usize) {
        self.appended_records.fetch_add(records, Ordering::Relaxed);
        self.appended_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes that are sent to a consumer.
    pub(crate) fn fetched(&self, bytes: usize) {
        self.fetched_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a client's produce to one partition.
    pub(crate) fn produces(&self) {
        self.produces.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a produce to one partition that was refused, or not acknowledged in time.
    pub(crate) fn produce_failed(&self) {
        self.failed_produces.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a client's fetch from one partition.
    pub(crate) fn fetches(&self) {
        self.fetches.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a fetch from one partition that is answered with an error.
    pub(crate) fn fetch_failed(&self) {
        self.failed_fetches.fetch_add(1, Ordering::Relaxed);
    }

    fn counted(&self, topic: Option<Arc<str>>) -> Counted {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counted {
            topic,
            appended_records: now(&self.appended_records),
            appended_bytes: now(&self.appended_bytes),
            fetched_bytes: now(&self.fetched_bytes),
            produces: now(&self.produces),
            failed_produces: now(&self.failed_produces),
            fetches: now(&self.fetches),
            failed_fetches: now(&self.failed_fetches),
        }
    }
}

/// The counters of all topics that have partitions on this broker.
#[derive(Debug)]
pub(crate) struct Traffic {
    topics_max: AtomicUsize,
    topics: Mutex<BTreeMap<Arc<str>, Arc<TopicTraffic>>>,
    others: Arc<TopicTraffic>,
}

/// The number of topics with counters of their own, unless the command line sets another.
pub(crate) const TOPICS_MAX: usize = 1_000;

impl Default for Traffic {
    fn default() -> Self {
        Self {
            topics_max: AtomicUsize::new(TOPICS_MAX),
            topics: Mutex::default(),
            others: Arc::default(),
        }
    }
}

impl Traffic {
    /// Sets the number of topics with counters of their own.
    pub(crate) fn bound(&self, topics_max: usize) {
        self.topics_max.store(topics_max, Ordering::Relaxed);
    }

    /// The counters for a partition of this topic. The partition holds them, which keeps them
    /// alive.
    pub(super) fn of(&self, topic: &Arc<str>) -> Arc<TopicTraffic> {
        let mut topics = self.topics.lock();
        if let Some(known) = topics.get(topic) {
            return Arc::clone(known);
        }
        if topics.len() >= self.topics_max.load(Ordering::Relaxed) {
            forget_unused(&mut topics);
        }
        if topics.len() >= self.topics_max.load(Ordering::Relaxed) {
            return Arc::clone(&self.others);
        }
        let new = Arc::<TopicTraffic>::default();
        topics.insert(Arc::clone(topic), Arc::clone(&new));
        new
    }

    /// All counters by topic, the shared ones last. Drops the counters of topics that have no
    /// partition on this broker any more.
    pub(crate) fn counted(&self) -> Vec<Counted> {
        let mut topics = self.topics.lock();
        forget_unused(&mut topics);
        let named = topics.iter().map(|(topic, traffic)| traffic.counted(Some(Arc::clone(topic))));
        named.chain([self.others.counted(None)]).collect()
    }
}

fn forget_unused(topics: &mut BTreeMap<Arc<str>, Arc<TopicTraffic>>) {
    topics.retain(|_, traffic| Arc::strong_count(traffic) > 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_topics_are_counted_by_themselves() {
        let traffic = Traffic::default();
        traffic.bound(2);
        let [a, b, c] = ["a", "b", "c"].map(Arc::<str>::from);
        let (of_a, of_b, of_c) = (traffic.of(&a), traffic.of(&b), traffic.of(&c));
        traffic.of(&a).appended(3, 100);
        of_b.fetched(7);
        of_c.produces();
        traffic.of(&Arc::from("d")).produces();
        let counted = traffic.counted();
        assert_eq!(
            counted.iter().map(|it| it.topic.as_deref()).collect::<Vec<_>>(),
            [Some("a"), Some("b"), None]
        );
        assert_eq!((counted[0].appended_records, counted[0].appended_bytes), (3, 100));
        assert_eq!((counted[1].fetched_bytes, counted[2].produces), (7, 2));
        // A topic without partitions makes room for another, whose counters begin at zero.
        drop(of_a);
        let of_e = traffic.of(&Arc::from("e"));
        of_e.fetch_failed();
        let counted = traffic.counted();
        assert_eq!(
            counted.iter().map(|it| it.topic.as_deref()).collect::<Vec<_>>(),
            [Some("b"), Some("e"), None]
        );
        assert_eq!(
            counted[1],
            Counted { topic: Some(Arc::from("e")), failed_fetches: 1, ..Counted::default() }
        );
    }
}
