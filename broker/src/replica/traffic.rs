//! What goes in and out of each topic on this broker, for its metrics.
//!
//! A partition has its topic's counts at hand, so that nothing is looked up on the way of a record.
//! Topics have names that clients choose: only so many are counted each by itself, all others
//! together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// What went in and out of the partitions of a topic that this broker leads, and what consumers
/// read from it as a follower (`BrokerTopicMetrics`).
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

/// What was counted of a topic up to now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// The topic; `None` for all that are not counted by themselves.
    pub(crate) topic: Option<Arc<str>>,
    pub(crate) appended_records: u64,
    pub(crate) appended_bytes: u64,
    /// To consumers, not to followers.
    pub(crate) fetched_bytes: u64,
    /// Of one partition each, as all that follow.
    pub(crate) produces: u64,
    pub(crate) failed_produces: u64,
    pub(crate) fetches: u64,
    pub(crate) failed_fetches: u64,
}

impl TopicTraffic {
    /// Records were appended as a leader.
    pub(super) fn appended(&self, records: u64, bytes: usize) {
        self.appended_records.fetch_add(records, Ordering::Relaxed);
        self.appended_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Records are on their way to a consumer.
    pub(crate) fn fetched(&self, bytes: usize) {
        self.fetched_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A client produces to a partition.
    pub(crate) fn produces(&self) {
        self.produces.fetch_add(1, Ordering::Relaxed);
    }

    /// What a client produced to a partition was refused, or not acknowledged in time.
    pub(crate) fn produce_failed(&self) {
        self.failed_produces.fetch_add(1, Ordering::Relaxed);
    }

    /// A client fetches from a partition.
    pub(crate) fn fetches(&self) {
        self.fetches.fetch_add(1, Ordering::Relaxed);
    }

    /// The fetch from a partition is answered with an error.
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

/// The counts of all topics that this broker has partitions of.
#[derive(Debug)]
pub(crate) struct Traffic {
    topics_max: AtomicUsize,
    topics: Mutex<BTreeMap<Arc<str>, Arc<TopicTraffic>>>,
    others: Arc<TopicTraffic>,
}

/// How many topics are counted by themselves, unless the command line says another number.
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
    /// From now on so many topics are counted by themselves.
    pub(crate) fn bound(&self, topics_max: usize) {
        self.topics_max.store(topics_max, Ordering::Relaxed);
    }

    /// The counts for a partition of this topic, which the partition keeps.
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

    /// All counts, by topic, those of the others last. Topics that this broker has no partition of
    /// any more are forgotten.
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
        // A topic that is gone makes room for another one, which begins at nothing.
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
