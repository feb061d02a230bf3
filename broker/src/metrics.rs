//! The counters of a broker, for Prometheus.
//!
//! Every part of the broker counts here, and the metrics page shows the counts. A request does no
//! lookup, lock or allocation for them: each count is an atomic at a fixed place. Values that other
//! parts have already (partitions, sessions, memory) are not counted again. They are read when
//! Prometheus scrapes, as [`Readings`]. The counting methods are private to this crate, so that the
//! compiler finds a counter without callers. Labels come from closed sets, never from a client's
//! input.

mod kept;
mod latency;
mod partitions;
mod recovery;
mod requests;
mod sasl;
mod tls;
mod transactions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use weir_telemetry::process;

use self::kept::KeptGauges;
pub use self::kept::{KeptReadings, Part};
use self::latency::SharedLatency;
pub(crate) use self::partitions::PartitionReadings;
pub use self::recovery::RecoveryReadings;
pub(crate) use self::recovery::render_recovery;
use self::recovery::{PREFIX, RecoveryGauges};
use self::requests::Requests;
pub(crate) use self::requests::{RequestName, Timing};
use self::sasl::Sasl;
pub(crate) use self::tls::Tls;
use self::transactions::Transactions;

/// The counters of one broker.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Arc<Requests>,
    flushes: SharedLatency,
    flush_failures: Counter,
    received_bytes: Counter,
    sent_bytes: Counter,
    connections: Gauge,
    connections_opened: Counter,
    connections_refused: Counter,
    bad_requests: Counter,
    produced_bytes: Counter,
    produced_records: Counter,
    transactions: Transactions,
    tls: Tls,
    sasl: Sasl,
    recovery: RecoveryGauges,
    kept: KeptGauges,
    gauges: Gauges,
}

/// The values that are read at a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Partitions that this broker holds.
    pub partitions: usize,
    /// Partitions that it leads.
    pub partitions_led: usize,
    /// Whether the stream to the controller is up.
    pub controller_connected: bool,
    /// Whether the controller has fenced this broker.
    pub fenced: bool,
    /// Whether the log directory takes writes.
    pub log_dir_online: bool,
    /// The version of the broker's metadata.
    pub metadata_version: u64,
    /// Incremental fetch sessions.
    pub fetch_sessions: usize,
    /// Memory of requests being received or handled.
    pub request_memory_bytes: usize,
    /// Memory of answers that their clients have not read yet.
    pub answer_memory_bytes: usize,
    /// Open transactions that this broker coordinates.
    pub transactions_open: usize,
    /// How long the oldest of them has been open.
    pub transaction_oldest_seconds: u64,
    /// What coordinators keep for their clients.
    pub kept: KeptReadings,
    /// Offsets of the coordinators' logs that were left out when they were loaded.
    pub coordinator_offsets_left_out: u64,
    /// The progress of log recovery.
    pub recovery: RecoveryReadings,
}

#[derive(Debug, Default)]
struct Gauges {
    partitions: Gauge,
    partitions_led: Gauge,
    controller_connected: Gauge,
    fenced: Gauge,
    log_dir_online: Gauge,
    metadata_version: Gauge,
    fetch_sessions: Gauge,
    request_memory: Gauge,
    answer_memory: Gauge,
    coordinator_offsets_left_out: Gauge,
}

impl Metrics {
    /// Creates all counters at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix(PREFIX),
            requests: Arc::default(),
            flushes: SharedLatency::default(),
            flush_failures: Counter::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            connections: Gauge::default(),
            connections_opened: Counter::default(),
            connections_refused: Counter::default(),
            bad_requests: Counter::default(),
            produced_bytes: Counter::default(),
            produced_records: Counter::default(),
            transactions: Transactions::default(),
            tls: Tls::default(),
            sasl: Sasl::default(),
            recovery: RecoveryGauges::default(),
            kept: KeptGauges::default(),
            gauges: Gauges::default(),
        };
        metrics.register_counts();
        metrics.transactions.register(&mut metrics.registry);
        metrics.tls.register(&mut metrics.registry);
        metrics.sasl.register(&mut metrics.registry);
        metrics.recovery.register(&mut metrics.registry);
        metrics.kept.register(&mut metrics.registry);
        metrics.gauges.register(&mut metrics.registry);
        metrics
    }

    fn register_counts(&mut self) {
        let registry = &mut self.registry;
        registry.register_collector(Box::new(Arc::clone(&self.requests)));
        registry.register(
            "flush_duration_seconds",
            "Rounds of flushing to disk, each for all partitions that wait",
            self.flushes.clone(),
        );
        let counters = [
            (
                "flush_failures",
                "Flushes that failed, after which the log directory takes no writes",
                &self.flush_failures,
            ),
            ("received_bytes", "Bytes received from clients", &self.received_bytes),
            ("sent_bytes", "Bytes sent to clients", &self.sent_bytes),
            ("connections_opened", "Connections accepted", &self.connections_opened),
            (
                "connections_refused",
                "Connections closed at once because there were too many",
                &self.connections_refused,
            ),
            (
                "bad_requests",
                "Connections closed over a request that cannot be answered",
                &self.bad_requests,
            ),
            (
                "produced_bytes",
                "Bytes of record batches received from producers",
                &self.produced_bytes,
            ),
            ("produced_records", "Records appended for producers", &self.produced_records),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register("connections", "Open connections", self.connections.clone());
    }

    /// Counts a request that is answered. `failed` when the answer has an error for the request or
    /// a part of it.
    pub(crate) fn request_answered(&self, name: RequestName, failed: bool) {
        self.requests.answered(name, failed);
    }

    /// Records the times of a request whose answer has left for the socket by `now`.
    pub(crate) fn request_left(&self, timing: &Timing, now: Instant) {
        self.requests.left(timing, now);
    }

    /// Counts bytes received on a connection.
    pub(crate) fn received_bytes(&self, bytes: u64) {
        self.received_bytes.inc_by(bytes);
    }

    /// Counts bytes sent on a connection.
    pub(crate) fn sent_bytes(&self, bytes: u64) {
        self.sent_bytes.inc_by(bytes);
    }

    /// Counts an accepted connection.
    pub(crate) fn connection_opened(&self) {
        self.connections_opened.inc();
        self.connections.inc();
    }

    /// Counts the end of an accepted connection.
    pub(crate) fn connection_closed(&self) {
        self.connections.dec();
    }

    /// Counts a connection that was closed at once because there were too many.
    pub(crate) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// Counts a connection that was closed over a request that cannot be answered.
    pub(crate) fn bad_request(&self) {
        self.bad_requests.inc();
    }

    /// Counts the bytes of record batches from a producer.
    pub(crate) fn received_records(&self, bytes: usize) {
        self.produced_bytes.inc_by(bytes as u64);
    }

    /// Counts records that were appended for a producer.
    pub(crate) fn appended_records(&self, records: u64) {
        self.produced_records.inc_by(records);
    }

    /// Records the duration of a flush round.
    pub(crate) fn flushed(&self, elapsed: Duration) {
        self.flushes.0.observe(elapsed);
    }

    /// Counts a failed flush.
    pub(crate) fn flush_failed(&self) {
        self.flush_failures.inc();
    }

    /// Counts ended transactions: those committed, and those aborted by their client, by timeout,
    /// and by another producer with the same transactional id.
    pub(crate) fn transactions_ended(&self, committed: u64, aborted: [u64; 3]) {
        self.transactions.ended(committed, aborted);
    }

    /// Counts requests from fenced producers.
    pub(crate) fn producers_fenced(&self, count: u64) {
        self.transactions.fenced(count);
    }

    /// The counters of logins.
    pub(crate) fn sasl(&self) -> &Sasl {
        &self.sasl
    }

    /// The counters of TLS.
    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Returns everything in the OpenMetrics text format.
    pub(crate) fn render(&self, readings: Readings, partitions: PartitionReadings) -> String {
        self.gauges.set(readings);
        self.recovery.set(readings.recovery);
        self.kept.set(readings.kept);
        self.transactions.set_open(readings.transactions_open, readings.transaction_oldest_seconds);
        let mut read = Registry::with_prefix(PREFIX);
        read.register_collector(Box::new(partitions));
        let mut text = String::new();
        for registry in [&self.registry, &read, &process::registry(env!("CARGO_PKG_VERSION"))] {
            // Writing to a string cannot fail, and every metric of ours can be encoded.
            let _ = encode_registry(&mut text, registry);
        }
        let _ = encode_eof(&mut text);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Gauges {
    fn register(&self, registry: &mut Registry) {
        let gauges = [
            ("partitions", "Partitions that this broker holds", &self.partitions),
            ("partitions_led", "Partitions that this broker leads", &self.partitions_led),
            (
                "controller_connected",
                "1 while the stream to the controller is up",
                &self.controller_connected,
            ),
            ("fenced", "1 while the controller takes this broker for dead", &self.fenced),
            ("log_dir_online", "1 while the log directory takes writes", &self.log_dir_online),
            (
                "metadata_version",
                "The version of the metadata that the broker goes by",
                &self.metadata_version,
            ),
            ("fetch_sessions", "Incremental fetch sessions", &self.fetch_sessions),
            (
                "request_memory_bytes",
                "Memory of requests that are being received or carried out",
                &self.request_memory,
            ),
            (
                "answer_memory_bytes",
                "Memory of answers that their clients have not read yet",
                &self.answer_memory,
            ),
            (
                "coordinator_offsets_left_out",
                "Offsets of the coordinators' logs that were left out at a load, because they are damaged",
                &self.coordinator_offsets_left_out,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }

    fn set(&self, readings: Readings) {
        let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.partitions.set(count(readings.partitions));
        self.partitions_led.set(count(readings.partitions_led));
        self.controller_connected.set(readings.controller_connected.into());
        self.fenced.set(readings.fenced.into());
        self.log_dir_online.set(readings.log_dir_online.into());
        self.metadata_version.set(i64::try_from(readings.metadata_version).unwrap_or(i64::MAX));
        self.fetch_sessions.set(count(readings.fetch_sessions));
        self.request_memory.set(count(readings.request_memory_bytes));
        self.answer_memory.set(count(readings.answer_memory_bytes));
        self.coordinator_offsets_left_out
            .set(i64::try_from(readings.coordinator_offsets_left_out).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use weir_protocol::api::ApiKey;

    use crate::replica::{Counted, Led, Observed};

    use super::*;

    /// A topic with two partitions, one of them led here, and another topic.
    fn partitions() -> PartitionReadings {
        let led = |in_sync| Some(Led { replicas: 3, in_sync, min_in_sync: 2 });
        let observed = |topic: &str, index, led: Option<Led>| Observed {
            topic: topic.into(),
            index,
            size_bytes: 900,
            log_start_offset: 2,
            log_end_offset: 9,
            lag: if led.is_some() { 0 } else { 4 },
            led,
        };
        let counted = |topic: Option<&str>, appended_records| Counted {
            topic: topic.map(Into::into),
            appended_records,
            ..Counted::default()
        };
        PartitionReadings {
            partitions_max: 2,
            topics: vec![counted(Some("orders"), 7), counted(None, 5)],
            partitions: vec![
                observed("z", 0, led(1)),
                observed("orders", 1, None),
                observed("orders", 0, led(2)),
            ],
            isr_shrinks: 3,
            isr_expansions: 1,
        }
    }

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new();
        let name = RequestName::of(ApiKey::Metadata);
        let now = Instant::now();
        for (micros, failed) in [(700, false), (60_000_000, true)] {
            metrics.request_answered(name, failed);
            // It is answered at once, and leaves so much later.
            let timing = Timing::answered(name, Duration::ZERO, now + Duration::from_secs(3_600));
            metrics.request_left(&timing, timing.answered_at() + Duration::from_micros(micros));
        }
        metrics.connection_opened();
        metrics.connection_opened();
        metrics.connection_closed();
        metrics.received_bytes(7);
        metrics.received_records(100);
        metrics.flushed(Duration::from_millis(3));
        metrics.transactions_ended(5, [1, 0, 2]);
        metrics.producers_fenced(4);
        let text = metrics.render(
            Readings {
                partitions: 3,
                log_dir_online: true,
                transactions_open: 6,
                transaction_oldest_seconds: 90,
                coordinator_offsets_left_out: 8,
                kept: KeptReadings {
                    committed_offsets: Part { used_bytes: 70, bytes_max: 80 },
                    ..KeptReadings::default()
                },
                ..Readings::default()
            },
            partitions(),
        );
        for line in [
            "weir_broker_requests_total{api=\"Metadata\"} 2",
            "weir_broker_request_errors_total{api=\"Metadata\"} 1",
            "weir_broker_request_errors_total{api=\"Produce\"} 0",
            "weir_broker_request_duration_seconds_bucket{le=\"0.0005\",api=\"Metadata\"} 0",
            "weir_broker_request_duration_seconds_bucket{le=\"0.001\",api=\"Metadata\"} 1",
            "weir_broker_request_duration_seconds_bucket{le=\"+Inf\",api=\"Metadata\"} 2",
            "weir_broker_request_duration_seconds_sum{api=\"Metadata\"} 60.0007",
            "weir_broker_requests_total{api=\"FetchConsumer\"} 0",
            "weir_broker_requests_total{api=\"FetchFollower\"} 0",
            "weir_broker_request_phase_duration_seconds_count{api=\"Metadata\",phase=\"queue\"} 2",
            "weir_broker_request_phase_duration_seconds_sum{api=\"Metadata\",phase=\"work\"} 0.0",
            "weir_broker_request_phase_duration_seconds_bucket{le=\"0.0001\",api=\"Metadata\",phase=\"wait\"} 2",
            "weir_broker_request_phase_duration_seconds_sum{api=\"Metadata\",phase=\"send\"} 60.0007",
            "weir_broker_connections 1",
            "weir_broker_connections_opened_total 2",
            "weir_broker_received_bytes_total 7",
            "weir_broker_produced_bytes_total 100",
            "weir_broker_flush_duration_seconds_count 1",
            "weir_broker_partitions 3",
            "weir_broker_log_dir_online 1",
            "weir_broker_transactions_committed_total 5",
            "weir_broker_transactions_aborted_total{by=\"client\"} 1",
            "weir_broker_transactions_aborted_total{by=\"timeout\"} 0",
            "weir_broker_transactions_aborted_total{by=\"fencing\"} 2",
            "weir_broker_producers_fenced_total 4",
            "weir_broker_transactions_open 6",
            "weir_broker_transaction_oldest_seconds 90",
            "weir_broker_coordinator_offsets_left_out 8",
            "weir_broker_committed_offset_memory_bytes 70",
            "weir_broker_committed_offset_memory_max_bytes 80",
            "weir_broker_transactional_id_memory_bytes 0",
            "weir_broker_topic_appended_records_total{topic=\"orders\"} 7",
            "weir_broker_topic_appended_records_total{topic=\"\"} 5",
            "weir_broker_topic_fetch_errors_total{topic=\"orders\"} 0",
            "weir_broker_partition_size_bytes{topic=\"orders\",partition=\"0\"} 900",
            "weir_broker_partition_log_start_offset{topic=\"orders\",partition=\"1\"} 2",
            "weir_broker_partition_log_end_offset{topic=\"orders\",partition=\"1\"} 9",
            "weir_broker_partition_lag_records{topic=\"orders\",partition=\"1\"} 4",
            "weir_broker_partitions_without_series 1",
            "weir_broker_under_replicated_partitions 2",
            "weir_broker_under_min_isr_partitions 1",
            "weir_broker_at_min_isr_partitions 1",
            "weir_broker_follower_lag_records_max 4",
            "weir_broker_isr_shrinks_total 3",
            "weir_broker_isr_expansions_total 1",
            concat!("weir_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# EOF",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("duration_seconds_count{api=\"Produce\""), "{text}");
        assert!(!text.contains("topic=\"z\""), "only so many partitions have series\n{text}");
        assert_eq!(text.matches("# EOF").count(), 1);
        let listed = include_str!("../../docs/metrics.md");
        for metric in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = metric.strip_suffix(" counter").map(|name| format!("{name}_total"));
            let name = name.or_else(|| Some(metric.split_once(' ')?.0.to_owned())).unwrap();
            assert!(listed.contains(&format!("`{name}`")), "docs/metrics.md does not list {name}");
        }
    }
}
