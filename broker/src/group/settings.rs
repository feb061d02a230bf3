//! The settings of group coordinators, under Kafka's names (`GroupCoordinatorConfig`).

use std::time::Duration;

use weir_settings::Layers;

use crate::metadata::MetadataImage;

/// The settings in force on this broker.
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
    /// `group.consumer.session.timeout.ms`
    pub(super) consumer_session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`
    pub(super) consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.max.size`
    pub(super) consumer_group_size_max: usize,
    /// `group.consumer.assignment.interval.ms`
    pub(super) consumer_assignment_interval_ms: i32,
    /// `group.consumer.migration.policy`
    pub(super) migration: Migration,
}

/// Which groups with members may change their protocol (`ConsumerGroupMigrationPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Migration {
    /// None.
    Disabled,
    /// From the classic protocol to the consumer protocol.
    Upgrade,
    /// From the consumer protocol to the classic one.
    Downgrade,
    /// Both ways.
    #[default]
    Bidirectional,
}

impl Migration {
    /// The policy with Kafka's name, in any case; for another name Kafka's default.
    fn of(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "disabled" => Self::Disabled,
            "upgrade" => Self::Upgrade,
            "downgrade" => Self::Downgrade,
            _ => Self::Bidirectional,
        }
    }

    pub(super) fn upgrades(self) -> bool {
        matches!(self, Self::Upgrade | Self::Bidirectional)
    }

    pub(super) fn downgrades(self) -> bool {
        matches!(self, Self::Downgrade | Self::Bidirectional)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(&Layers::default())
    }
}

/// `offsets.commit.timeout.ms`, read anew for each commit that waits.
pub(super) fn commit_timeout(layers: &Layers<'_>) -> Duration {
    Duration::from_millis(layers.broker_size("offsets.commit.timeout.ms"))
}

/// The settings of one group of the consumer protocol: its own, within the bounds of the cluster,
/// else those of all groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OfGroup {
    /// `consumer.session.timeout.ms`
    pub(super) session_timeout_ms: i32,
    /// `consumer.heartbeat.interval.ms`
    pub(super) heartbeat_interval_ms: i32,
    /// `consumer.assignment.interval.ms`: the least time between two assignments (KIP-1263)
    pub(super) assignment_interval_ms: i32,
}

impl Settings {
    /// The settings of the group with this id.
    pub(super) fn of_group(&self, image: &MetadataImage, group: &str) -> OfGroup {
        let none = OfGroup {
            session_timeout_ms: self.consumer_session_timeout_ms,
            heartbeat_interval_ms: self.consumer_heartbeat_interval_ms,
            assignment_interval_ms: self.consumer_assignment_interval_ms,
        };
        // Nearly every group has none, and then one look-up is all.
        let Some(set) = image.group_configs.get(group) else { return none };
        // The bounds come from the cluster; no broker has its own.
        let cluster = Layers { cluster: Some(&image.cluster_configs), ..Layers::default() };
        let number = |name| {
            let number = set.contains_key(name).then(|| cluster.group_number(set, name)).flatten();
            number.and_then(|number| i32::try_from(number).ok())
        };
        OfGroup {
            session_timeout_ms: number("consumer.session.timeout.ms")
                .unwrap_or(none.session_timeout_ms),
            heartbeat_interval_ms: number("consumer.heartbeat.interval.ms")
                .unwrap_or(none.heartbeat_interval_ms),
            assignment_interval_ms: number("consumer.assignment.interval.ms")
                .unwrap_or(none.assignment_interval_ms),
        }
    }

    pub(super) fn of(layers: &Layers<'_>) -> Self {
        let size = |key| usize::try_from(layers.broker_size(key)).unwrap_or(usize::MAX);
        let int = |key| i32::try_from(layers.broker_number(key)).unwrap_or(i32::MAX);
        Self {
            offset_metadata_bytes_max: size("offset.metadata.max.bytes"),
            offsets_retention_ms: layers
                .broker_number("offsets.retention.minutes")
                .saturating_mul(60_000),
            retention_check_ms: layers.broker_size("offsets.retention.check.interval.ms").max(1),
            group_size_max: size("group.max.size"),
            session_timeout_ms_min: int("group.min.session.timeout.ms"),
            session_timeout_ms_max: int("group.max.session.timeout.ms"),
            initial_rebalance_delay_ms: layers.broker_size("group.initial.rebalance.delay.ms"),
            consumer_session_timeout_ms: int("group.consumer.session.timeout.ms"),
            consumer_heartbeat_interval_ms: int("group.consumer.heartbeat.interval.ms"),
            consumer_group_size_max: size("group.consumer.max.size"),
            consumer_assignment_interval_ms: int("group.consumer.assignment.interval.ms"),
            migration: Migration::of(
                &layers.broker_value("group.consumer.migration.policy").unwrap_or_default(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_group_goes_by_what_is_set_on_it_within_the_clusters_bounds() {
        let mut image = MetadataImage::default();
        let set = |entries: &[(&str, &str)]| {
            let entries =
                entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Arc::new(entries.collect())
        };
        image.cluster_configs = set(&[("group.consumer.max.session.timeout.ms", "55000")]);
        let configs = set(&[
            ("consumer.session.timeout.ms", "60000"),
            ("consumer.heartbeat.interval.ms", "6000"),
            ("consumer.assignment.interval.ms", "50"),
        ]);
        image.group_configs.insert("g".to_owned(), configs);
        let settings = Settings::default();
        let expected = OfGroup {
            session_timeout_ms: 55_000,
            heartbeat_interval_ms: 6_000,
            assignment_interval_ms: 50,
        };
        assert_eq!(
            settings.of_group(&image, "g"),
            expected,
            "the bound was lowered after it was set"
        );
        let others = settings.of_group(&image, "h");
        assert_eq!((others.session_timeout_ms, others.heartbeat_interval_ms), (45_000, 5_000));
        assert_eq!(others.assignment_interval_ms, 1_000);
    }
}
