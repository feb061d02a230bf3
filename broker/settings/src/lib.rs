//! Kafka's configurations as data: names, types, bounds, defaults and documentation.
//!
//! Each fact about a setting is written here once. The broker describes and resolves configuration
//! by these tables, the resource schemas are generated from them, and no code repeats a default.
//! Nothing here does I/O or keeps state. The log decides what a value does.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod broker;
mod group;
mod key;
mod layers;
mod named;
mod topic;

#[cfg(test)]
mod tests;

use self::key::shown;
pub use broker::{BROKER, broker_key, topic_key_of};
pub use group::{CLIENT_METRICS, GROUP, client_metrics_key, group_key};
pub use key::{Check, ConfigError, ConfigKey, ConfigSource, ConfigType, Configs, Scope, Value};
pub use layers::{Effective, Layers, Synonym};
pub use named::{validate_client_metrics_entry, validate_group, validate_group_entry};
pub use topic::{TOPIC, topic_key};

/// Checks one topic configuration.
///
/// # Errors
/// When no configuration has that name, or the value is not valid.
pub fn validate_topic_entry(name: &str, text: &str) -> Result<Value, ConfigError> {
    topic_key(name)
        .ok_or_else(|| ConfigError::Unknown { of: "topic", name: shown(name) })?
        .parse(text)
}

/// Checks all that is set on a topic: each value, and the values against each other
/// (`LogConfig.validate`). `layers` supplies the values that the topic does not set.
///
/// # Errors
/// The first error, in the order of the names.
pub fn validate_topic(topic: &Configs, layers: Layers<'_>) -> Result<(), ConfigError> {
    for (name, text) in topic {
        validate_topic_entry(name, text)?;
    }
    let number = |name| {
        let (key, text) = (topic_key(name)?, layers.topic_value(topic, name)?);
        match key.parse(&text) {
            Ok(Value::Integer(value)) => Some(value),
            _ => None,
        }
    };
    let (low, high) = ("min.compaction.lag.ms", "max.compaction.lag.ms");
    match (number(low), number(high)) {
        (Some(low_value), Some(high_value)) if low_value > high_value => {
            Err(ConfigError::Conflict { low, low_value, high, high_value })
        }
        _ => Ok(()),
    }
}

/// A place where a broker configuration can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `spec.config` of the cluster's resource.
    Resource,
    /// AlterConfigs for all brokers.
    AllBrokers,
    /// AlterConfigs for one broker, and `spec.brokers.config` of the cluster's resource.
    OneBroker,
}

/// Checks one broker configuration, as set at this door (`DynamicBrokerConfig.validate`).
///
/// # Errors
/// When no configuration has that name, it cannot be set at this door, or the value is not valid.
pub fn validate_broker_entry(name: &str, text: &str, door: Door) -> Result<Value, ConfigError> {
    let key =
        broker_key(name).ok_or_else(|| ConfigError::Unknown { of: "broker", name: shown(name) })?;
    match (key.scope, door) {
        (Scope::Process, _) | (Scope::Cluster, Door::AllBrokers | Door::OneBroker) => {
            Err(ConfigError::ReadOnly { name: key.name })
        }
        (Scope::ClusterWide, Door::OneBroker) => Err(ConfigError::SameForAll { name: key.name }),
        _ => key.parse(text),
    }
}
