//! The configurations of groups (`GroupConfig`) and of subscriptions to client metrics (`ClientMetricsConfigs`): resources that are there once something is set on
//! them.
//!
//! Share groups, streams groups and client metrics are not served: what is set for them is kept and told, and says that it has no effect.

use super::Check::{Any, AtLeast, Between, OneOf};
use super::ConfigType::{Boolean, Int, List, String};
use super::{Check, ConfigError, ConfigKey, ConfigType, Configs, Layers, Scope, Value, find, shown};

/// Every configuration of a group, in the order of their names.
pub static GROUP: &[ConfigKey] = &[
    row(
        "consumer.assignment.interval.ms",
        Int,
        "1000",
        AtLeast(0),
        "How long the group waits at least between two assignments.",
    ),
    row(
        "consumer.heartbeat.interval.ms",
        Int,
        "5000",
        AtLeast(1),
        "How often the group's members of the consumer protocol are heard of.",
    ),
    row(
        "consumer.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        "How long a member of the consumer protocol may be quiet before its partitions go to others of the group.",
    ),
    row("share.assignment.interval.ms", Int, "1000", Between(0, 15_000), SHARE),
    row("share.auto.offset.reset", String, "latest", Check::ShareReset, SHARE),
    row("share.delivery.count.limit", Int, "5", Between(2, 10), SHARE),
    row("share.heartbeat.interval.ms", Int, "5000", Between(5_000, 15_000), SHARE),
    row(
        "share.isolation.level",
        String,
        "read_uncommitted",
        OneOf(&["read_committed", "read_uncommitted"]),
        SHARE,
    ),
    row("share.partition.max.record.locks", Int, "2000", Between(100, 4_000), SHARE),
    row("share.record.lock.duration.ms", Int, "30000", Between(15_000, 60_000), SHARE),
    row("share.renew.acknowledge.enable", Boolean, "true", Any, SHARE),
    row("share.session.timeout.ms", Int, "45000", Between(45_000, 60_000), SHARE),
    row("streams.assignment.interval.ms", Int, "1000", Between(0, 15_000), STREAMS),
    row("streams.heartbeat.interval.ms", Int, "5000", Between(5_000, 15_000), STREAMS),
    row("streams.initial.rebalance.delay.ms", Int, "3000", AtLeast(0), STREAMS),
    row("streams.num.standby.replicas", Int, "0", Between(0, 2), STREAMS),
    row("streams.session.timeout.ms", Int, "45000", Between(45_000, 60_000), STREAMS),
];

/// Every configuration of a subscription to client metrics, in the order of their names.
pub static CLIENT_METRICS: &[ConfigKey] = &[
    row("interval.ms", Int, "300000", Between(100, 3_600_000), METRICS),
    row("match", List, "", Any, METRICS),
    row("metrics", List, "", Any, METRICS),
];

const SHARE: &str = "For share groups. They are not served, so it has no effect.";
const STREAMS: &str = "For streams groups. They are not served, so it has no effect.";
const METRICS: &str = "For the metrics that clients push. They are not collected, so it has no effect.";

const fn row(name: &'static str, kind: ConfigType, default: &'static str, check: Check, documentation: &'static str) -> ConfigKey {
    ConfigKey {
        name,
        kind,
        default: Some(default),
        check,
        scope: Scope::Dynamic,
        of_topics: None,
        summary: documentation,
    }
}

/// The configuration of groups with this name.
pub fn group_key(name: &str) -> Option<&'static ConfigKey> {
    find(GROUP, name)
}

/// The configuration of subscriptions to client metrics with this name.
pub fn client_metrics_key(name: &str) -> Option<&'static ConfigKey> {
    find(CLIENT_METRICS, name)
}

/// What of a group's configuration lies within bounds of the cluster's, and both bounds.
const BOUNDS: &[(&str, &str, &str)] = &[
    (
        "consumer.heartbeat.interval.ms",
        "group.consumer.min.heartbeat.interval.ms",
        "group.consumer.max.heartbeat.interval.ms",
    ),
    (
        "consumer.session.timeout.ms",
        "group.consumer.min.session.timeout.ms",
        "group.consumer.max.session.timeout.ms",
    ),
    (
        "consumer.assignment.interval.ms",
        "group.consumer.min.assignment.interval.ms",
        "group.consumer.max.assignment.interval.ms",
    ),
];

fn integer(key: Option<&ConfigKey>, text: Option<&str>) -> Option<i64> {
    match key?.parse(text?) {
        Ok(Value::Integer(number)) => Some(number),
        _ => None,
    }
}

impl Layers<'_> {
    /// The number that a group goes by: what is set on it, else what is set for all groups; within the bounds of the cluster, which may have changed since it was set.
    pub fn group_number(self, group: &Configs, name: &'static str) -> Option<i64> {
        let text = self.group_value(group, name)?;
        let number = integer(group_key(name), Some(&text))?;
        let bound = |name| integer(super::broker_key(name), self.broker_value(name).as_deref());
        let Some((_, low, high)) = BOUNDS.iter().find(|(bounded, ..)| *bounded == name).filter(|_| group.contains_key(name)) else {
            return Some(number);
        };
        let number = bound(*low).map_or(number, |low| number.max(low));
        Some(bound(*high).map_or(number, |high| number.min(high)))
    }
}

/// Checks all that is set on a group (`GroupConfig.validate`): each value, and those of the consumer protocol within the bounds that `layers` set.
///
/// # Errors
/// The first that is wrong.
pub fn validate_group(group: &Configs, layers: Layers<'_>) -> Result<(), ConfigError> {
    for (name, text) in group {
        validate_group_entry(name, text)?;
    }
    let of_cluster = |name| integer(super::broker_key(name), layers.broker_value(name).as_deref());
    for &(name, low, high) in BOUNDS {
        let Some(value) = integer(group_key(name), group.get(name).map(std::string::String::as_str)) else {
            continue;
        };
        for (bound, relation, holds) in [
            (low, "greater than or equal to", of_cluster(low).is_none_or(|low| value >= low)),
            (high, "less than or equal to", of_cluster(high).is_none_or(|high| value <= high)),
        ] {
            if !holds {
                return Err(ConfigError::Relation {
                    name,
                    relation,
                    other: bound,
                });
            }
        }
    }
    for (session, heartbeat) in [
        ("consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"),
        ("share.session.timeout.ms", "share.heartbeat.interval.ms"),
        ("streams.session.timeout.ms", "streams.heartbeat.interval.ms"),
    ] {
        let number = |name| integer(group_key(name), layers.group_value(group, name).as_deref());
        if number(session) <= number(heartbeat) {
            return Err(ConfigError::Relation {
                name: session,
                relation: "greater than",
                other: heartbeat,
            });
        }
    }
    Ok(())
}

/// Checks one configuration of a group.
///
/// # Errors
/// When there is no configuration of that name, or the value does not fit it.
pub fn validate_group_entry(name: &str, text: &str) -> Result<Value, ConfigError> {
    group_key(name)
        .ok_or_else(|| ConfigError::Unknown {
            of: "group",
            name: shown(name),
        })?
        .parse(text)
}

/// What a pattern of `match` may be about.
const MATCHED: [&str; 6] = [
    "client_id",
    "client_instance_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// Checks one configuration of a subscription to client metrics (`ClientMetricsConfigs.validate`).
///
/// # Errors
/// When there is no configuration of that name, or the value does not fit it.
pub fn validate_client_metrics_entry(name: &str, text: &str) -> Result<Value, ConfigError> {
    let key = client_metrics_key(name).ok_or_else(|| ConfigError::Request(format!("Unknown client metrics configuration: {}", shown(name))))?;
    // Out of its bounds a number is the request's fault, in Kafka's words.
    if let (Check::Between(low, high), Ok(interval)) = (key.check, text.trim().parse::<i32>())
        && !(low..=high).contains(&interval.into())
    {
        return Err(ConfigError::Request(format!(
            "Invalid value {interval} for {name}, interval must be between {low} and {high} (1 hour)"
        )));
    }
    let value = key.parse(text)?;
    match &value {
        Value::List(patterns) if name == "match" => {
            let is_pattern = |pattern: &&std::string::String| {
                let mut parts = pattern.split('=');
                let about = parts.next().map(str::trim).unwrap_or_default();
                MATCHED.contains(&about) && parts.next().is_some_and(|part| !part.is_empty()) && parts.next().is_none()
            };
            match patterns.iter().find(|pattern| !is_pattern(pattern)) {
                None => Ok(value),
                Some(pattern) => Err(ConfigError::Pattern(shown(pattern))),
            }
        }
        _ => Ok(value),
    }
}
