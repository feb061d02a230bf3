//! The settings of group coordinators, under Kafka's names (`GroupCoordinatorConfig`).

use weir_protocol::config::Layers;

/// What is in force on this broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// `offset.metadata.max.bytes`
    pub(super) offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in milliseconds
    pub(super) offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub(super) retention_check_ms: u64,
    /// `group.max.size`
    pub(super) group_size_max: usize,
    /// `group.min.session.timeout.ms`
    pub(super) session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`
    pub(super) session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms`
    pub(super) initial_rebalance_delay_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(&Layers::default())
    }
}

impl Settings {
    pub(super) fn of(layers: &Layers<'_>) -> Self {
        let number = |key| layers.broker_value(key).and_then(|value| value.parse::<i64>().ok());
        let unsigned = |key, default: u64| number(key).and_then(|value| u64::try_from(value).ok()).unwrap_or(default);
        let size = |key, default: usize| number(key).and_then(|value| usize::try_from(value).ok()).unwrap_or(default);
        let int = |key, default: i32| number(key).and_then(|value| i32::try_from(value).ok()).unwrap_or(default);
        Self {
            offset_metadata_bytes_max: size("offset.metadata.max.bytes", 4096),
            offsets_retention_ms: number("offsets.retention.minutes").unwrap_or(10_080).saturating_mul(60_000),
            retention_check_ms: unsigned("offsets.retention.check.interval.ms", 600_000).max(1),
            group_size_max: size("group.max.size", i32::MAX as usize),
            session_timeout_ms_min: int("group.min.session.timeout.ms", 6_000),
            session_timeout_ms_max: int("group.max.session.timeout.ms", 1_800_000),
            initial_rebalance_delay_ms: unsigned("group.initial.rebalance.delay.ms", 3_000),
        }
    }
}
