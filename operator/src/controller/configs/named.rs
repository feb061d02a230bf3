//! The room for settings on groups and on subscriptions to client metrics: all of them are in the
//! cluster's resource.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_crds::KafkaClusterSpec;
use weir_settings::Configs;

/// The most groups with settings and the most subscriptions to client metrics, as in the resource's
/// schema, and the most bytes of each kind.
const GROUPS_SET_MAX: usize = 1_000;
const SUBSCRIPTIONS_MAX: usize = 100;
const NAMED_SETTINGS_BYTES_MAX: usize = 256 * 1024;

/// The size of the settings on groups or on subscriptions to client metrics. All of them are in the
/// cluster's resource.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    path: &'static str,
    bytes: usize,
    count: usize,
    most: usize,
}

impl Named {
    pub(super) fn groups(spec: &KafkaClusterSpec) -> Self {
        let all = spec.consumer_groups.config.iter().map(|(name, config)| (name, config.texts()));
        Self::of("spec.consumerGroups.config", GROUPS_SET_MAX, all)
    }

    pub(super) fn client_metrics(spec: &KafkaClusterSpec) -> Self {
        let all = spec.client_metrics.iter().map(|(name, config)| (name, config.texts()));
        Self::of("spec.clientMetrics", SUBSCRIPTIONS_MAX, all)
    }

    fn of<'a>(
        path: &'static str,
        most: usize,
        all: impl Iterator<Item = (&'a String, &'a Configs)>,
    ) -> Self {
        let (bytes, count) = all.fold((0, 0), |(bytes, count), (name, texts)| {
            (bytes + Self::bytes_of(name, texts), count + 1)
        });
        Self { path, bytes, count, most }
    }

    fn bytes_of(name: &str, texts: &Configs) -> usize {
        name.len() + texts.iter().map(|(name, text)| name.len() + text.len()).sum::<usize>()
    }

    /// The same after the settings of one name change. A name counts only while it has settings.
    pub(super) fn change(mut self, name: &str, before: &Configs, after: &Configs) -> Self {
        if !before.is_empty() {
            (self.bytes, self.count) = (self.bytes - Self::bytes_of(name, before), self.count - 1);
        }
        if !after.is_empty() {
            (self.bytes, self.count) = (self.bytes + Self::bytes_of(name, after), self.count + 1);
        }
        self
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let Self { path, bytes, count, most } = *self;
        if bytes > NAMED_SETTINGS_BYTES_MAX || count > most {
            let reason = format!(
                "There is room for {most} names with settings, of {NAMED_SETTINGS_BYTES_MAX} bytes together."
            );
            return Err((path, reason));
        }
        Ok(())
    }
}

/// Checks the size of the settings on groups and on subscriptions to client metrics.
pub(in super::super) fn check_named(spec: &KafkaClusterSpec) -> Result<(), (&'static str, String)> {
    Named::groups(spec).check()?;
    Named::client_metrics(spec).check()
}
