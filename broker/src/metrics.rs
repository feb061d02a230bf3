//! What a broker counts, and how Prometheus reads it.
//!
//! Every part of the broker counts here as it goes; its page shows it. On the way of a request
//! nothing is looked up, locked or allocated: a count is an atomic at a place that is known
//! beforehand. What others know already (partitions, sessions, memory) is not counted here a second
//! time but read when Prometheus asks, as [`Readings`]. What counts is of this crate alone, so that
//! the compiler finds a count that nobody makes. Labels come from closed sets, never from what a
//! client sends.

mod latency;
mod partitions;
mod recovery;
mod requests;
mod transactions;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use weir_protocol::api::ApiKey;
use weir_telemetry::process;

use self::latency::SharedLatency;
pub(crate) use self::partitions::PartitionReadings;
pub use self::recovery::RecoveryReadings;
pub(crate) use self::recovery::render_recovery;
use self::recovery::{PREFIX, RecoveryGauges};
use self::requests::Requests;
use self::transactions::Transactions;

/// The counts of one broker.
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
    recovery: RecoveryGauges,
    gauges: Gauges,
}

/// What is read when Prometheus asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Partitions that this broker holds.
    pub partitions: usize,
    /// Partitions that it leads.
    pub partitions_led: usize,
    /// The stream to the controller is up.
    pub controller_connected: bool,
    /// The controller takes this broker for dead.
    pub fenced: bool,
    /// The log directory takes writes.
    pub log_dir_online: bool,
    /// The version of the metadata that the broker goes by.
    pub metadata_version: u64,
    /// Incremental fetch sessions.
    pub fetch_sessions: usize,
    /// Memory of requests that are being received or carried out.
    pub request_memory_bytes: usize,
    /// Memory of answers that their clients have not read yet.
    pub answer_memory_bytes: usize,
    /// Open transactions that this broker coordinates.
    pub transactions_open: usize,
    /// How long the oldest of them is open.
    pub transaction_oldest_seconds: u64,
    /// How far the recovery of its logs is.
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
}

impl Metrics {
    /// Everything at zero.
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
            recovery: RecoveryGauges::default(),
            gauges: Gauges::default(),
        };
        metrics.register_counts();
        metrics.transactions.register(&mut metrics.registry);
        metrics.recovery.register(&mut metrics.registry);
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

    /// A request was answered after `elapsed`; `failed` when the answer says so for the request or
    /// any part of it.
    pub(crate) fn request_finished(&self, api: ApiKey, elapsed: Duration, failed: bool) {
        self.requests.finished(api, elapsed, failed);
    }

    /// Bytes came in on a connection.
    pub(crate) fn received_bytes(&self, bytes: u64) {
        self.received_bytes.inc_by(bytes);
    }

    /// Bytes went out on a connection.
    pub(crate) fn sent_bytes(&self, bytes: u64) {
        self.sent_bytes.inc_by(bytes);
    }

    /// A connection was accepted.
    pub(crate) fn connection_opened(&self) {
        self.connections_opened.inc();
        self.connections.inc();
    }

    /// An accepted connection ended.
    pub(crate) fn connection_closed(&self) {
        self.connections.dec();
    }

    /// A connection was closed at once, since there were too many.
    pub(crate) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// A connection was closed over a request that cannot be answered.
    pub(crate) fn bad_request(&self) {
        self.bad_requests.inc();
    }

    /// Record batches of so many bytes came from a producer.
    pub(crate) fn received_records(&self, bytes: usize) {
        self.produced_bytes.inc_by(bytes as u64);
    }

    /// So many records were appended for a producer.
    pub(crate) fn appended_records(&self, records: u64) {
        self.produced_records.inc_by(records);
    }

    /// A round of flushing took so long.
    pub(crate) fn flushed(&self, elapsed: Duration) {
        self.flushes.0.observe(elapsed);
    }

    /// A flush failed.
    pub(crate) fn flush_failed(&self) {
        self.flush_failures.inc();
    }

    /// Transactions ended: so many were committed, and aborted by their client, since they took too
    /// long, and since another producer took up the transactional id.
    pub(crate) fn transactions_ended(&self, committed: u64, aborted: [u64; 3]) {
        self.transactions.ended(committed, aborted);
    }

    /// So many requests came from producers that were fenced.
    pub(crate) fn producers_fenced(&self, count: u64) {
        self.transactions.fenced(count);
    }

    /// Everything in the OpenMetrics text format.
    pub(crate) fn render(&self, readings: Readings, partitions: PartitionReadings) -> String {
        self.gauges.set(readings);
        self.recovery.set(readings.recovery);
        self.transactions.set_open(readings.transactions_open, readings.transaction_oldest_seconds);
        let mut read = Registry::with_prefix(PREFIX);
        read.register_collector(Box::new(partitions));
        let mut text = String::new();
        for registry in [&self.registry, &read, &process::registry(env!("CARGO_PKG_VERSION"))] {
            // Writing to a string does not fail, and no metric of ours refuses to be written.
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
    }
}

#[cfg(test)]
mod tests {
    use crate::replica::{Counted, Led, Observed};

    use super::*;

    /// A topic of two partitions, of which one is led, and another topic.
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
        metrics.request_finished(ApiKey::Metadata, Duration::from_micros(700), false);
        metrics.request_finished(ApiKey::Metadata, Duration::from_secs(60), true);
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
        assert!(!text.contains("topic=\"z\""), "only so many partitions have series\n{text}");
        assert_eq!(text.matches("# EOF").count(), 1);
    }
}
