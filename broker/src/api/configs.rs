//! DescribeConfigs, and the broker's own configuration for other APIs. `alter` changes
//! configurations.
//!
//! `weir_settings` has the tables and the order of precedence. This module checks permissions and
//! builds the response.

mod alter;
mod list;

use std::sync::Arc;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::describe_configs_request::DescribeConfigsResource;
use weir_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use weir_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use weir_protocol::types::BrokerId;
use weir_settings::{
    self as config, BROKER, CLIENT_METRICS, ConfigKey, ConfigSource, Configs, Effective, GROUP,
    Layers, Synonym, TOPIC, Value,
};

pub(crate) use self::alter::{handle_alter, handle_incremental_alter};
pub(crate) use self::list::handle as handle_list;
use super::repeats::once;
use super::{RequestContext, topic_name};
use crate::api::Services;
use crate::auth::{Authorizer, Operation, Resource};
use crate::config::Config;
use crate::metadata::{MetadataImage, NamedConfigs};

/// `ConfigResource.Type` in Apache Kafka, for the types that exist here.
const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;
const BROKER_LOGGER_RESOURCE: i8 = 8;
const CLIENT_METRICS_RESOURCE: i8 = 16;
const GROUP_RESOURCE: i8 = 32;

/// Answers a request.
pub(crate) fn handle(
    services: &Services,
    cx: &RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let process = process_configs(&services.config);
    let image = services.metadata.load();
    let this = Described {
        image: &image,
        id: services.config.id,
        layers: Layers { process: Some(&process), ..image.layers(services.config.id) },
    };
    DescribeConfigsResponse {
        results: this.describe(&services.authorizer, cx, &request),
        ..Default::default()
    }
}

/// The value of a numeric configuration of this broker; 0 when it is not a number.
pub(super) fn number(image: &MetadataImage, id: BrokerId, name: &str) -> i64 {
    match value(image, id, name) {
        Some(Value::Integer(number)) => number,
        _ => 0,
    }
}

/// Whether a boolean configuration of this broker is true.
pub(super) fn flag(image: &MetadataImage, id: BrokerId, name: &str) -> bool {
    value(image, id, name) == Some(Value::Boolean(true))
}

fn value(image: &MetadataImage, id: BrokerId, name: &str) -> Option<Value> {
    let key = config::broker_key(name)?;
    key.parse(&image.layers(id).broker_value(name)?).ok()
}

/// The settings from the command line, under Kafka's names.
fn process_configs(config: &Config) -> Configs {
    let address = |name: &str, (host, port): &(String, u16)| match host.contains(':') {
        true => format!("{name}://[{host}]:{port}"),
        false => format!("{name}://{host}:{port}"),
    };
    let listeners = config.listeners.iter().map(|listener| address(&listener.name, &listener.bind));
    let advertised =
        config.listeners.iter().map(|listener| address(&listener.name, &listener.advertised));
    let set = [
        ("node.id", Some(config.id.to_string())),
        ("broker.id", Some(config.id.to_string())),
        ("broker.rack", config.rack.clone()),
        ("listeners", Some(listeners.collect::<Vec<_>>().join(","))),
        ("advertised.listeners", Some(advertised.collect::<Vec<_>>().join(","))),
        ("log.dirs", Some(config.data.display().to_string())),
    ];
    set.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// Checks that the caller may do `operation` (read or change configurations) to a resource. The
/// error is the one for that type of resource.
fn check_allowed(
    authorizer: &Authorizer,
    cx: &RequestContext,
    operation: Operation,
    kind: i8,
    name: &str,
) -> Result<(), ErrorCode> {
    let (resource, error) = match kind {
        TOPIC_RESOURCE => (Resource::Topic(name), ErrorCode::TopicAuthorizationFailed),
        GROUP_RESOURCE => (Resource::Group(name), ErrorCode::GroupAuthorizationFailed),
        _ => (Resource::Cluster, ErrorCode::ClusterAuthorizationFailed),
    };
    if authorizer.allows(&cx.requester, operation, resource) { Ok(()) } else { Err(error) }
}

/// The metadata and settings that DescribeConfigs describes.
struct Described<'a> {
    image: &'a MetadataImage,
    id: BrokerId,
    layers: Layers<'a>,
}

impl Described<'_> {
    fn describe(
        &self,
        authorizer: &Authorizer,
        cx: &RequestContext,
        request: &DescribeConfigsRequest,
    ) -> Vec<DescribeConfigsResult> {
        let resources = once(request.resources.iter().collect(), |resource| {
            (resource.resource_type, &resource.resource_name)
        });
        let results = resources.into_iter().map(|resource| {
            let described = check_allowed(
                authorizer,
                cx,
                Operation::DescribeConfigs,
                resource.resource_type,
                &resource.resource_name,
            )
            .map_err(|error| (error, Some(error.message().to_owned())))
            .and_then(|()| self.resource(resource, request));
            let (configs, error, message) = match described {
                Ok(configs) => (configs, ErrorCode::None, None),
                Err((error, message)) => (Vec::new(), error, message),
            };
            DescribeConfigsResult {
                error_code: error.code(),
                error_message: message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                configs,
            }
        });
        results.collect()
    }

    /// The entries of one resource (`ConfigHelper.describeConfigs`).
    fn resource(
        &self,
        resource: &DescribeConfigsResource,
        request: &DescribeConfigsRequest,
    ) -> Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, Option<String>)> {
        let name = resource.resource_name.as_str();
        let wanted = |key: &&ConfigKey| match resource.configuration_keys.as_deref() {
            None | Some([]) => true,
            Some(names) => names.iter().any(|name| name == key.name),
        };
        match resource.resource_type {
            TOPIC_RESOURCE => {
                topic_name::check(name)
                    .map_err(|message| (ErrorCode::InvalidTopicException, Some(message)))?;
                let topic = self
                    .image
                    .topic_by_name(name)
                    .ok_or((ErrorCode::UnknownTopicOrPartition, None))?;
                let entry = |key| {
                    entry(key, self.layers.describe_topic(&topic.configs, key), false, request)
                };
                Ok(TOPIC.iter().filter(wanted).map(entry).collect())
            }
            BROKER_RESOURCE if name.is_empty() => {
                // The settings of the cluster alone, without defaults.
                let cluster = Layers { cluster: self.layers.cluster, ..Layers::default() };
                let set = BROKER
                    .iter()
                    .filter(wanted)
                    .filter(|key| self.image.cluster_configs.contains_key(key.name));
                let entries = set.map(|key| {
                    let mut effective = cluster.describe_broker(key);
                    effective
                        .synonyms
                        .retain(|synonym| synonym.source == ConfigSource::DynamicDefaultBroker);
                    entry(key, effective, is_read_only(key), request)
                });
                Ok(entries.collect())
            }
            BROKER_RESOURCE => {
                check_broker_id(name, self.id, "Broker id", " or empty string")?;
                Ok(BROKER
                    .iter()
                    .filter(wanted)
                    .map(|key| {
                        entry(key, self.layers.describe_broker(key), is_read_only(key), request)
                    })
                    .collect())
            }
            GROUP_RESOURCE if name.is_empty() => Err(invalid("Group name must not be empty")),
            GROUP_RESOURCE => {
                let set = set_on(&self.image.group_configs, name);
                let entry = |key| entry(key, self.layers.describe_group(&set, key), false, request);
                Ok(GROUP.iter().filter(wanted).map(entry).collect())
            }
            CLIENT_METRICS_RESOURCE if name.is_empty() => {
                Err(invalid("Client metrics subscription name must not be empty"))
            }
            CLIENT_METRICS_RESOURCE => {
                let set = set_on(&self.image.client_metrics, name);
                let entry =
                    |key| entry(key, Layers::describe_client_metrics(&set, key), false, request);
                Ok(CLIENT_METRICS.iter().filter(wanted).map(entry).collect())
            }
            other => Err((
                ErrorCode::InvalidRequest,
                Some(format!("Unsupported resource type: {other}")),
            )),
        }
    }
}

fn invalid(message: &str) -> (ErrorCode, Option<String>) {
    (ErrorCode::InvalidRequest, Some(message.to_owned()))
}

/// The configurations set on a named resource.
fn set_on(all: &NamedConfigs, name: &str) -> Arc<Configs> {
    all.get(name).cloned().unwrap_or_default()
}

/// Checks that a resource's name is this broker's id. Kafka's two messages for it differ in `what`
/// and `or`.
fn check_broker_id(
    name: &str,
    this: BrokerId,
    what: &str,
    or: &str,
) -> Result<(), (ErrorCode, Option<String>)> {
    let wrong = match name.parse::<i32>() {
        Ok(id) if id == this.0 => return Ok(()),
        Ok(_) => format!("Unexpected broker id, expected {this}{or}, but received {name}"),
        Err(_) => format!("{what} must be an integer, but it is: {name}"),
    };
    Err((ErrorCode::InvalidRequest, Some(wrong)))
}

fn is_read_only(key: &ConfigKey) -> bool {
    matches!(key.scope, config::Scope::Process | config::Scope::Cluster)
}

fn entry(
    key: &ConfigKey,
    effective: Effective<'_>,
    read_only: bool,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResourceResult {
    let shown = |value: &str| (!key.is_sensitive()).then(|| value.to_owned());
    let synonym = |synonym: &Synonym<'_>| DescribeConfigsSynonym {
        name: synonym.name.to_owned(),
        value: shown(&synonym.value),
        source: synonym.source as i8,
    };
    DescribeConfigsResourceResult {
        name: key.name.to_owned(),
        value: effective.value.as_deref().and_then(shown),
        read_only,
        config_source: effective.source as i8,
        is_sensitive: key.is_sensitive(),
        synonyms: if request.include_synonyms {
            effective.synonyms.iter().map(synonym).collect()
        } else {
            Vec::new()
        },
        config_type: key.kind as i8,
        documentation: request.include_documentation.then(|| key.documentation().into_owned()),
    }
}

#[cfg(test)]
mod tests;
