//! Metadata: the brokers, the topics and their leaders, as the client's listener shows them.
//!
//! May create a missing topic (`auto.create.topics.enable`) through the controller, as CreateTopics
//! does. A topic that the caller may not describe gets the same answer whether it exists or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;
use weir_protocol::api::ApiKey;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::create_topics_request::CreatableTopic;
use weir_protocol::messages::metadata_request::MetadataRequestTopic;
use weir_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use weir_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, MetadataRequest, MetadataResponse,
};
use weir_protocol::types::{BrokerId, TopicId};

use super::{RequestContext, configs, topic_name};
use crate::api::Services;
use crate::auth::{Authorizer, Operation, Resource};
use crate::metadata::{BrokerImage, MetadataImage, PartitionImage, TopicImage};

/// The version of CreateTopics that creates a topic on first use.
const CREATE_TOPICS_VERSION: i16 = 7;
/// The timeout of that request, as `request.timeout.ms` sets it in Kafka.
const CREATE_TIMEOUT_MS: i32 = 30_000;
/// The first version that distinguishes a missing endpoint from a missing leader.
const LISTENER_NOT_FOUND_VERSION: i16 = 6;

/// How long a repeated request for topics on one connection waits for the loss of a leader. The
/// follower on this broker and the leader's clients see the loss at the same moment. A client's
/// request may run before the fetchers' thread.
const ASKS_AGAIN_WAIT: Duration = Duration::from_millis(5);

/// Answers a request.
pub(crate) async fn handle(
    services: &Services,
    cx: &RequestContext,
    request: MetadataRequest,
) -> MetadataResponse {
    await_successors(services, cx, &request).await;
    let mut image = Arc::clone(&services.metadata.load());
    let mut asked = match select(&image, &services.authorizer, cx, &request) {
        Ok(asked) => asked,
        Err(error) => return refuse(&request, error),
    };
    let create = request.allow_auto_topic_creation
        && configs::flag(&image, services.config.id, "auto.create.topics.enable");
    let missing = if create {
        take_creatable(&image, &services.authorizer, cx, &mut asked)
    } else {
        Vec::new()
    };
    if !missing.is_empty() {
        let created = create_topics(services, cx, &missing).await.map(errors_by_name);
        // The controller client has waited until the created topics are in the image.
        image = Arc::clone(&services.metadata.load());
        asked.extend(missing.into_iter().map(|name| outcome(&image, &created, name)));
    }
    let response = respond(&image, &services.authorizer, cx, &request, asked, services.config.id);
    MetadataResponse {
        // The live brokers, and those that were alive until just now.
        brokers: brokers(services.metadata.known_brokers(&image), cx),
        cluster_id: Some(services.config.cluster_id.clone()),
        ..response
    }
}

/// The number of topics above which an answer takes long.
const TOPICS_OF_LARGE_ANSWERS: usize = 2_000;

/// Whether a small request has a large answer: all topics of a cluster with many.
pub(crate) fn is_of_many(services: &Services, request: &MetadataRequest) -> bool {
    let asks_for_all = request.topics.as_ref().is_none_or(Vec::is_empty);
    asks_for_all && services.metadata.load().topic_count() > TOPICS_OF_LARGE_ANSWERS
}

/// Waits for the controller to elect a successor, while a requested topic's leader has just lost
/// its connection to this broker.
async fn await_successors(services: &Services, cx: &RequestContext, request: &MetadataRequest) {
    let lost = services.replicas.lost_leaders();
    let names_topics = request.topics.as_ref().is_some_and(|topics| !topics.is_empty());
    if names_topics && cx.has_asked_for_topics.swap(true, Ordering::Relaxed) {
        // A client that asks again has often lost its leader just now. It should not get the old
        // leader.
        let _ = tokio::time::timeout(ASKS_AGAIN_WAIT, lost.changed()).await;
    }
    loop {
        let changed = lost.changed();
        let image = Arc::clone(&services.metadata.load());
        let leads = |id| {
            let is_led = |topic: &Arc<TopicImage>| {
                topic.partitions.iter().any(|partition| partition.leader == Some(id))
            };
            match &request.topics {
                None => image.topics().any(is_led),
                Some(topics) => topics
                    .iter()
                    .filter_map(|topic| match &topic.name {
                        Some(name) => image.topic_by_name(name),
                        None => image.topic(TopicId(topic.topic_id)),
                    })
                    .any(is_led),
            }
        };
        let Some(until) = lost.wait_until(leads) else { return };
        tokio::select! {
            () = services.metadata.wait_for(image.version + 1) => {}
            () = changed => {}
            () = tokio::time::sleep_until(until) => return,
        }
    }
}

fn respond(
    image: &MetadataImage,
    authorizer: &Authorizer,
    cx: &RequestContext,
    request: &MetadataRequest,
    asked: Vec<RequestedTopic>,
    this: BrokerId,
) -> MetadataResponse {
    MetadataResponse {
        brokers: brokers(image.live_brokers().collect(), cx),
        controller_id: controller_id(image, cx, this),
        topics: asked
            .into_iter()
            .map(|asked| answer(image, authorizer, cx, request, asked))
            .collect(),
        cluster_authorized_operations: cluster_operations(
            authorizer,
            cx,
            request.include_cluster_authorized_operations,
        ),
        ..Default::default()
    }
}

/// A topic in the answer.
#[derive(Debug, PartialEq)]
enum RequestedTopic {
    /// It exists, and the caller may describe it.
    Found(Arc<TopicImage>),
    /// No topic has this name.
    Missing(String),
    /// The answer is an error without partitions.
    Refused(ErrorCode, Option<String>, Uuid),
}

/// The topics of the answer, each once (`KafkaApis.handleTopicMetadataRequest`).
fn select(
    image: &MetadataImage,
    authorizer: &Authorizer,
    cx: &RequestContext,
    request: &MetadataRequest,
) -> Result<Vec<RequestedTopic>, ErrorCode> {
    let may_describe =
        |name: &str| authorizer.allows(&cx.requester, Operation::Describe, Resource::Topic(name));
    let topics = match &request.topics {
        // In version 0 an empty list means all topics.
        Some(topics) if cx.version > 0 || !topics.is_empty() => topics,
        _ => {
            return Ok(image
                .topics()
                .filter(|topic| may_describe(&topic.name))
                .map(|topic| RequestedTopic::Found(Arc::clone(topic)))
                .collect());
        }
    };
    // Versions 10 and 11 have a field for the id, but a client must not use it (KAFKA-12701).
    if cx.version < 12
        && topics.iter().any(|topic| topic.name.is_none() || !topic.topic_id.is_nil())
    {
        return Err(ErrorCode::InvalidRequest);
    }
    let by_id = topics.iter().any(|topic| !topic.topic_id.is_nil());
    let mut seen = BTreeSet::new();
    let mut asked = Vec::new();
    for MetadataRequestTopic { topic_id, name } in
        topics.iter().filter(|topic| seen.insert((topic.topic_id, topic.name.clone())))
    {
        asked.push(match (by_id, name) {
            (true, _) if topic_id.is_nil() => continue,
            (true, _) => match image.topic(TopicId(*topic_id)) {
                None => RequestedTopic::Refused(ErrorCode::UnknownTopicId, None, *topic_id),
                // The answer does not reveal the name.
                Some(topic) if !may_describe(&topic.name) => {
                    RequestedTopic::Refused(ErrorCode::TopicAuthorizationFailed, None, *topic_id)
                }
                Some(topic) => RequestedTopic::Found(Arc::clone(topic)),
            },
            (false, None) => {
                RequestedTopic::Refused(ErrorCode::InvalidTopicException, None, Uuid::nil())
            }
            (false, Some(name)) if !may_describe(name) => RequestedTopic::Refused(
                ErrorCode::TopicAuthorizationFailed,
                Some(name.clone()),
                Uuid::nil(),
            ),
            (false, Some(name)) => match image.topic_by_name(name) {
                Some(topic) => RequestedTopic::Found(Arc::clone(topic)),
                None if topic_name::check(name).is_err() => RequestedTopic::Refused(
                    ErrorCode::InvalidTopicException,
                    Some(name.clone()),
                    Uuid::nil(),
                ),
                None => RequestedTopic::Missing(name.clone()),
            },
        });
    }
    Ok(asked)
}

/// Removes and returns the missing topics that are to be created. Topics that the caller may not
/// create become refusals.
fn take_creatable(
    image: &MetadataImage,
    authorizer: &Authorizer,
    cx: &RequestContext,
    asked: &mut Vec<RequestedTopic>,
) -> Vec<String> {
    // Without a live broker a new topic has no replicas.
    if image.live_brokers().next().is_none() {
        return Vec::new();
    }
    let may_create_any = authorizer.allows(&cx.requester, Operation::Create, Resource::Cluster);
    let mut creatable = Vec::new();
    asked.retain_mut(|topic| match topic {
        // The brokers create their internal topics themselves.
        RequestedTopic::Missing(name) if topic_name::is_internal(name) => true,
        RequestedTopic::Missing(name)
            if may_create_any
                || authorizer.allows(&cx.requester, Operation::Create, Resource::Topic(name)) =>
        {
            creatable.push(std::mem::take(name));
            false
        }
        RequestedTopic::Missing(name) => {
            *topic = RequestedTopic::Refused(
                ErrorCode::TopicAuthorizationFailed,
                Some(std::mem::take(name)),
                Uuid::nil(),
            );
            true
        }
        _ => true,
    });
    creatable
}

async fn create_topics(
    services: &Services,
    cx: &RequestContext,
    names: &[String],
) -> Result<CreateTopicsResponse, ErrorCode> {
    let topic = |name: &String| CreatableTopic {
        name: name.clone(),
        num_partitions: -1,
        replication_factor: -1,
        ..Default::default()
    };
    let request = CreateTopicsRequest {
        topics: names.iter().map(topic).collect(),
        timeout_ms: CREATE_TIMEOUT_MS,
        validate_only: false,
    };
    let api = (ApiKey::CreateTopics, CREATE_TOPICS_VERSION);
    services.controller.forward(&services.metadata, cx.forwarded_by(), api, &request).await
}

fn errors_by_name(response: CreateTopicsResponse) -> BTreeMap<String, ErrorCode> {
    let topics = response.topics.into_iter();
    topics.map(|topic| (topic.name, ErrorCode::from_code(topic.error_code))).collect()
}

/// The result of creating `name`.
fn outcome(
    image: &MetadataImage,
    created: &Result<BTreeMap<String, ErrorCode>, ErrorCode>,
    name: String,
) -> RequestedTopic {
    if let Some(topic) = image.topic_by_name(&name) {
        return RequestedTopic::Found(Arc::clone(topic));
    }
    let error = match created {
        Err(error) => *error,
        Ok(errors) => errors.get(&name).copied().unwrap_or(ErrorCode::None),
    };
    // The client retries on LEADER_NOT_AVAILABLE. That suits errors that pass, and a topic that
    // another broker has created. Other errors go to the client.
    let error = match error {
        ErrorCode::None | ErrorCode::TopicAlreadyExists => ErrorCode::LeaderNotAvailable,
        error if error.is_retriable() => ErrorCode::LeaderNotAvailable,
        error => error,
    };
    RequestedTopic::Refused(error, Some(name), Uuid::nil())
}

fn answer(
    image: &MetadataImage,
    authorizer: &Authorizer,
    cx: &RequestContext,
    request: &MetadataRequest,
    asked: RequestedTopic,
) -> MetadataResponseTopic {
    match asked {
        RequestedTopic::Found(topic) => MetadataResponseTopic {
            name: Some(topic.name.to_string()),
            topic_id: topic.id.0,
            is_internal: topic.internal,
            partitions: topic
                .partitions
                .iter()
                .zip(0..)
                .map(|(partition, index)| describe_partition(image, cx, partition, index))
                .collect(),
            topic_authorized_operations: topic_operations(
                authorizer,
                cx,
                request.include_topic_authorized_operations,
                &topic.name,
            ),
            ..Default::default()
        },
        RequestedTopic::Missing(name) => {
            error_topic(ErrorCode::UnknownTopicOrPartition, Some(name), Uuid::nil())
        }
        RequestedTopic::Refused(error, name, id) => error_topic(error, name, id),
    }
}

fn error_topic(error: ErrorCode, name: Option<String>, topic_id: Uuid) -> MetadataResponseTopic {
    let is_internal = name.as_deref().is_some_and(topic_name::is_internal);
    MetadataResponseTopic {
        error_code: error.code(),
        name,
        topic_id,
        is_internal,
        ..Default::default()
    }
}

/// The answer to an invalid request: the error for each of its topics
/// (`MetadataRequest.getErrorResponse`).
fn refuse(request: &MetadataRequest, error: ErrorCode) -> MetadataResponse {
    let topics = request.topics.iter().flatten();
    let refused = topics.map(|topic| {
        error_topic(error, Some(topic.name.clone().unwrap_or_default()), topic.topic_id)
    });
    MetadataResponse { topics: refused.collect(), controller_id: -1, ..Default::default() }
}

fn describe_partition(
    image: &MetadataImage,
    cx: &RequestContext,
    partition: &PartitionImage,
    index: i32,
) -> MetadataResponsePartition {
    let (leader, leader_error) =
        leader(image, cx, partition, cx.version >= LISTENER_NOT_FOUND_VERSION);
    let offline = offline_replicas(image, cx, partition);
    // Version 0 leaves out offline brokers, and sets an error.
    let shown = |ids: &[BrokerId]| -> Vec<i32> {
        ids.iter().map(|id| id.0).filter(|id| cx.version > 0 || !offline.contains(id)).collect()
    };
    let (replica_nodes, isr_nodes) = (shown(&partition.replicas), shown(&partition.isr));
    let error = match leader_error {
        ErrorCode::None
            if replica_nodes.len() < partition.replicas.len()
                || isr_nodes.len() < partition.isr.len() =>
        {
            ErrorCode::ReplicaNotAvailable
        }
        error => error,
    };
    MetadataResponsePartition {
        error_code: error.code(),
        partition_index: index,
        leader_id: leader,
        leader_epoch: partition.leader_epoch.0,
        replica_nodes,
        isr_nodes,
        offline_replicas: offline,
    }
}

/// The leader's id, if a client of this listener can reach it; else -1 and the error.
pub(super) fn leader(
    image: &MetadataImage,
    cx: &RequestContext,
    partition: &PartitionImage,
    tell_listener: bool,
) -> (i32, ErrorCode) {
    let registered = partition.leader.and_then(|leader| image.brokers.get(&leader));
    match registered {
        Some(broker) if broker.endpoint(&cx.listener.name).is_some() => {
            (broker.id.0, ErrorCode::None)
        }
        Some(_) if tell_listener => (-1, ErrorCode::ListenerNotFound),
        _ => (-1, ErrorCode::LeaderNotAvailable),
    }
}

/// The replicas on brokers that are unregistered, fenced or not on this listener.
pub(super) fn offline_replicas(
    image: &MetadataImage,
    cx: &RequestContext,
    partition: &PartitionImage,
) -> Vec<i32> {
    let online = |id: &BrokerId| {
        image
            .brokers
            .get(id)
            .is_some_and(|broker| !broker.fenced && broker.endpoint(&cx.listener.name).is_some())
    };
    partition.replicas.iter().filter(|id| !online(id)).map(|id| id.0).collect()
}

fn brokers(known: Vec<&Arc<BrokerImage>>, cx: &RequestContext) -> Vec<MetadataResponseBroker> {
    let reachable = known.into_iter().filter_map(|broker| {
        let endpoint = broker.endpoint(&cx.listener.name)?;
        Some(MetadataResponseBroker {
            node_id: broker.id.0,
            host: endpoint.host.clone(),
            port: endpoint.port.into(),
            rack: broker.rack.clone(),
        })
    });
    reachable.collect()
}

/// The broker that clients see as the controller. Requests to it are forwarded, so any live broker
/// will do: this one if it is live, -1 without any.
pub(super) fn controller_id(image: &MetadataImage, cx: &RequestContext, this: BrokerId) -> i32 {
    let mut reachable = image
        .live_brokers()
        .filter(|broker| broker.endpoint(&cx.listener.name).is_some())
        .map(|broker| broker.id);
    let first = reachable.next();
    if reachable.chain(first).any(|id| id == this) { this.0 } else { first.map_or(-1, |id| id.0) }
}

/// The operations on the cluster that the caller may do; `i32::MIN` when the request does not want
/// them (KIP-430).
pub(super) fn cluster_operations(
    authorizer: &Authorizer,
    cx: &RequestContext,
    wanted: bool,
) -> i32 {
    match wanted {
        false => i32::MIN,
        true if authorizer.allows(&cx.requester, Operation::Describe, Resource::Cluster) => {
            authorizer.allowed_operations(&cx.requester, Resource::Cluster)
        }
        true => 0,
    }
}

/// The operations on a topic that the caller may do; `i32::MIN` when the request does not want
/// them.
pub(super) fn topic_operations(
    authorizer: &Authorizer,
    cx: &RequestContext,
    wanted: bool,
    name: &str,
) -> i32 {
    if !wanted {
        return i32::MIN;
    }
    authorizer.allowed_operations(&cx.requester, Resource::Topic(name))
}

#[cfg(test)]
mod tests;
