//! FindCoordinator: the coordinator of a group or a transactional id. The first request creates the
//! internal topic of the coordinators.

use weir_protocol::api::ApiKey;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use weir_protocol::messages::find_coordinator_response::Coordinator;
use weir_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, FindCoordinatorRequest, FindCoordinatorResponse,
};

use crate::api::RequestContext;
use crate::api::Services;
use crate::auth::{Operation, Resource};
use crate::coordinator::{StateMachine, coordinator_of};
use crate::group::Groups;
use crate::metadata::MetadataImage;
use crate::transaction::Transactions;

/// The types of keys (`CoordinatorType`): a group, a transactional id.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// The first version that asks for several keys at once (KIP-699).
const BATCH_VERSION: i16 = 4;

/// The version of CreateTopics that creates the topic.
const CREATE_TOPICS_VERSION: i16 = 7;
/// The timeout of that request, as `request.timeout.ms` sets it in Kafka.
const CREATE_TIMEOUT_MS: i32 = 30_000;

/// Answers a request.
pub(crate) async fn handle(
    services: &Services,
    cx: &RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let keys =
        if cx.version < BATCH_VERSION { vec![request.key] } else { request.coordinator_keys };
    // Once for all keys, so that a failure is not repeated for each.
    let kind = keys.iter().find_map(|key| check(services, cx, request.key_type, key).ok());
    if let Some(kind) = kind
        && services.metadata.load().topic_by_name(kind.topic()).is_none()
    {
        create(services, cx, kind.creatable(services)).await;
    }
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let result = check(services, cx, request.key_type, &key)
            .and_then(|kind| find(services, cx, kind, &key));
        found.push(coordinator(key, result));
    }
    if cx.version >= BATCH_VERSION {
        return FindCoordinatorResponse { coordinators: found, ..Default::default() };
    }
    let only = found.pop().unwrap_or_default();
    FindCoordinatorResponse {
        error_code: only.error_code,
        error_message: only.error_message,
        node_id: only.node_id,
        host: only.host,
        port: only.port,
        ..Default::default()
    }
}

/// A kind of coordinator.
#[derive(Clone, Copy)]
enum Kind {
    Group,
    Transaction,
}

impl Kind {
    /// The internal topic of the coordinators.
    fn topic(self) -> &'static str {
        match self {
            Self::Group => Groups::TOPIC,
            Self::Transaction => Transactions::TOPIC,
        }
    }

    /// The CreateTopics entry for that topic, with the broker's settings.
    fn creatable(self, services: &Services) -> CreatableTopic {
        let image = services.metadata.load();
        let layers = image.layers(services.config.id);
        let number = |key| i32::try_from(layers.broker_number(key)).unwrap_or(i32::MAX);
        let segment_bytes = |key| ("segment.bytes", number(key).to_string());
        match self {
            Self::Group => {
                let configs = vec![
                    ("compression.type", "producer".to_owned()),
                    segment_bytes("offsets.topic.segment.bytes"),
                ];
                compacted(Groups::TOPIC, number("offsets.topic.num.partitions"), configs)
            }
            Self::Transaction => {
                let configs = vec![
                    ("compression.type", "uncompressed".to_owned()),
                    ("unclean.leader.election.enable", "false".to_owned()),
                    ("min.insync.replicas", number("transaction.state.log.min.isr").to_string()),
                    segment_bytes("transaction.state.log.segment.bytes"),
                ];
                compacted(
                    Transactions::TOPIC,
                    number("transaction.state.log.num.partitions"),
                    configs,
                )
            }
        }
    }
}

struct Found {
    node_id: i32,
    host: String,
    port: u16,
}

/// The kind of coordinator for the key type, if the caller may describe the key.
fn check(
    services: &Services,
    cx: &RequestContext,
    key_type: i8,
    key: &str,
) -> Result<Kind, ErrorCode> {
    let (kind, resource, refusal) = match key_type {
        GROUP => (Kind::Group, Resource::Group(key), ErrorCode::GroupAuthorizationFailed),
        TRANSACTION => (
            Kind::Transaction,
            Resource::TransactionalId(key),
            ErrorCode::TransactionalIdAuthorizationFailed,
        ),
        _ => return Err(ErrorCode::InvalidRequest),
    };
    if !services.authorizer.allows(&cx.requester, Operation::Describe, resource) {
        return Err(refusal);
    }
    Ok(kind)
}

fn find(
    services: &Services,
    cx: &RequestContext,
    kind: Kind,
    key: &str,
) -> Result<Found, ErrorCode> {
    let image = services.metadata.load();
    reachable(&image, cx, kind.topic(), key).ok_or(ErrorCode::CoordinatorNotAvailable)
}

/// The coordinator of `key`, if it can be reached on the caller's listener.
fn reachable(image: &MetadataImage, cx: &RequestContext, topic: &str, key: &str) -> Option<Found> {
    let id = coordinator_of(image, topic, key)?;
    let endpoint = image.brokers.get(&id)?.endpoint(&cx.listener.name)?;
    Some(Found { node_id: id.0, host: endpoint.host.clone(), port: endpoint.port })
}

/// An entry for a compacted internal topic. Its replication factor is left to the controller, which
/// uses the setting, or fits it to the cluster's size if it is not set.
fn compacted(name: &str, partitions: i32, configs: Vec<(&str, String)>) -> CreatableTopic {
    let config = |(name, value): (&str, String)| CreatableTopicConfig {
        name: name.to_owned(),
        value: Some(value),
    };
    let compacts = ("cleanup.policy", "compact".to_owned());
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: -1,
        configs: std::iter::once(compacts).chain(configs).map(config).collect(),
        ..Default::default()
    }
}

/// Asks the controller to create an internal topic. A concurrent creation is no error.
async fn create(services: &Services, cx: &RequestContext, topic: CreatableTopic) {
    let name = topic.name.clone();
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: CREATE_TIMEOUT_MS,
        validate_only: false,
    };
    let api = (ApiKey::CreateTopics, CREATE_TOPICS_VERSION);
    let answer: Result<CreateTopicsResponse, _> =
        services.controller.forward(&services.metadata, cx.forwarded_by(), api, &request).await;
    let refused = match answer {
        Err(error) => Some((error, None)),
        Ok(response) => response
            .topics
            .into_iter()
            .map(|topic| (ErrorCode::from_code(topic.error_code), topic.error_message))
            .find(|(error, _)| !matches!(error, ErrorCode::None | ErrorCode::TopicAlreadyExists)),
    };
    if let Some((error, reason)) = refused {
        cx.span().in_scope(|| {
            tracing::warn!(topic = name, %error, reason, "cannot create a coordinators' topic: clients are told to look for their coordinator again");
        });
    }
}

fn coordinator(key: String, result: Result<Found, ErrorCode>) -> Coordinator {
    match result {
        Ok(found) => Coordinator {
            key,
            node_id: found.node_id,
            host: found.host,
            port: i32::from(found.port),
            // Some clients read it whether there was an error or not.
            error_message: Some(String::new()),
            ..Default::default()
        },
        Err(error) => Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: error.code(),
            error_message: Some(error.message().to_owned()),
            ..Default::default()
        },
    }
}
