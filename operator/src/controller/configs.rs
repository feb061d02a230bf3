//! AlterConfigs and IncrementalAlterConfigs (`ConfigurationControlManager` in Apache Kafka). Each
//! change becomes a field of a resource.
//!
//! A topic's settings are `spec.config` of its `Topic`. The `KafkaCluster` holds the others:
//! `spec.config` for all brokers, `spec.brokers.config` for single brokers,
//! `spec.consumerGroups.config` for groups, and `spec.clientMetrics` for subscriptions to client
//! metrics. `weir_settings` validates the values.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod named;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_crds::{
    ClientMetricsConfig, ClusterConfig, GroupConfig, InvalidSetting, KafkaClusterSpec, TopicConfig,
};
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_response, incremental_alter_configs_response,
};
use weir_protocol::types::{BrokerId, TopicId};
use weir_settings::{self as config, ConfigError, ConfigType, Configs, Door, Layers, Scope};

use self::named::Named;
pub(super) use self::named::check_named;
use super::draft::Draft;
use super::error::{ApiError, too_large, wire};
use super::limits::SETTINGS_BYTES_MAX;
use super::object_meta::with_cluster_generation;
use super::object_meta::with_generation;
use super::partitions;
use super::state::Change;

/// `ConfigResource.Type` on the wire.
pub(super) const TYPE_TOPIC: i8 = 2;
const TYPE_BROKER: i8 = 4;
const TYPE_CLIENT_METRICS: i8 = 16;
const TYPE_GROUP: i8 = 32;

/// The resource whose settings a request changes.
#[derive(Clone, Debug)]
enum Target {
    Topic(TopicId),
    Broker(BrokerId),
    AllBrokers,
    Group(String),
    ClientMetrics(String),
}

/// One operation on a setting (`AlterConfigOp.OpType`).
enum Operation {
    Set(String),
    Delete,
    Append(String),
    Subtract(String),
}

pub(super) fn alter_configs(
    draft: &mut Draft<'_>,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let validate_only = request.validate_only;
    let mut seen = BTreeSet::new();
    let responses = request.resources.into_iter().map(|resource| {
        let first = seen.insert(key(resource.resource_type, &resource.resource_name));
        let entries = resource.configs.into_iter().map(|entry| (entry.name, entry.value)).collect();
        let result = try_out(draft, validate_only, |branch| {
            let target = target(branch, first, resource.resource_type, &resource.resource_name)?;
            replace(branch, target, entries)
        });
        let (error_code, error_message) = wire(&result);
        alter_configs_response::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
        }
    });
    AlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

pub(super) fn incremental_alter_configs(
    draft: &mut Draft<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let validate_only = request.validate_only;
    let mut seen = BTreeSet::new();
    let responses = request.resources.into_iter().map(|resource| {
        let first = seen.insert(key(resource.resource_type, &resource.resource_name));
        let entries = resource
            .configs
            .into_iter()
            .map(|entry| (entry.name, entry.config_operation, entry.value))
            .collect();
        let result = try_out(draft, validate_only, |branch| {
            let target = target(branch, first, resource.resource_type, &resource.resource_name)?;
            change(branch, target, entries)
        });
        let (error_code, error_message) = wire(&result);
        incremental_alter_configs_response::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
        }
    });
    IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

/// Decides on a branch. The draft takes over its changes if it succeeds and the request does more
/// than validate.
fn try_out(
    draft: &mut Draft<'_>,
    validate_only: bool,
    decide: impl FnOnce(&mut Draft<'_>) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut branch = draft.branch();
    let result = if branch.is_spent() { Err(too_large()) } else { decide(&mut branch) };
    draft.merge(branch, result.is_ok() && !validate_only);
    result
}

/// A normalised resource key: a broker's name is a number, however it is written.
fn key(kind: i8, name: &str) -> (i8, String) {
    let id = name.parse::<i32>().ok().filter(|_| kind == TYPE_BROKER);
    (kind, id.map_or_else(|| name.to_owned(), |id| id.to_string()))
}

fn target(draft: &Draft<'_>, first: bool, kind: i8, name: &str) -> Result<Target, ApiError> {
    let invalid = |message: &str| ApiError::new(ErrorCode::InvalidRequest, message);
    match kind {
        _ if !first => Err(invalid("Each resource must appear at most once.")),
        TYPE_TOPIC if name.is_empty() => Err(invalid("Default topic resources are not allowed.")),
        TYPE_TOPIC => {
            let unknown = || {
                ApiError::new(
                    ErrorCode::UnknownTopicOrPartition,
                    format!("The topic '{name}' does not exist."),
                )
            };
            draft.state.topic_by_name(name).map(|topic| Target::Topic(topic.id)).ok_or_else(unknown)
        }
        TYPE_BROKER if name.is_empty() => Ok(Target::AllBrokers),
        TYPE_BROKER => {
            let id = name
                .parse()
                .map(BrokerId)
                .map_err(|_| invalid("Unable to parse broker name as a base 10 number."))?;
            let unknown = || {
                ApiError::new(
                    ErrorCode::BrokerIdNotRegistered,
                    format!("No broker with id {id} found."),
                )
            };
            draft.state.brokers.get(&id).map(|_| Target::Broker(id)).ok_or_else(unknown)
        }
        TYPE_GROUP if name.is_empty() => Err(invalid("Default group resources are not allowed.")),
        TYPE_GROUP => Ok(Target::Group(name.to_owned())),
        TYPE_CLIENT_METRICS if name.is_empty() => Err(invalid("Subscription name can't be empty")),
        TYPE_CLIENT_METRICS => Ok(Target::ClientMetrics(name.to_owned())),
        other => Err(invalid(&format!("Unexpected resource type {other}."))),
    }
}

fn current(draft: &Draft<'_>, target: &Target) -> Configs {
    let cluster = &draft.state.cluster.resource.spec;
    match target {
        Target::Topic(id) => draft
            .state
            .topics
            .get(id)
            .map(|topic| topic.resource.spec.config.texts().clone())
            .unwrap_or_default(),
        Target::AllBrokers => cluster.config.texts().clone(),
        Target::Broker(id) => cluster
            .brokers
            .config
            .get(&id.to_string())
            .map(|config| config.texts().clone())
            .unwrap_or_default(),
        Target::Group(name) => cluster
            .consumer_groups
            .config
            .get(name)
            .map(|config| config.texts().clone())
            .unwrap_or_default(),
        Target::ClientMetrics(name) => cluster
            .client_metrics
            .get(name)
            .map(|config| config.texts().clone())
            .unwrap_or_default(),
    }
}

/// AlterConfigs: removes every setting that the request does not name. It keeps those that Apache
/// Kafka has in `server.properties`, which AlterConfigs cannot change.
fn replace(
    draft: &mut Draft<'_>,
    target: Target,
    entries: Vec<(String, Option<String>)>,
) -> Result<(), ApiError> {
    let mut next = match &target {
        Target::Topic(_) | Target::Group(_) | Target::ClientMetrics(_) => Configs::new(),
        Target::Broker(_) | Target::AllBrokers => {
            let mut kept = current(draft, &target);
            kept.retain(|name, _| {
                config::broker_key(name).is_some_and(|key| key.scope == Scope::Cluster)
            });
            kept
        }
    };
    let mut named = BTreeSet::new();
    for (name, value) in entries {
        let value = value_of(&name, value)?;
        if !named.insert(name.clone()) {
            return Err(ApiError::new(
                ErrorCode::InvalidRequest,
                "Error due to duplicate config keys",
            ));
        }
        let value = check(&target, &name, &value)?;
        next.insert(name, value);
    }
    put(draft, target, next)
}

fn change(
    draft: &mut Draft<'_>,
    target: Target,
    entries: Vec<(String, i8, Option<String>)>,
) -> Result<(), ApiError> {
    let mut next = current(draft, &target);
    let mut named = BTreeSet::new();
    for (name, code, value) in entries {
        if !named.insert(name.clone()) {
            return Err(ApiError::new(
                ErrorCode::InvalidRequest,
                "Error due to duplicate config keys",
            ));
        }
        let value = match operation(&name, code, value)? {
            Operation::Delete => {
                next.remove(&name);
                continue;
            }
            Operation::Set(value) => value,
            Operation::Append(value) => {
                let mut list = list_of(&next, &target, &name, "APPEND")?;
                let mut there: BTreeSet<&str> = list.iter().copied().collect();
                list.extend(parts(&value).filter(|part| there.insert(*part)));
                list.join(",")
            }
            Operation::Subtract(value) => {
                let gone: BTreeSet<&str> = parts(&value).collect();
                let mut list = list_of(&next, &target, &name, "SUBTRACT")?;
                list.retain(|part| !gone.contains(part));
                list.join(",")
            }
        };
        let value = check(&target, &name, &value)?;
        next.insert(name, value);
    }
    put(draft, target, next)
}

fn operation(name: &str, code: i8, value: Option<String>) -> Result<Operation, ApiError> {
    match code {
        0 => value_of(name, value).map(Operation::Set),
        1 => Ok(Operation::Delete),
        2 => value_of(name, value).map(Operation::Append),
        3 => value_of(name, value).map(Operation::Subtract),
        other => {
            Err(ApiError::new(ErrorCode::InvalidRequest, format!("Unknown operation type {other}")))
        }
    }
}

/// A value that is not null and is short enough to be parsed.
fn value_of(name: &str, value: Option<String>) -> Result<String, ApiError> {
    let value = value.ok_or_else(|| {
        ApiError::new(ErrorCode::InvalidRequest, format!("Null value not supported for : {name}"))
    })?;
    check_bytes(name.len() + value.len())?;
    Ok(value)
}

/// The elements of a comma-separated list.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// The elements of a list setting; an unset list starts with its default.
fn list_of<'a>(
    configs: &'a Configs,
    target: &Target,
    name: &str,
    operation: &str,
) -> Result<Vec<&'a str>, ApiError> {
    let key = match target {
        Target::Topic(_) => config::topic_key(name),
        Target::Broker(_) | Target::AllBrokers => config::broker_key(name),
        Target::Group(_) => config::group_key(name),
        Target::ClientMetrics(_) => config::client_metrics_key(name),
    };
    let Some(key) = key.filter(|key| key.kind == ConfigType::List) else {
        let message = format!("Can't {operation} to key {name} because its type is not LIST.");
        return Err(ApiError::new(ErrorCode::InvalidConfig, message));
    };
    let text = configs.get(name).map(String::as_str).or(key.default).unwrap_or_default();
    Ok(parts(text).collect())
}

/// The canonical form of a valid value.
fn check(target: &Target, name: &str, value: &str) -> Result<String, ApiError> {
    let checked = match target {
        Target::Topic(_) => config::validate_topic_entry(name, value),
        Target::AllBrokers => config::validate_broker_entry(name, value, Door::AllBrokers),
        Target::Broker(_) => config::validate_broker_entry(name, value, Door::OneBroker),
        Target::Group(_) => config::validate_group_entry(name, value),
        Target::ClientMetrics(_) => config::validate_client_metrics_entry(name, value),
    };
    checked.map(|value| value.to_string()).map_err(|error| refused(&error))
}

fn refused(error: &ConfigError) -> ApiError {
    let code = match error {
        ConfigError::Request(_) => ErrorCode::InvalidRequest,
        _ => ErrorCode::InvalidConfig,
    };
    ApiError::new(code, error.to_string())
}

/// All settings of a topic in their canonical form, validated one by one and against each other.
pub(super) fn canonical_topic_settings(
    settings: &Configs,
    cluster: &Configs,
) -> Result<TopicConfig, ApiError> {
    let invalid = |message: String| ApiError::new(ErrorCode::InvalidConfig, message);
    check_size(settings)?;
    config::validate_topic(settings, Layers { cluster: Some(cluster), ..Layers::default() })
        .map_err(|error| invalid(error.to_string()))?;
    let canonical = settings.iter().map(|(name, value)| {
        let value = config::validate_topic_entry(name, value)
            .map_err(|error| invalid(error.to_string()))?;
        Ok((name.clone(), value.to_string()))
    });
    TopicConfig::from_texts(canonical.collect::<Result<_, ApiError>>()?)
        .map_err(|error| invalid(error.to_string()))
}

fn check_size(settings: &Configs) -> Result<(), ApiError> {
    check_bytes(settings.iter().map(|(name, value)| name.len() + value.len()).sum())
}

fn check_bytes(bytes: usize) -> Result<(), ApiError> {
    if bytes > SETTINGS_BYTES_MAX {
        return Err(ApiError::new(
            ErrorCode::InvalidConfig,
            format!("The settings take {bytes} bytes, and the most is {SETTINGS_BYTES_MAX}."),
        ));
    }
    Ok(())
}

fn put(draft: &mut Draft<'_>, target: Target, settings: Configs) -> Result<(), ApiError> {
    check_size(&settings)?;
    if let Target::Topic(id) = target {
        return put_topic(draft, id, &settings);
    }
    // The cluster's resource may be large, so it is copied only if something changes.
    let before = current(draft, &target);
    if before == settings {
        return Ok(());
    }
    let spec = &draft.state.cluster.resource.spec;
    match &target {
        Target::Group(name) => Named::groups(spec).change(name, &before, &settings).check(),
        Target::ClientMetrics(name) => {
            Named::client_metrics(spec).change(name, &before, &settings).check()
        }
        Target::Topic(_) | Target::Broker(_) | Target::AllBrokers => Ok(()),
    }
    .map_err(|(_, reason)| ApiError::new(ErrorCode::PolicyViolation, reason))?;
    match target {
        Target::Topic(_) => Ok(()),
        Target::AllBrokers => {
            let config = ClusterConfig::from_texts(settings).map_err(|error| unsuitable(&error))?;
            put_spec(draft, |spec| spec.config = config)
        }
        Target::Broker(id) => {
            let config = ClusterConfig::from_texts(settings).map_err(|error| unsuitable(&error))?;
            put_spec(draft, |spec| {
                put_named(
                    &mut spec.brokers.config,
                    id.to_string(),
                    config,
                    ClusterConfig::is_empty,
                );
            })
        }
        Target::Group(name) => {
            let cluster =
                Layers { cluster: Some(draft.state.cluster.configs()), ..Layers::default() };
            config::validate_group(&settings, cluster).map_err(|error| refused(&error))?;
            let config = GroupConfig::from_texts(settings).map_err(|error| unsuitable(&error))?;
            put_spec(draft, |spec| {
                put_named(&mut spec.consumer_groups.config, name, config, GroupConfig::is_empty);
            })
        }
        Target::ClientMetrics(name) => {
            let config =
                ClientMetricsConfig::from_texts(settings).map_err(|error| unsuitable(&error))?;
            put_spec(draft, |spec| {
                put_named(&mut spec.client_metrics, name, config, ClientMetricsConfig::is_empty);
            })
        }
    }
}

fn unsuitable(error: &InvalidSetting) -> ApiError {
    ApiError::new(ErrorCode::InvalidConfig, error.to_string())
}

/// Puts the settings of a named resource, which exists only while it has settings.
fn put_named<T>(
    all: &mut BTreeMap<String, T>,
    name: String,
    config: T,
    is_empty: impl Fn(&T) -> bool,
) {
    match is_empty(&config) {
        true => drop(all.remove(&name)),
        false => drop(all.insert(name, config)),
    }
}

fn put_topic(draft: &mut Draft<'_>, id: TopicId, settings: &Configs) -> Result<(), ApiError> {
    let config = canonical_topic_settings(settings, draft.state.cluster.configs())?;
    let Some(topic) = draft.state.topics.get(&id).cloned() else {
        return Ok(());
    };
    if topic.resource.spec.config == config {
        return Ok(());
    }
    let mut resource = with_generation(&topic.resource);
    resource.spec.config = config;
    let min_isr_before = draft.state.topic_setting(&topic, "min.insync.replicas");
    draft.push(Change::Topic(id, Box::new(resource)));
    if draft.state.topics.get(&id).is_some_and(|topic| {
        draft.state.topic_setting(topic, "min.insync.replicas") != min_isr_before
    }) {
        partitions::forget_eligible(draft, id);
    }
    Ok(())
}

fn put_spec(
    draft: &mut Draft<'_>,
    set: impl FnOnce(&mut KafkaClusterSpec),
) -> Result<(), ApiError> {
    let before = Arc::clone(&draft.state.cluster.resource);
    let mut resource = with_cluster_generation(&before);
    set(&mut resource.spec);
    if resource.spec != before.spec {
        put_cluster_resource(draft, resource);
    }
    Ok(())
}

/// Replaces the cluster's resource and updates the partitions that depend on it.
pub(super) fn put_cluster_resource(draft: &mut Draft<'_>, resource: weir_crds::KafkaCluster) {
    let min_isr =
        |draft: &Draft<'_>| draft.state.cluster.configs().get("min.insync.replicas").cloned();
    let before = min_isr(draft);
    draft.push(Change::Cluster(Arc::new(resource)));
    if min_isr(draft) != before {
        for id in draft.state.topics.keys().copied().collect::<Vec<_>>() {
            partitions::forget_eligible(draft, id);
        }
    }
}
