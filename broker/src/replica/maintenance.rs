//! What a log needs from time to time, whoever uses it: retention, compaction, expiry of producers,
//! checkpoints.
//!
//! One thread for the whole broker, at a pace that the configuration sets, and one for checkpoints,
//! which must not wait for a compaction. What changes a log goes through its writer, like
//! everything else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, error, warn};

use super::cleaning::Cleaning;
use super::{Partition, Replicas, now_ms};

/// How often the log directory is checkpointed: recovery after a crash reads at most what was
/// written since. Each takes two rounds of flushes at most.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);

/// How often the thread looks at what is due.
const TICK: Duration = Duration::from_millis(500);

/// Its pace and its bounds, looked up each time.
#[derive(Clone, Copy, Debug)]
pub struct MaintenanceSettings {
    /// `log.retention.check.interval.ms`
    pub retention_check_interval: Duration,
    /// `log.cleaner.backoff.ms`
    pub cleaner_backoff: Duration,
    /// `log.cleaner.dedupe.buffer.size`, as far as the process has the memory
    pub cleaner_dedupe_bytes: u64,
}

/// The threads.
#[derive(Debug)]
pub struct Maintenance {
    stop: watch::Sender<bool>,
    threads: [std::thread::JoinHandle<()>; 2],
}

impl Maintenance {
    /// Starts them.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        replicas: Arc<Replicas>,
        settings: impl Fn() -> MaintenanceSettings + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let named = |name: &str| std::thread::Builder::new().name(name.into());
        let (handle, other, stopped_too) =
            (tokio::runtime::Handle::current(), Arc::clone(&replicas), stopped.clone());
        let checkpoints =
            named("checkpoints").spawn(move || handle.block_on(checkpoint(&other, stopped_too)))?;
        let handle = tokio::runtime::Handle::current();
        let maintenance = named("maintenance")
            .spawn(move || handle.block_on(run(&replicas, settings, stopped)))?;
        Ok(Self { stop, threads: [checkpoints, maintenance] })
    }

    /// Ends them after what they are doing.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for thread in self.threads {
            if let Ok(Err(_)) = tokio::task::spawn_blocking(move || thread.join()).await {
                warn!("a maintenance thread ended in a panic");
            }
        }
    }
}

/// When something was last done.
struct Due {
    retention: Instant,
    cleaning: Instant,
}

async fn run(
    replicas: &Replicas,
    settings: impl Fn() -> MaintenanceSettings,
    mut stop: watch::Receiver<bool>,
) {
    let start = Instant::now();
    let mut due = Due { retention: start, cleaning: start };
    let mut cleaning = Cleaning::default();
    while tokio::time::timeout(TICK, stop.wait_for(|&stop| stop)).await.is_err() {
        let now = Instant::now();
        let settings = settings();
        replicas.log_dir().empty_trash();
        if now.duration_since(due.retention) >= settings.retention_check_interval {
            due.retention = now;
            for partition in replicas.all() {
                retain(&partition).await;
            }
        }
        if now.duration_since(due.cleaning) >= settings.cleaner_backoff {
            due.cleaning = now;
            cleaning.clean_dirtiest(&replicas.all(), settings.cleaner_dedupe_bytes).await;
        }
    }
}

/// Checkpoints the log directory at its pace, counted from the beginning of the one before.
async fn checkpoint(replicas: &Replicas, mut stop: watch::Receiver<bool>) {
    let mut next = tokio::time::Instant::now() + CHECKPOINT_EVERY;
    while tokio::time::timeout_at(next, stop.wait_for(|&stop| stop)).await.is_err() {
        next = tokio::time::Instant::now() + CHECKPOINT_EVERY;
        if replicas.log_dir().failure().is_none()
            && let Err(error) = replicas.log_dir().checkpoint()
        {
            warn!(%error, "cannot write a checkpoint");
        }
    }
}

/// Deletes what a partition need not keep any longer, and forgets producers that are gone.
async fn retain(partition: &Arc<Partition>) {
    let work = partition.with_writer(|writer| {
        let now = now_ms();
        writer.expire_producers(now);
        writer.roll_if_old(now)?;
        writer.apply_retention(now)
    });
    match work.await {
        Ok(Ok(0)) | Err(_) => {}
        Ok(Ok(segments)) => {
            debug!(topic = %partition.topic(), partition = partition.id().index, segments, "deleted old segments")
        }
        Ok(Err(error)) => {
            error!(topic = %partition.topic(), partition = partition.id().index, %error, "cannot delete old segments")
        }
    }
}
