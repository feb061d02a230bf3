//! AlterConfigs and IncrementalAlterConfigs: refuses what this broker can judge, and forwards the
//! rest to the controller (`ConfigAdminManager` in Apache Kafka).

use std::collections::{BTreeMap, BTreeSet};

use weir_protocol::api::ApiKey;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_response, incremental_alter_configs_response,
};
use weir_protocol::types::BrokerId;
use weir_settings::{self as config, ConfigError, ConfigType, Door};

use super::{
    BROKER_RESOURCE, CLIENT_METRICS_RESOURCE, GROUP_RESOURCE, TOPIC_RESOURCE, check_allowed,
    check_broker_id,
};
use crate::api::RequestContext;
use crate::api::Services;
use crate::auth::{Authorizer, Operation};

/// `AlterConfigOp.OpType` in Apache Kafka.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// A resource, by its type and name.
type Key = (i8, String);
/// The result for a resource: the error and its message.
type Outcome = (ErrorCode, Option<String>);

/// Answers AlterConfigs, which replaces the whole configuration of a resource.
pub(crate) async fn handle_alter(
    services: &Services,
    cx: &RequestContext,
    mut request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let changes = request.resources.iter().map(|resource| Change {
        kind: resource.resource_type,
        name: &resource.resource_name,
        entries: resource
            .configs
            .iter()
            .map(|config| (config.name.as_str(), SET, config.value.as_deref()))
            .collect(),
    });
    let mut verdicts =
        Verdicts::on(services.config.id, &services.authorizer, cx, &changes.collect::<Vec<_>>());
    request
        .resources
        .retain(|resource| verdicts.is_open(resource.resource_type, &resource.resource_name));
    if !request.resources.is_empty() {
        let answer = services
            .controller
            .forward::<_, AlterConfigsResponse>(
                &services.metadata,
                cx.forwarded_by(),
                (ApiKey::AlterConfigs, cx.version),
                &request,
            )
            .await;
        verdicts.add_results(answer.map(|response| {
            let answers = response.responses.into_iter();
            answers.map(|answer| {
                (
                    (answer.resource_type, answer.resource_name),
                    (answer.error_code, answer.error_message),
                )
            })
        }));
    }
    let responses =
        verdicts.into_answers().map(|((resource_type, resource_name), (error, error_message))| {
            alter_configs_response::AlterConfigsResourceResponse {
                error_code: error.code(),
                error_message,
                resource_type,
                resource_name,
            }
        });
    AlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

/// Answers IncrementalAlterConfigs, which changes only the named keys (KIP-339).
pub(crate) async fn handle_incremental_alter(
    services: &Services,
    cx: &RequestContext,
    mut request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let changes = request.resources.iter().map(|resource| Change {
        kind: resource.resource_type,
        name: &resource.resource_name,
        entries: resource
            .configs
            .iter()
            .map(|config| (config.name.as_str(), config.config_operation, config.value.as_deref()))
            .collect(),
    });
    let mut verdicts =
        Verdicts::on(services.config.id, &services.authorizer, cx, &changes.collect::<Vec<_>>());
    request
        .resources
        .retain(|resource| verdicts.is_open(resource.resource_type, &resource.resource_name));
    if !request.resources.is_empty() {
        let api = ApiKey::IncrementalAlterConfigs;
        let answer = services
            .controller
            .forward::<_, IncrementalAlterConfigsResponse>(
                &services.metadata,
                cx.forwarded_by(),
                (api, cx.version),
                &request,
            )
            .await;
        verdicts.add_results(answer.map(|response| {
            let answers = response.responses.into_iter();
            answers.map(|answer| {
                (
                    (answer.resource_type, answer.resource_name),
                    (answer.error_code, answer.error_message),
                )
            })
        }));
    }
    let responses =
        verdicts.into_answers().map(|((resource_type, resource_name), (error, error_message))| {
            incremental_alter_configs_response::AlterConfigsResourceResponse {
                error_code: error.code(),
                error_message,
                resource_type,
                resource_name,
            }
        });
    IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

/// The resources of a request, and the results so far.
struct Verdicts {
    /// In the order of the request.
    order: Vec<Key>,
    outcomes: BTreeMap<Key, Outcome>,
}

impl Verdicts {
    /// Starts with the results of the resources that this broker refuses.
    fn on(
        id: BrokerId,
        authorizer: &Authorizer,
        cx: &RequestContext,
        changes: &[Change<'_>],
    ) -> Self {
        Self {
            order: changes.iter().map(Change::key).collect(),
            outcomes: refusals(id, authorizer, cx, changes),
        }
    }

    /// Whether the resource has no result yet.
    fn is_open(&self, kind: i8, name: &str) -> bool {
        !self.outcomes.contains_key(&(kind, name.to_owned()))
    }

    /// Adds the controller's results for the open resources, or the error of the request to it.
    fn add_results(
        &mut self,
        answer: Result<impl Iterator<Item = (Key, (i16, Option<String>))>, ErrorCode>,
    ) {
        match answer {
            Ok(answers) => self.outcomes.extend(
                answers.map(|(key, (code, message))| (key, (ErrorCode::from_code(code), message))),
            ),
            Err(error) => {
                for key in &self.order {
                    self.outcomes.entry(key.clone()).or_insert((error, None));
                }
            }
        }
    }

    /// The result of each resource; UNKNOWN_SERVER_ERROR for one that the controller's answer
    /// lacks.
    fn into_answers(self) -> impl Iterator<Item = (Key, Outcome)> {
        let Self { order, outcomes } = self;
        order.into_iter().map(move |key| {
            let outcome =
                outcomes.get(&key).cloned().unwrap_or((ErrorCode::UnknownServerError, None));
            (key, outcome)
        })
    }
}

/// The change of one resource, in a form for both APIs.
struct Change<'a> {
    kind: i8,
    name: &'a str,
    /// Name, operation, value.
    entries: Vec<(&'a str, i8, Option<&'a str>)>,
}

impl Change<'_> {
    fn key(&self) -> Key {
        (self.kind, self.name.to_owned())
    }
}

/// The resources that this broker refuses, with their results.
fn refusals(
    id: BrokerId,
    authorizer: &Authorizer,
    cx: &RequestContext,
    changes: &[Change<'_>],
) -> BTreeMap<Key, Outcome> {
    let mut seen = BTreeSet::new();
    let mut refused = BTreeMap::new();
    for change in changes {
        let checked =
            check_allowed(authorizer, cx, Operation::AlterConfigs, change.kind, change.name)
                .map_err(|error| (error, Some(error.message().to_owned())))
                .and_then(|()| check(id, change));
        if let Err(outcome) = checked {
            refused.insert(change.key(), outcome);
        }
        if !seen.insert(change.key()) {
            refused.insert(
                change.key(),
                invalid("Each resource must appear at most once.".to_owned()),
            );
        }
    }
    refused
}

fn invalid(message: String) -> Outcome {
    (ErrorCode::InvalidRequest, Some(message))
}

/// Checks that need no current configuration (`ConfigAdminManager.preprocess`).
fn check(id: BrokerId, change: &Change<'_>) -> Result<(), Outcome> {
    let names: BTreeSet<&str> = change.entries.iter().map(|(name, ..)| *name).collect();
    if names.len() < change.entries.len() {
        return Err(invalid("Error due to duplicate config keys".to_owned()));
    }
    let without_value = change
        .entries
        .iter()
        .filter(|(_, operation, value)| *operation != DELETE && value.is_none());
    let nulls: Vec<&str> = without_value.map(|(name, ..)| *name).collect();
    if !nulls.is_empty() {
        return Err(invalid(format!("Null value not supported for : {}", nulls.join(", "))));
    }
    match change.kind {
        TOPIC_RESOURCE | GROUP_RESOURCE | CLIENT_METRICS_RESOURCE => Ok(()),
        BROKER_RESOURCE => {
            let door = if change.name.is_empty() {
                Door::AllBrokers
            } else {
                check_broker_id(change.name, id, "Node id", "")?;
                Door::OneBroker
            };
            change.entries.iter().try_for_each(|(name, operation, value)| {
                check_broker_entry(name, *operation, value.unwrap_or_default(), door)
            })
        }
        other => Err(invalid(format!("Unknown resource type {other}"))),
    }
}

fn check_broker_entry(name: &str, operation: i8, value: &str, door: Door) -> Result<(), Outcome> {
    let checked = || config::validate_broker_entry(name, value, door).map(drop).map_err(refused);
    match operation {
        SET => checked(),
        DELETE => Ok(()),
        APPEND | SUBTRACT
            if config::broker_key(name).is_some_and(|key| key.kind == ConfigType::List) =>
        {
            checked()
        }
        APPEND => Err((
            ErrorCode::InvalidConfig,
            Some(format!("Config value append is not allowed for config key: {name}")),
        )),
        SUBTRACT => Err((
            ErrorCode::InvalidConfig,
            Some(format!("Config value subtract is not allowed for config key: {name}")),
        )),
        other => Err(invalid(format!("Unknown operations type {other}"))),
    }
}

/// For an invalid value Kafka answers INVALID_REQUEST if the broker rejects it (KAFKA-13609), and
/// INVALID_CONFIG if the controller does.
fn refused(error: ConfigError) -> Outcome {
    let code = match error {
        ConfigError::SameForAll { .. } => ErrorCode::InvalidConfig,
        _ => ErrorCode::InvalidRequest,
    };
    (code, Some(error.to_string()))
}

#[cfg(test)]
mod tests;
