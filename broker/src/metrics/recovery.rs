//! How far the recovery of the logs is: what there is to measure while the broker does not serve
//! yet, and what it came to later on.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How the names of all metrics begin.
pub(super) const PREFIX: &str = "weir_broker";

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReadings {
    /// Logs that were to be recovered when the broker started; 0 after a stop in order.
    pub logs: u64,
    /// Those that are.
    pub logs_done: u64,
    /// Bytes of their segments.
    pub bytes: u64,
    /// Those that were checked.
    pub bytes_done: u64,
}

/// The gauges.
#[derive(Debug, Default)]
pub(super) struct RecoveryGauges {
    logs: Gauge,
    logs_done: Gauge,
    bytes: Gauge,
    bytes_done: Gauge,
}

impl RecoveryGauges {
    pub(super) fn register(&self, registry: &mut Registry) {
        let gauges = [
            (
                "recovery_logs",
                "Logs that were to be recovered when the broker started; 0 after a stop in order",
                &self.logs,
            ),
            ("recovery_logs_done", "Those that are recovered", &self.logs_done),
            ("recovery_bytes", "Bytes of the logs that were to be recovered", &self.bytes),
            ("recovery_bytes_done", "Those that are checked", &self.bytes_done),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }

    pub(super) fn set(&self, readings: RecoveryReadings) {
        let set = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.logs, readings.logs);
        set(&self.logs_done, readings.logs_done);
        set(&self.bytes, readings.bytes);
        set(&self.bytes_done, readings.bytes_done);
    }
}

/// These alone, in the OpenMetrics text format: nothing else is known of a broker that does not
/// have its logs yet.
pub(crate) fn render_recovery(readings: RecoveryReadings) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    let gauges = RecoveryGauges::default();
    gauges.register(&mut registry);
    gauges.set(readings);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}
