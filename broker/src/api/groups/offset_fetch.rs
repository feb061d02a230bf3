//! OffsetFetch: for one group up to version 7, for many from version 8 on (KIP-709).

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use weir_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use weir_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};
use weir_protocol::types::TopicId;

use super::authorize;
use crate::api::RequestContext;
use crate::api::Services;
use crate::api::repeats::{keep_last, once};
use crate::auth::{Operation, Resource};
use crate::group::Request;

/// The first version for many groups.
const GROUPS_VERSION: i16 = 8;
/// The first version whose response has an error for the whole group.
const GROUP_ERROR_VERSION: i16 = 2;
/// The first version with topic ids.
const TOPIC_ID_VERSION: i16 = 10;

/// The most partitions whose offsets are read on the connection's thread: each may have kilobytes
/// of metadata.
const FEW: usize = 100;

/// Whether a request asks for more than [`FEW`] offsets, or for all offsets of a group.
pub(crate) fn fetches_many(_: &Services, request: &OffsetFetchRequest) -> bool {
    let of_topics = request.topics.iter().flatten().map(|topic| topic.partition_indexes.len());
    let of_groups = request.groups.iter().flat_map(|group| group.topics.iter().flatten());
    let named =
        of_topics.chain(of_groups.map(|topic| topic.partition_indexes.len())).sum::<usize>();
    let all_of_one = request.groups.is_empty() && request.topics.is_none();
    named > FEW || all_of_one || request.groups.iter().any(|group| group.topics.is_none())
}

/// Answers a request.
pub(crate) async fn handle(
    services: &Services,
    cx: &RequestContext,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let stable = request.require_stable;
    if cx.version >= GROUPS_VERSION {
        let mut response = OffsetFetchResponse::default();
        for group in once(request.groups, |group| group.group_id.clone()) {
            response.groups.push(fetch(services, cx, group, stable).await);
        }
        return response;
    }
    let topics = request.topics.map(|topics| {
        let topic =
            |topic: weir_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic| {
                OffsetFetchRequestTopics {
                    name: topic.name,
                    partition_indexes: topic.partition_indexes,
                    ..Default::default()
                }
            };
        topics.into_iter().map(topic).collect()
    });
    let group =
        OffsetFetchRequestGroup { group_id: request.group_id, topics, ..Default::default() };
    single(fetch(services, cx, group, stable).await, cx.version)
}

async fn fetch(
    services: &Services,
    cx: &RequestContext,
    mut group: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    if let Some(topics) = &mut group.topics {
        // Each answer repeats the metadata of the commit, which can be a thousand times the bytes
        // of the request's entry.
        keep_last(
            topics,
            |topic| (topic.name.clone(), topic.topic_id),
            |topic| &mut topic.partition_indexes,
            |index| *index,
        );
    }
    let asked = group.clone();
    if let Err(error) = authorize(services, cx, Operation::Describe, &group.group_id) {
        return refuse(asked, error);
    }
    let (all, mut judged) = (group.topics.is_none(), Vec::new());
    if let Some(topics) = &mut group.topics {
        topics.retain_mut(|topic| match check(services, cx, topic) {
            Ok(()) => true,
            Err(error) => {
                judged.push(refuse_topic(topic, error));
                false
            }
        });
    }
    let key = group.group_id.clone();
    let request = |to| Request::Fetch { request: group, require_stable, to };
    let mut response = match services.groups.ask(&key, request).await {
        Ok(response) => response,
        Err(error) => return refuse(asked, error),
    };
    if all && response.error_code == 0 {
        let image = services.metadata.load();
        response.topics.retain_mut(|topic| {
            let found = image.topic_by_name(&topic.name);
            topic.topic_id = found.map_or_else(Default::default, |found| found.id.0);
            let shown = services.authorizer.allows(
                &cx.requester,
                Operation::Describe,
                Resource::Topic(&topic.name),
            );
            shown && (found.is_some() || cx.version < TOPIC_ID_VERSION)
        });
    }
    response.topics.append(&mut judged);
    response
}

/// Sets the topic's name if the request has its id, and checks that the caller may describe it.
fn check(
    services: &Services,
    cx: &RequestContext,
    topic: &mut OffsetFetchRequestTopics,
) -> Result<(), ErrorCode> {
    if cx.version >= TOPIC_ID_VERSION {
        let image = services.metadata.load();
        let found = image.topic(TopicId(topic.topic_id)).ok_or(ErrorCode::UnknownTopicId)?;
        topic.name = found.name.to_string();
    }
    if services.authorizer.allows(&cx.requester, Operation::Describe, Resource::Topic(&topic.name))
    {
        Ok(())
    } else {
        Err(ErrorCode::TopicAuthorizationFailed)
    }
}

fn refuse_topic(topic: &OffsetFetchRequestTopics, error: ErrorCode) -> OffsetFetchResponseTopics {
    let partition = |index: &i32| OffsetFetchResponsePartitions {
        partition_index: *index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(String::new()),
        error_code: error.code(),
    };
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(partition).collect(),
    }
}

/// An error for the whole group. Old versions have errors only at partitions, so it names the
/// topics, too.
fn refuse(group: OffsetFetchRequestGroup, error: ErrorCode) -> OffsetFetchResponseGroup {
    OffsetFetchResponseGroup {
        topics: group.topics.iter().flatten().map(|topic| refuse_topic(topic, error)).collect(),
        group_id: group.group_id,
        error_code: error.code(),
    }
}

/// The response in a version with one group.
fn single(group: OffsetFetchResponseGroup, version: i16) -> OffsetFetchResponse {
    let partition = |partition: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    };
    let topic = |topic: OffsetFetchResponseTopics| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    };
    // A response with an error for the group has no topics.
    let is_refused = group.error_code != 0 && version >= GROUP_ERROR_VERSION;
    OffsetFetchResponse {
        error_code: group.error_code,
        topics: if is_refused { Vec::new() } else { group.topics.into_iter().map(topic).collect() },
        ..Default::default()
    }
}
