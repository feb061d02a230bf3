//! What the broker's pages show, from its first moment on: how far the recovery of its logs is
//! while nothing else is there yet, and then how it does.
//!
//! Recovery takes as long as it takes, and whoever waits for it sees it get on. One that does not
//! get on for [`STUCK_AFTER`] makes the process unhealthy, so that Kubernetes starts it anew.

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
use crate::log::{self, Recovered, Recovery};
use crate::metrics::{self, PartitionReadings, Readings, RecoveryReadings};
use crate::replica::now_ms;

/// How often it is logged how far recovery is.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// How long recovery may show no progress. A file system may take minutes to write what it has in
/// memory, which comes last.
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// What the pages are made of.
pub(crate) struct Health {
    data: PathBuf,
    recovery: Recovery,
    pace: Mutex<Pace>,
    /// The logs are there, and the cluster has no tables yet.
    awaits_tables: AtomicBool,
    /// Once the logs are there.
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

    /// Where recovery says how far it is.
    pub(crate) fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Whether it is the cluster's tables that this process waits for: others bring those about,
    /// however long it takes them.
    pub(crate) fn awaits_tables(&self, awaits: bool) {
        self.awaits_tables.store(awaits, Ordering::Relaxed);
        *self.pace.lock() = Pace::new(Instant::now());
    }

    /// The logs are there, and the broker with them.
    pub(crate) fn opened(&self, services: &Arc<Services>) {
        let _ = self.services.set(Arc::clone(services));
    }

    /// Logs how far recovery is, at a fixed pace, as long as it takes.
    pub(crate) async fn keep_saying(&self) -> Infallible {
        loop {
            tokio::time::sleep(SAID_EVERY).await;
            let now = self.recovery.now();
            if self.is_opening() && now.logs > 0 {
                let seconds_without_progress = self.pace.lock().look(now, Instant::now()).as_secs();
                let Recovered { logs, logs_done, bytes, bytes_done, .. } = now;
                info!(
                    logs_done,
                    logs, bytes_done, bytes, seconds_without_progress, "recovers its logs"
                );
            }
        }
    }

    /// Whether the log directory is being opened.
    fn is_opening(&self) -> bool {
        self.services.get().is_none() && !self.awaits_tables.load(Ordering::Relaxed)
    }

    /// Why the process should be started anew.
    fn stuck(&self, now: Instant) -> Vec<String> {
        if !self.is_opening() {
            return Vec::new();
        }
        let recovered = self.recovery.now();
        let since = self.pace.lock().look(recovered, now);
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

/// In the words that the operator looks for, and shows (`RECOVERS` there).
fn recovers(recovered: Recovered) -> String {
    let Recovered { logs, logs_done, bytes, bytes_done, .. } = recovered;
    if logs == 0 {
        return "opens its log directory".to_owned();
    }
    format!("recovers its logs: {logs_done} of {logs}, {} of {} MiB", bytes_done >> 20, bytes >> 20)
}

/// Since when a recovery has not got on, as far as somebody looked.
#[derive(Debug)]
struct Pace {
    seen: Recovered,
    at: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { seen: Recovered::default(), at: now }
    }

    /// How long it has not got on.
    fn look(&mut self, recovered: Recovered, now: Instant) -> Duration {
        if recovered != self.seen {
            *self = Self { seen: recovered, at: now };
        }
        now.saturating_duration_since(self.at)
    }
}

/// The logs that were set aside, a line each.
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

/// Why the broker should not be sent clients. That the controller is away is no reason: it serves
/// on.
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
        // What it opens then has its time.
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
        // An hour of little by little, a look every two minutes.
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
        // What gets on again is well again, whatever it is that gets on.
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
        // Nothing else is known yet, and alerts go by what is said.
        assert!(
            !text.contains("log_dir_online") && !text.contains("controller_connected"),
            "{text}"
        );
    }
}
