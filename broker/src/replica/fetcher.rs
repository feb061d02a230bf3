//! The follower's side of replication: fetches from their leaders the partitions that this broker
//! follows.
//!
//! One thread runs everything, with one task and one connection for each leader. `replica` says
//! with each new image which partition is fetched from which leader. The partition decides what a
//! fetch requests and what to do with the answer. An answer can arrive after its partition has
//! changed its leader or epoch. The epoch identifies such an answer, so a change of leaders waits
//! for no fetch.

mod context;
mod flush;
mod inbox;
mod leader;
mod offsets;
mod session;
mod silence;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::{Instrument as _, debug_span, error, warn};
use weir_protocol::types::{BrokerId, TopicPartition};

pub use self::context::FetcherContext;
#[cfg(test)]
pub(super) use self::flush::wait_for_flush;
use self::inbox::{Inbox, Told};
use self::session::Session;
use super::Partition;
use super::assignments::Assignment;

/// The fetchers' thread.
#[derive(Debug)]
pub struct Fetchers {
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

impl Fetchers {
    /// Starts the thread. There is one per broker.
    ///
    /// # Errors
    /// The I/O error when the runtime or the thread cannot be started.
    pub fn start(context: FetcherContext) -> std::io::Result<Self> {
        let (stop, mut stopped) = watch::channel(false);
        let assignments = context.replicas.shared().assignments.take();
        let context = Arc::new(context);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("fetchers".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = run(&context, assignments) => {}
                    _ = stopped.wait_for(|&stop| stop) => {}
                }
            });
        })?;
        Ok(Self { stop, thread })
    }

    /// Stops the thread and waits for it. It appends nothing afterwards.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let thread = self.thread;
        if let Ok(Err(_)) = tokio::task::spawn_blocking(move || thread.join()).await {
            warn!("the fetchers' thread ended in a panic; the broker stops on");
        }
    }
}

/// Gives each assignment to the task of its leader, and removes the partition from the previous
/// task.
async fn run(
    context: &Arc<FetcherContext>,
    assignments: Option<mpsc::UnboundedReceiver<Assignment<Partition>>>,
) {
    let Some(mut assignments) = assignments else { return };
    let mut leaders: HashMap<BrokerId, Arc<Inbox>> = HashMap::new();
    let mut homes: HashMap<TopicPartition, BrokerId> = HashMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let assignment = tokio::select! {
            assignment = assignments.recv() => assignment,
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended {
                    // Otherwise its partitions would lag for ever without any sign of it.
                    error!(%error, "a fetcher ended in a panic: the broker ends");
                    std::process::abort();
                }
                continue;
            }
        };
        let Some(Assignment { partition, from }) = assignment else { return };
        let id = partition.id();
        if let Some(before) = homes.remove(&id)
            && let Some(inbox) = leaders.get(&before)
        {
            inbox.deliver(Told::Leave(id));
        }
        let Some((leader, epoch)) = from else { continue };
        homes.insert(id, leader);
        let inbox = leaders.entry(leader).or_insert_with(|| {
            let inbox = Arc::new(Inbox::default());
            let session = Session::new(Arc::clone(context), leader, Arc::clone(&inbox));
            tasks.spawn(session.run().instrument(debug_span!("follower", leader = leader.0)));
            inbox
        });
        inbox.deliver(Told::Fetch(partition, epoch));
    }
}
