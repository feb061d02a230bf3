//! The followers' side of replication: what this broker follows is fetched from its leaders.
//!
//! One thread for all of it, one task and one connection for each broker that leads something that
//! is followed here. Which partition is fetched from whom comes from `replica`, with each new
//! image; what a fetch asks for and what is done with its answer is decided by the partition. An
//! answer that comes when its partition has another leader or epoch already is recognised by the
//! epoch, so that nothing has to be waited for when leaders change.

mod connection;
mod context;
mod flush;
mod inbox;
mod session;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::{error, warn};
use weir_protocol::types::{BrokerId, TopicPartition};

pub(crate) use self::connection::Connection;
pub use self::context::FetcherContext;
#[cfg(test)]
pub(super) use self::flush::wait_for_flush;
use self::inbox::{Inbox, Told};
use self::session::Session;
use super::Partition;
use super::assignments::Assignment;

/// The thread.
#[derive(Debug)]
pub struct Fetchers {
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

impl Fetchers {
    /// Starts it. There is one.
    ///
    /// # Errors
    /// When it cannot be started.
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

    /// Ends it: nothing is appended by it any more.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let thread = self.thread;
        if let Ok(Err(_)) = tokio::task::spawn_blocking(move || thread.join()).await {
            warn!("the fetchers' thread ended in a panic");
        }
    }
}

/// Hands each assignment to the task of its leader, and takes the partition from the one before.
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
                    // What it followed would stay behind for ever, and nobody would know.
                    error!(%error, "a fetcher ended in a panic");
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
            inbox.tell(Told::Leave(id));
        }
        let Some((leader, epoch)) = from else { continue };
        homes.insert(id, leader);
        let inbox = leaders.entry(leader).or_insert_with(|| {
            let inbox = Arc::new(Inbox::default());
            tasks.spawn(Session::new(Arc::clone(context), leader, Arc::clone(&inbox)).run());
            inbox
        });
        inbox.tell(Told::Fetch(partition, epoch));
    }
}
