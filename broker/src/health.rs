//! The broker's health pages, from its first moment on. First they show the progress of log
//! recovery, then the state of the broker.
//!
//! Recovery may take any time, and the pages show its progress. A recovery without progress for
//! [`STUCK_AFTER`] makes the process unhealthy, so that Kubernetes restarts it.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::info;
use weir_telemetry::pages::Probes;

use crate::api::Services;
use crate::config::STRAYS;
use crate::metrics::{self, PartitionReadings, Readings, RecoveryReadings};
use crate::replica::now_ms;
use weir_log::{self as log, Recovered, Recovery};

/// How often the progress of recovery is logged.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// How long recovery may make no progress. Its last step is a sync, and a file system may take
/// minutes for that.
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// The source of the pages.
pub(crate) struct Health {
    data: PathBuf,
    recovery: Recovery,
    pace: Mutex<Pace>,
    /// The logs are open, and the cluster has no tables yet.
    awaits_tables: AtomicBool,
    /// Set once the logs are open.
    services: OnceLock<Arc<Services>>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("recovery", &self.recovery).finish_non_exhaustive()
    }
}

impl Health {
    pub(crate) fn new(data: &Path) -> Arc<Self> {
        Arc::new(Self {
            data: data.to_owned(),
            recovery: Recovery::default(),
            pace: Mutex::new(Pace::new(Instant::now())),
            awaits_tables: AtomicBool::new(false),
            services: OnceLock::new(),
        })
    }

    /// The counters of the recovery.
    pub(crate) fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Sets whether this process waits for the cluster's tables. The controller and the other
    /// brokers provide them, however long that takes.
    pub(crate) fn awaits_tables(&self, awaits: bool) {
        self.awaits_tables.store(awaits, Ordering::Relaxed);
        *self.pace.lock() = Pace::new(Instant::now());
    }

    /// Called when the logs are open and the broker is built.
    pub(crate) fn opened(&self, services: &Arc<Services>) {
        let _ = self.services.set(Arc::clone(services));
    }

    /// Logs the progress of recovery at a fixed interval.
    pub(crate) async fn keep_saying(&self) -> Infallible {
        loop {
            tokio::time::sleep(SAID_EVERY).await;
            let now = self.recovery.now();
            if self.is_opening() && now.logs > 0 {
                let seconds_without_progress =
                    self.pace.lock().observe(now, Instant::now()).as_secs();
                let Recovered { logs, logs_done, bytes, bytes_done, .. } = now;
                info!(
                    logs_done,
                    logs, bytes_done, bytes, seconds_without_progress, "recovers its logs"
                );
            }
        }
    }

    /// Returns whether the log directory is being opened.
    fn is_opening(&self) -> bool {
        self.services.get().is_none() && !self.awaits_tables.load(Ordering::Relaxed)
    }

    /// Returns the reasons to restart the process.
    fn stuck(&self, now: Instant) -> Vec<String> {
        if !self.is_opening() {
            return Vec::new();
        }
        let recovered = self.recovery.now();
        let since = self.pace.lock().observe(recovered, now);
        if since < STUCK_AFTER {
            return Vec::new();
        }
        vec![format!("{}; it has not got on for {} s", recovers(recovered), since.as_secs())]
    }

    fn not_ready(&self) -> Vec<String> {
        match self.services.get() {
            Some(services) => not_ready(services),
            None if self.is_opening() => vec![recovers(self.recovery.now())],
            None => vec!["the cluster has no tables yet: this broker has said what is on its volume, or is about to".to_owned()],
        }
    }

    fn metrics(&self) -> String {
        let recovered = self.recovery.now();
        let recovery = RecoveryReadings {
            logs: recovered.logs,
            logs_done: recovered.logs_done,
            bytes: recovered.bytes,
            bytes_done: recovered.bytes_done,
        };
        match self.services.get() {
            Some(services) => {
                let readings = Readings { recovery, ..readings(services) };
                services.metrics.render(readings, partition_readings(services))
            }
            None => metrics::render_recovery(recovery),
        }
    }
}

/// The pages of a broker.
pub(crate) fn probes(health: &Arc<Health>) -> Probes {
    let [metrics, not_ready, stuck] = [(); 3].map(|()| Arc::clone(health));
    let root = health.data.clone();
    Probes {
        metrics: Box::new(move || metrics.metrics()),
        not_ready: Box::new(move || not_ready.not_ready()),
        stuck: Box::new(move || stuck.stuck(Instant::now())),
        from_disk: Some((STRAYS, Arc::new(move || listed(&root)))),
    }
}

/// The operator searches for these words and shows them (`RECOVERS` there).
fn recovers(recovered: Recovered) -> String {
    let Recovered { logs, logs_done, bytes, bytes_done, .. } = recovered;
    if logs == 0 {
        return "opens its log directory".to_owned();
    }
    format!("recovers its logs: {logs_done} of {logs}, {} of {} MiB", bytes_done >> 20, bytes >> 20)
}

/// The last observed progress of a recovery, and when it was first seen.
#[derive(Debug)]
struct Pace {
    seen: Recovered,
    at: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { seen: Recovered::default(), at: now }
    }

    /// Returns how long there has been no progress.
    fn observe(&mut self, recovered: Recovered, now: Instant) -> Duration {
        if recovered != self.seen {
            *self = Self { seen: recovered, at: now };
        }
        now.saturating_duration_since(self.at)
    }
}

/// Lists the logs that were set aside, one in each line.
fn listed(root: &Path) -> std::io::Result<String> {
    let strays = log::strays(root)?;
    Ok(strays.iter().map(|stray| format!("{stray}\n")).collect())
}

fn readings(services: &Services) -> Readings {
    let standing = *services.controller.standing().borrow();
    let (partitions, partitions_led) = services.replicas.count();
    let (transactions_open, oldest_ms) = services.transaction_io.open();
    let oldest_ms = oldest_ms.map_or(0, |began_ms| now_ms().saturating_sub(began_ms));
    Readings {
        partitions,
        partitions_led,
        controller_connected: standing.connected,
        fenced: standing.fenced,
        log_dir_online: services.replicas.log_dir().failure().is_none(),
        metadata_version: services.metadata.load().version,
        fetch_sessions: services.fetch_sessions.size().0,
        request_memory_bytes: services.request_memory.used_bytes(),
        answer_memory_bytes: services.answer_memory.used_bytes(),
        transactions_open,
        kept: services.kept(),
        coordinator_offsets_left_out: services.groups.left_out() + services.transactions.left_out(),
        transaction_oldest_seconds: u64::try_from(oldest_ms / 1_000).unwrap_or(0),
        ..Readings::default()
    }
}

fn partition_readings(services: &Services) -> PartitionReadings {
    let shared = services.replicas.shared();
    let (isr_shrinks, isr_expansions) = shared.isr_changes.counted();
    PartitionReadings {
        partitions_max: services.config.metrics_partitions_max,
        topics: shared.traffic.counted(),
        partitions: services.replicas.all().iter().map(|partition| partition.observed()).collect(),
        isr_shrinks,
        isr_expansions,
    }
}

/// Returns the reasons not to send clients to this broker. A missing controller is none, because
/// the broker continues to serve.
fn not_ready(services: &Services) -> Vec<String> {
    let mut reasons = Vec::new();
    let standing = *services.controller.standing().borrow();
    if standing.broker_epoch.is_none() {
        reasons.push("not registered with the controller yet".to_owned());
    } else if services.metadata.load().version == 0 {
        reasons.push("no metadata from the controller yet".to_owned());
    } else if standing.connected && standing.fenced {
        reasons.push("the controller counts this broker as fenced".to_owned());
    }
    if let Some(failure) = services.replicas.log_dir().failure() {
        reasons.push(format!("the log directory is offline: {failure}"));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_tables_is_not_stuck_however_long() {
        let health = Health::new(Path::new("nowhere"));
        let much_later = || Instant::now() + 10 * STUCK_AFTER;
        assert_eq!(health.stuck(much_later()).len(), 1);
        health.awaits_tables(true);
        assert_eq!(health.stuck(much_later()), Vec::<String>::new());
        assert!(health.not_ready()[0].starts_with("the cluster has no tables yet"));
        // The log directory that it opens next gets its own time.
        health.awaits_tables(false);
        assert_eq!(health.stuck(Instant::now() + STUCK_AFTER / 2), Vec::<String>::new());
        assert_eq!(health.stuck(much_later()).len(), 1);
    }

    #[test]
    fn a_recovery_that_gets_on_is_never_stuck() {
        let health = Health::new(Path::new("/data"));
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let said = |seconds| health.stuck(at(seconds)).concat();
        assert_eq!(health.not_ready(), ["opens its log directory"]);
        health.recovery.begins(1200);
        health.recovery.has(3 << 30);
        // An hour of slow progress, checked every two minutes.
        for minute in (2..60).step_by(2) {
            health.recovery.checked(1 << 20);
            assert_eq!(said(minute * 60), "");
        }
        assert_eq!(health.not_ready(), ["recovers its logs: 0 of 1200, 29 of 3072 MiB"]);
        let last = 58 * 60;
        assert_eq!(said(last + 299), "");
        assert_eq!(
            said(last + 300),
            "recovers its logs: 0 of 1200, 29 of 3072 MiB; it has not got on for 300 s"
        );
        // Any progress makes it healthy again.
        health.recovery.recovered_log();
        assert_eq!(said(last + 310), "");
        health.recovery.steps();
        assert_eq!(said(last + 610), "");
        assert!(!said(last + 910).is_empty());
    }

    #[test]
    fn how_far_recovery_is_can_be_measured() {
        let health = Health::new(Path::new("/data"));
        health.recovery.begins(7);
        health.recovery.has(100);
        health.recovery.checked(40);
        health.recovery.recovered_log();
        let text = health.metrics();
        for line in [
            "weir_broker_recovery_logs 7",
            "weir_broker_recovery_logs_done 1",
            "weir_broker_recovery_bytes 100",
            "weir_broker_recovery_bytes_done 40",
            "# EOF",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is missing in\n{text}");
        }
        // Nothing else is known yet, and alerts must not fire on defaults.
        assert!(
            !text.contains("log_dir_online") && !text.contains("controller_connected"),
            "{text}"
        );
    }
}
