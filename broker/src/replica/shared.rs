//! What all partitions of this broker share: who the other brokers are, what time it is, what the
//! controller is to be asked for, and which partitions time does something to.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use weir_protocol::types::{BrokerEpoch, BrokerId, TopicPartition};

use super::assignments::Assignments;
use super::core::follower::FETCH_BACKOFF_MS;
use super::core::{Asked, Peer, Proposal};
use super::lost::Lost;
use super::settings::Settings;
use super::throttle::Quota;
use super::traffic::Traffic;
use crate::metadata::MetadataImage;

/// How often partitions are looked at that time does something to: a lagging follower is found no
/// later than this.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// Shared by all partitions, which are `P`: nothing here knows what those do.
#[derive(Debug)]
pub(crate) struct Shared<P> {
    /// This broker.
    pub(crate) own: BrokerId,
    started: Instant,
    peers: ArcSwap<BTreeMap<BrokerId, Peer>>,
    lag_ms_max: AtomicU64,
    fetch_backoff_ms: AtomicU64,
    /// What is sent to followers for throttled replicas, and what is fetched from leaders for them.
    pub(crate) leader_quota: Quota,
    pub(crate) follower_quota: Quota,
    proposals: Queue<(Arc<P>, Proposal)>,
    /// What the process before asked for, where this one goes on with its roles.
    asked: ArcSwap<HashMap<TopicPartition, Asked>>,
    checks: Queue<Arc<P>>,
    /// What is fetched from whom.
    pub(super) assignments: Assignments<P>,
    /// Leaders that no fetch reaches any more.
    pub(super) lost: Lost,
    /// What goes in and out, by topic.
    pub(crate) traffic: Traffic,
    /// How often the ISRs of leaders here changed.
    pub(crate) isr_changes: IsrChanges,
}

/// How often ISRs became smaller, and larger (`IsrShrinksPerSec`, `IsrExpandsPerSec`).
#[derive(Debug, Default)]
pub(crate) struct IsrChanges {
    shrinks: AtomicU64,
    expansions: AtomicU64,
}

impl IsrChanges {
    /// The ISR of a partition had so many members before, and has so many now.
    pub(super) fn count(&self, before: usize, after: usize) {
        match after.cmp(&before) {
            std::cmp::Ordering::Less => _ = self.shrinks.fetch_add(1, Ordering::Relaxed),
            std::cmp::Ordering::Greater => _ = self.expansions.fetch_add(1, Ordering::Relaxed),
            std::cmp::Ordering::Equal => {}
        }
    }

    /// Smaller, and larger, since the broker started.
    pub(crate) fn counted(&self) -> (u64, u64) {
        (self.shrinks.load(Ordering::Relaxed), self.expansions.load(Ordering::Relaxed))
    }
}

/// What waits for somebody who takes all of it at once.
#[derive(Debug)]
struct Queue<T> {
    waiting: Mutex<Vec<T>>,
    notify: Notify,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), notify: Notify::new() }
    }
}

impl<T> Queue<T> {
    fn push(&self, item: T) {
        self.waiting.lock().push(item);
        self.notify.notify_one();
    }

    async fn take(&self) -> Vec<T> {
        loop {
            let waiting = std::mem::take(&mut *self.waiting.lock());
            if !waiting.is_empty() {
                return waiting;
            }
            self.notify.notified().await;
        }
    }
}

impl<P> Shared<P> {
    pub(crate) fn new(own: BrokerId) -> Self {
        Self {
            own,
            started: Instant::now(),
            peers: ArcSwap::default(),
            lag_ms_max: AtomicU64::new(30_000),
            fetch_backoff_ms: AtomicU64::new(FETCH_BACKOFF_MS),
            leader_quota: Quota::default(),
            follower_quota: Quota::default(),
            proposals: Queue::default(),
            asked: ArcSwap::default(),
            checks: Queue::default(),
            assignments: Assignments::default(),
            lost: Lost::default(),
            traffic: Traffic::default(),
            isr_changes: IsrChanges::default(),
        }
    }

    /// Milliseconds on a clock that never goes back.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes up what the metadata says of the brokers, and the broker's settings.
    pub(super) fn take_up(&self, image: &MetadataImage, settings: &Settings) {
        let peers: BTreeMap<_, _> = image
            .brokers
            .iter()
            .map(|(id, broker)| {
                let peer = Peer {
                    epoch: broker.epoch,
                    fenced: broker.fenced,
                    shutting_down: broker.shutting_down,
                };
                (*id, peer)
            })
            .collect();
        self.peers.store(Arc::new(peers));
        self.lag_ms_max.store(settings.lag_ms_max, Ordering::Relaxed);
        self.fetch_backoff_ms.store(settings.fetch_backoff_ms, Ordering::Relaxed);
        self.leader_quota.set_limit(settings.throttled_rates.0);
        self.follower_quota.set_limit(settings.throttled_rates.1);
    }

    /// What the metadata says of a broker.
    pub(crate) fn peer(&self, id: BrokerId) -> Option<Peer> {
        self.peers.load().get(&id).copied()
    }

    /// The epoch of this broker's registration, -1 when it has none.
    pub(super) fn own_epoch(&self) -> BrokerEpoch {
        self.peer(self.own).map_or(BrokerEpoch(-1), |own| own.epoch)
    }

    pub(super) fn lag_ms_max(&self) -> u64 {
        self.lag_ms_max.load(Ordering::Relaxed)
    }

    pub(super) fn fetch_backoff_ms(&self) -> u64 {
        self.fetch_backoff_ms.load(Ordering::Relaxed)
    }

    pub(super) fn propose(&self, partition: Arc<P>, proposal: Proposal) {
        self.proposals.push((partition, proposal));
    }

    /// Has the leaderships that begin from now on wait for whom a former process of this broker
    /// asked for.
    pub(super) fn set_asked(&self, asked: HashMap<TopicPartition, Asked>) {
        self.asked.store(Arc::new(asked));
    }

    /// What a former process of this broker asked for.
    pub(super) fn asked(&self, id: TopicPartition) -> Option<Asked> {
        self.asked.load().get(&id).cloned()
    }

    /// The ISRs that leaders here want to have, all that wait; waits for one.
    pub(crate) async fn proposals(&self) -> Vec<(Arc<P>, Proposal)> {
        self.proposals.take().await
    }

    /// Has a partition looked at until time does nothing to it any more.
    pub(super) fn check_from_now_on(&self, partition: Arc<P>) {
        self.checks.push(partition);
    }

    /// Looks at the partitions that time does something to, with `check`, which says whether it
    /// still does: those with followers that lack something. There are none while nothing is
    /// written.
    pub(super) async fn keep_checking(&self, check: impl Fn(&Arc<P>) -> bool) {
        let mut checked = Vec::new();
        loop {
            if checked.is_empty() {
                checked = self.checks.take().await;
            } else {
                checked.append(&mut self.checks.waiting.lock());
            }
            tokio::time::sleep(CHECK_EVERY).await;
            checked.retain(|partition| check(partition));
        }
    }
}
