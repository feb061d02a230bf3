//! The timers of a coordinator's partitions, and the turns of a thread in a partition's executor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use weir_protocol::types::BrokerId;

use super::shard::{Job, Shard, ShardContext};
use super::state_machine::{Now, StateMachine};
use crate::metadata::{Metadata, MetadataImage};
use crate::replica::{self, Backlog, run_backlog_later};

/// The state that all partitions of a coordinator's topic share.
pub(super) struct Agenda {
    /// This broker's id.
    id: BrokerId,
    metadata: Arc<Metadata>,
    started: Instant,
    /// The time of the next timer of each partition.
    due: Mutex<BTreeMap<i32, u64>>,
    /// Notified when a timer becomes earlier.
    earlier: Notify,
}

impl Agenda {
    pub(super) fn new(id: BrokerId, metadata: Arc<Metadata>) -> Self {
        Self {
            id,
            metadata,
            started: Instant::now(),
            due: Mutex::default(),
            earlier: Notify::new(),
        }
    }

    fn now(&self) -> Now {
        Now {
            ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            wall_ms: replica::now_ms(),
        }
    }

    /// Queues a job for a partition's shard. A task takes over the jobs that remain after this
    /// thread's turn.
    pub(super) fn submit<M: StateMachine>(
        self: &Arc<Self>,
        partition: i32,
        shard: &Arc<Shard<M>>,
        job: Job<M>,
    ) {
        let is_due = |at| self.set_due(partition, at);
        let image = self.metadata.load();
        if shard.submit(job, self.surroundings(&image), is_due) == Backlog::Jobs {
            let (agenda, shard) = (Arc::clone(self), Arc::clone(shard));
            run_backlog_later(move || {
                let image = agenda.metadata.load();
                let is_due = |at| agenda.set_due(partition, at);
                shard.run_backlog(agenda.surroundings(&image), is_due)
            });
        }
    }

    fn surroundings<'a>(&self, image: &'a Arc<MetadataImage>) -> ShardContext<'a> {
        ShardContext { now: self.now(), image, broker: self.id }
    }

    fn set_due(&self, partition: i32, at: u64) {
        let mut due = self.due.lock();
        let known = due.insert(partition, at);
        if known.is_none_or(|known| at < known) {
            self.earlier.notify_one();
        }
    }

    /// The partitions whose timers are due now. Removes their timers.
    pub(super) fn due(&self) -> Vec<i32> {
        let now = self.now().ms;
        let mut due = self.due.lock();
        let partitions: Vec<i32> =
            due.iter().filter(|(_, at)| **at <= now).map(|(partition, _)| *partition).collect();
        due.retain(|_, at| *at > now);
        partitions
    }

    /// Waits until a timer is due, or becomes earlier.
    pub(super) async fn is_due(&self) {
        let next = self.due.lock().values().min().copied();
        let due = async {
            match next {
                Some(at) => {
                    let in_ms = at.saturating_sub(self.now().ms).max(1);
                    tokio::time::sleep(Duration::from_millis(in_ms)).await
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = self.earlier.notified() => {}
        }
    }
}
