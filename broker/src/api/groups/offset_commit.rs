//! OffsetCommit: this module checks that topics exist and that the caller may read them. The group
//! checks the rest.

use std::collections::BTreeMap;

use uuid::Uuid;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use weir_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use weir_protocol::reset_marks;
use weir_protocol::types::TopicId;

use super::authorize;
use crate::api::RequestContext;
use crate::api::Services;
use crate::auth::{Operation, Resource};
use crate::group::{Request, refuse_commit};
use crate::metadata::{MetadataImage, TopicImage};

/// The first version with topic ids.
const TOPIC_ID_VERSION: i16 = 10;

/// Answers a request.
pub(crate) async fn handle(
    services: &Services,
    cx: &RequestContext,
    mut request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    if let Err(error) = authorize(services, cx, Operation::Read, &request.group_id) {
        return refuse_commit(&request.topics, error);
    }
    let all = (request.member_id == reset_marks::MEMBER).then(|| request.topics.clone());
    let marks = all.is_some().then(|| take_marks(&mut request.topics)).flatten();
    if let Some(marks) = &marks
        && marks
            .partitions
            .iter()
            .any(|partition| partition.partition_index == reset_marks::DELETION)
        && let Err(error) = authorize(services, cx, Operation::Delete, &request.group_id)
    {
        return refuse_commit(all.as_deref().unwrap_or_default(), error);
    }
    let response = take_refused(services, cx, &mut request.topics, TOPIC_ID_VERSION);
    if let Some(all) = all
        && let Some(refused) = response.topics.iter().flat_map(|topic| &topic.partitions).next()
    {
        // A reset is applied as a whole or not at all, because its mark says that it was applied.
        return refuse_commit(&all, ErrorCode::from_code(refused.error_code));
    }
    request.topics.extend(marks);
    if request.topics.is_empty() {
        return response;
    }
    let (group, version) = (request.group_id.clone(), cx.version);
    // For the answer when the coordinator is elsewhere; a commit is usually small.
    let topics = request.topics.clone();
    let asked = services.groups.ask(&group, |to| Request::Commit { request, version, to }).await;
    merge(response, asked.unwrap_or_else(|error| refuse_commit(&topics, error)))
}

/// Removes and returns the marks of a reset, which belong to no topic. If a partition is no mark,
/// the entry stays, and is refused as an unknown topic.
fn take_marks(topics: &mut Vec<OffsetCommitRequestTopic>) -> Option<OffsetCommitRequestTopic> {
    let is_mark = |topic: &OffsetCommitRequestTopic| {
        topic.name == reset_marks::TOPIC
            && topic
                .partitions
                .iter()
                .all(|partition| reset_marks::is_mark(partition.partition_index))
    };
    let at = topics.iter().position(is_mark)?;
    let marks = topics.swap_remove(at);
    Some(OffsetCommitRequestTopic { topic_id: Uuid::nil(), ..marks })
}

/// Removes topics and partitions that do not exist or that the caller may not read, and returns
/// their results. Adds the name or the id that the remaining ones lack. Requests have ids from
/// version `ids_since` on.
pub(crate) fn take_refused(
    services: &Services,
    cx: &RequestContext,
    topics: &mut Vec<OffsetCommitRequestTopic>,
    ids_since: i16,
) -> OffsetCommitResponse {
    let mut refused = OffsetCommitResponse::default();
    let image = services.metadata.load();
    topics.retain_mut(|topic| {
        let judged = check(services, cx, &image, topic, cx.version >= ids_since);
        let (left_out, code) = match judged {
            Ok(found) => (take_unknown(topic, found), ErrorCode::UnknownTopicOrPartition),
            Err(code) => (std::mem::take(&mut topic.partitions), code),
        };
        if !left_out.is_empty() {
            let left_out = OffsetCommitRequestTopic {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partitions: left_out,
            };
            refused.topics.extend(refuse_commit(&[left_out], code).topics);
        }
        !topic.partitions.is_empty()
    });
    refused
}

fn check<'a>(
    services: &Services,
    cx: &RequestContext,
    image: &'a MetadataImage,
    topic: &mut OffsetCommitRequestTopic,
    by_id: bool,
) -> Result<&'a TopicImage, ErrorCode> {
    let found = if by_id {
        let found = image.topic(TopicId(topic.topic_id)).ok_or(ErrorCode::UnknownTopicId)?;
        topic.name = found.name.to_string();
        Some(found)
    } else {
        image.topic_by_name(&topic.name)
    };
    if !services.authorizer.allows(&cx.requester, Operation::Read, Resource::Topic(&topic.name)) {
        return Err(ErrorCode::TopicAuthorizationFailed);
    }
    let found = found.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    topic.topic_id = found.id.0;
    Ok(found)
}

/// Removes and returns the partitions that the topic does not have.
fn take_unknown(
    topic: &mut OffsetCommitRequestTopic,
    found: &TopicImage,
) -> Vec<OffsetCommitRequestPartition> {
    let is_there = |partition: &OffsetCommitRequestPartition| {
        found.partition(partition.partition_index).is_some()
    };
    let (there, unknown) = std::mem::take(&mut topic.partitions).into_iter().partition(is_there);
    topic.partitions = there;
    unknown
}

/// Merges the coordinator's results with the refusals, so that each topic occurs once in the
/// response.
pub(crate) fn merge(
    mut response: OffsetCommitResponse,
    answered: OffsetCommitResponse,
) -> OffsetCommitResponse {
    let refused = response.topics.iter().enumerate();
    let refused: BTreeMap<(String, Uuid), usize> =
        refused.map(|(at, topic)| ((topic.name.clone(), topic.topic_id), at)).collect();
    for topic in answered.topics {
        let known = refused.get(&(topic.name.clone(), topic.topic_id)).copied();
        match known.and_then(|at| response.topics.get_mut(at)) {
            Some(known) => known.partitions.extend(topic.partitions),
            None => response.topics.push(topic),
        }
    }
    response
}
