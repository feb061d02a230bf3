//! The settings of replication in force.

use std::time::Duration;

use weir_settings::Layers;

/// The settings with which this broker replicates, as they are in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// `replica.fetch.wait.max.ms`
    pub(crate) fetch_wait_max: Duration,
    /// `replica.fetch.max.bytes`, of one partition
    pub(crate) fetch_bytes_max: i32,
    /// `replica.fetch.response.max.bytes`
    pub(crate) fetch_response_bytes_max: i32,
    /// `replica.fetch.min.bytes`
    pub(crate) fetch_bytes_min: i32,
    /// `replica.lag.time.max.ms`
    pub(super) lag_ms_max: u64,
    /// `replica.fetch.backoff.ms`
    pub(super) fetch_backoff_ms: u64,
    /// `leader.replication.throttled.rate` and `follower.replication.throttled.rate`, in bytes a
    /// second
    pub(super) throttled_rates: (u64, u64),
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(&Layers::default())
    }
}

impl Settings {
    pub(super) fn of(layers: &Layers<'_>) -> Self {
        let number = |key| i32::try_from(layers.broker_number(key)).unwrap_or(i32::MAX);
        // Kafka's default is the largest number and means no limit.
        let rate = |key| match layers.broker_number(key) {
            i64::MAX => u64::MAX,
            rate => rate.unsigned_abs(),
        };
        Self {
            fetch_wait_max: Duration::from_millis(layers.broker_size("replica.fetch.wait.max.ms")),
            fetch_bytes_max: number("replica.fetch.max.bytes"),
            fetch_response_bytes_max: number("replica.fetch.response.max.bytes"),
            fetch_bytes_min: number("replica.fetch.min.bytes"),
            lag_ms_max: layers.broker_size("replica.lag.time.max.ms"),
            fetch_backoff_ms: layers.broker_size("replica.fetch.backoff.ms"),
            throttled_rates: (
                rate("leader.replication.throttled.rate"),
                rate("follower.replication.throttled.rate"),
            ),
        }
    }
}
