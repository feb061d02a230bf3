//! Checks the configurations of groups and of client metrics subscriptions.

use super::key::shown;
use super::{Check, ConfigError, ConfigKey, Configs, Layers, Value, client_metrics_key, group_key};

/// The group configurations that the cluster bounds: the name, the lower and the upper bound.
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
    /// The number in force for a group: its own, else that of all groups. Its own is clamped to the
    /// bounds of the cluster, which may have changed since it was set.
    pub fn group_number(self, group: &Configs, name: &'static str) -> Option<i64> {
        let text = self.group_value(group, name)?;
        let number = integer(group_key(name), Some(&text))?;
        let bound = |name| integer(super::broker_key(name), self.broker_value(name).as_deref());
        let Some((_, low, high)) = BOUNDS
            .iter()
            .find(|(bounded, ..)| *bounded == name)
            .filter(|_| group.contains_key(name))
        else {
            return Some(number);
        };
        let number = bound(*low).map_or(number, |low| number.max(low));
        Some(bound(*high).map_or(number, |high| number.min(high)))
    }
}

/// Checks all that is set on a group (`GroupConfig.validate`): each value, and those of the
/// consumer protocol against the bounds in `layers`.
///
/// # Errors
/// The first error.
pub fn validate_group(group: &Configs, layers: Layers<'_>) -> Result<(), ConfigError> {
    for (name, text) in group {
        validate_group_entry(name, text)?;
    }
    let of_cluster = |name| integer(super::broker_key(name), layers.broker_value(name).as_deref());
    for &(name, low, high) in BOUNDS {
        let Some(value) =
            integer(group_key(name), group.get(name).map(std::string::String::as_str))
        else {
            continue;
        };
        for (bound, relation, holds) in [
            (low, "greater than or equal to", of_cluster(low).is_none_or(|low| value >= low)),
            (high, "less than or equal to", of_cluster(high).is_none_or(|high| value <= high)),
        ] {
            if !holds {
                return Err(ConfigError::Relation { name, relation, other: bound });
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

/// Checks one group configuration.
///
/// # Errors
/// When no configuration has that name, or the value is not valid.
pub fn validate_group_entry(name: &str, text: &str) -> Result<Value, ConfigError> {
    group_key(name)
        .ok_or_else(|| ConfigError::Unknown { of: "group", name: shown(name) })?
        .parse(text)
}

/// The names that a pattern of `match` may use.
const MATCHED: [&str; 6] = [
    "client_id",
    "client_instance_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// Checks one configuration of a client metrics subscription (`ClientMetricsConfigs.validate`).
///
/// # Errors
/// When no configuration has that name, or the value is not valid.
pub fn validate_client_metrics_entry(name: &str, text: &str) -> Result<Value, ConfigError> {
    let key = client_metrics_key(name).ok_or_else(|| {
        ConfigError::Request(format!("Unknown client metrics configuration: {}", shown(name)))
    })?;
    // Kafka reports a number that is out of bounds as INVALID_REQUEST.
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
                MATCHED.contains(&about)
                    && parts.next().is_some_and(|part| !part.is_empty())
                    && parts.next().is_none()
            };
            match patterns.iter().find(|pattern| !is_pattern(pattern)) {
                None => Ok(value),
                Some(pattern) => Err(ConfigError::Pattern(shown(pattern))),
            }
        }
        _ => Ok(value),
    }
}
