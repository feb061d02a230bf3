//! Periodic work on the logs, independent of roles: retention, compaction, expiry of producers,
//! checkpoints.
//!
//! One thread serves the whole broker at the pace that the configuration sets. A second thread
//! writes checkpoints, which must not wait for a compaction. Every change of a log goes through its
//! writer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, error, warn};

use super::cleaning::Cleaning;
use super::{Partition, Replicas, now_ms};

/// The interval of checkpoints: recovery after a crash reads at most what was written since the
/// last one. A checkpoint takes at most two rounds of flushes.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);

/// How often the thread checks which work is due.
const TICK: Duration = Duration::from_millis(500);

/// The pace and the bounds of maintenance, read again on every tick.
#[derive(Clone, Copy, Debug)]
pub struct MaintenanceSettings {
    /// `log.retention.check.interval.ms`
    pub retention_check_interval: Duration,
    /// `log.cleaner.backoff.ms`
    pub cleaner_backoff: Duration,
    /// `log.cleaner.dedupe.buffer.size`, bounded by the memory of the process
    pub cleaner_dedupe_bytes: u64,
}

/// The two threads.
#[derive(Debug)]
pub struct Maintenance {
    stop: watch::Sender<bool>,
    threads: [std::thread::JoinHandle<()>; 2],
}

impl Maintenance {
    /// Starts the threads.
    ///
    /// # Errors
    /// The I/O error when a thread cannot be started.
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

    /// Stops the threads after their current work.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for thread in self.threads {
            if let Ok(Err(_)) = tokio::task::spawn_blocking(move || thread.join()).await {
                warn!("a maintenance thread ended in a panic");
            }
        }
    }
}

/// When each kind of work was last done.
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

/// Writes a checkpoint of the log directory every [`CHECKPOINT_EVERY`], measured from the start of
/// the previous one.
async fn checkpoint(replicas: &Replicas, mut stop: watch::Receiver<bool>) {
    let mut next = tokio::time::Instant::now() + CHECKPOINT_EVERY;
    while tokio::time::timeout_at(next, stop.wait_for(|&stop| stop)).await.is_err() {
        next = tokio::time::Instant::now() + CHECKPOINT_EVERY;
        if replicas.log_dir().failure().is_none()
            && let Err(error) = replicas.log_dir().checkpoint()
        {
            warn!(%error, "cannot write a checkpoint; it is tried again, and until then recovery after a crash has more to read");
        }
    }
}

/// Deletes the segments that retention releases, and the state of expired producers.
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
            error!(topic = %partition.topic(), partition = partition.id().index, %error, "cannot delete old segments; it is tried again at the next check")
        }
    }
}
