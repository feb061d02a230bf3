//! The state that all partitions of this broker share: the other brokers, a clock, the ISR
//! proposals for the controller, and the partitions that need periodic checks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use weir_protocol::types::{BrokerEpoch, BrokerId};

use super::assignments::Assignments;
use super::core::follower::FETCH_BACKOFF_MS;
use super::core::{Peer, Proposal};
use super::settings::Settings;
use super::throttle::Quota;
use super::traffic::Traffic;
use super::unreachable_leaders::UnreachableLeaders;
use crate::metadata::MetadataImage;

/// The interval of periodic checks: a lagging follower is found no later than this.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// Shared by all partitions. They are of type `P`, so nothing here depends on them.
#[derive(Debug)]
pub(crate) struct Shared<P> {
    /// The id of this broker.
    pub(crate) own: BrokerId,
    started: Instant,
    peers: ArcSwap<BTreeMap<BrokerId, Peer>>,
    lag_ms_max: AtomicU64,
    fetch_backoff_ms: AtomicU64,
    /// The quotas of bytes sent to followers, and fetched from leaders, for throttled replicas.
    pub(crate) leader_quota: Quota,
    pub(crate) follower_quota: Quota,
    proposals: Queue<(Arc<P>, Proposal)>,
    /// Whether the roles are those of the previous process, which no controller has confirmed.
    resumed: AtomicBool,
    checks: Queue<Arc<P>>,
    /// Which partition is fetched from which leader.
    pub(super) assignments: Assignments<P>,
    /// Leaders to which this broker has just lost its connection.
    pub(super) lost: UnreachableLeaders,
    /// Counters of produce and fetch, by topic.
    pub(crate) traffic: Traffic,
    /// Changes of the ISRs that this broker leads.
    pub(crate) isr_changes: IsrChanges,
}

/// How often ISRs shrank and expanded (`IsrShrinksPerSec`, `IsrExpandsPerSec`).
#[derive(Debug, Default)]
pub(crate) struct IsrChanges {
    shrinks: AtomicU64,
    expansions: AtomicU64,
}

impl IsrChanges {
    /// Counts a change of an ISR from `before` to `after` members, if the number differs.
    pub(super) fn count(&self, before: usize, after: usize) {
        match after.cmp(&before) {
            std::cmp::Ordering::Less => _ = self.shrinks.fetch_add(1, Ordering::Relaxed),
            std::cmp::Ordering::Greater => _ = self.expansions.fetch_add(1, Ordering::Relaxed),
            std::cmp::Ordering::Equal => {}
        }
    }

    /// Shrinks and expansions since the broker started.
    pub(crate) fn counted(&self) -> (u64, u64) {
        (self.shrinks.load(Ordering::Relaxed), self.expansions.load(Ordering::Relaxed))
    }
}

/// A queue whose consumer takes all items at once.
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
            resumed: AtomicBool::new(false),
            checks: Queue::default(),
            assignments: Assignments::default(),
            lost: UnreachableLeaders::default(),
            traffic: Traffic::default(),
            isr_changes: IsrChanges::default(),
        }
    }

    /// Milliseconds since the broker started, on a monotonic clock.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes up the brokers of the image, and this broker's settings.
    pub(super) fn apply(&self, image: &MetadataImage, settings: &Settings) {
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

    /// The metadata of a broker.
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

    /// The roles are those of the previous process. Leaderships that begin from now on count all
    /// replicas for the high watermark.
    pub(super) fn resume(&self) {
        self.resumed.store(true, Ordering::Release);
    }

    /// A controller has told this process its roles.
    pub(super) fn confirmed(&self) {
        self.resumed.store(false, Ordering::Release);
    }

    /// Whether no controller has confirmed the roles of the previous process yet.
    pub(super) fn is_resumed(&self) -> bool {
        self.resumed.load(Ordering::Acquire)
    }

    /// All queued ISR proposals of the leaders on this broker; waits for at least one.
    pub(crate) async fn proposals(&self) -> Vec<(Arc<P>, Proposal)> {
        self.proposals.take().await
    }

    /// Queues a partition for periodic checks, until it needs none.
    pub(super) fn check_from_now_on(&self, partition: Arc<P>) {
        self.checks.push(partition);
    }

    /// Runs `check` on the queued partitions every [`CHECK_EVERY`], until it returns false for
    /// them. A partition needs checks while a follower lacks records. There are none while nothing
    /// is written.
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
