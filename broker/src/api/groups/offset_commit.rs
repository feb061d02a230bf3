//! OffsetCommit: which topics exist and may be read is judged here, the rest by the group.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use weir_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::authorize;
use crate::api::RequestContext;
use crate::auth::{Operation, Resource};
use crate::broker::Broker;
use crate::group::{Request, refuse_commit};
use crate::metadata::MetadataImage;
use weir_protocol::types::TopicId;

/// The first version with topic ids.
const TOPIC_ID_VERSION: i16 = 10;

/// Answers a request.
pub(crate) async fn handle(broker: &Broker, cx: &RequestContext, mut request: OffsetCommitRequest) -> OffsetCommitResponse {
    if let Err(error) = authorize(broker, cx, Operation::Read, &request.group_id) {
        return refuse_commit(&request.topics, error);
    }
    let mut response = take_refused(broker, cx, &mut request.topics, TOPIC_ID_VERSION);
    if request.topics.is_empty() {
        return response;
    }
    let (group, version) = (request.group_id.clone(), cx.version);
    // What is answered when the coordinator is not here; a commit is mostly small.
    let topics = request.topics.clone();
    let asked = broker.groups.ask(broker, &group, |to| Request::Commit { request, version, to }).await;
    let answered = asked.unwrap_or_else(|error| refuse_commit(&topics, error));
    response.topics.extend(answered.topics);
    response
}

/// Takes the topics out that are not there or may not be read, and answers them; gives the others the name or the id that the request lacks. It has ids
/// from version `ids_since` on.
pub(crate) fn take_refused(broker: &Broker, cx: &RequestContext, topics: &mut Vec<OffsetCommitRequestTopic>, ids_since: i16) -> OffsetCommitResponse {
    let mut refused = OffsetCommitResponse::default();
    let image = broker.metadata.load();
    topics.retain_mut(|topic| match check(broker, cx, &image, topic, cx.version >= ids_since) {
        Ok(()) => true,
        Err(error) => {
            refused.topics.extend(refuse_commit(std::slice::from_ref(topic), error).topics);
            false
        }
    });
    refused
}

fn check(broker: &Broker, cx: &RequestContext, image: &MetadataImage, topic: &mut OffsetCommitRequestTopic, by_id: bool) -> Result<(), ErrorCode> {
    let found = if by_id {
        let found = image.topic(TopicId(topic.topic_id)).ok_or(ErrorCode::UnknownTopicId)?;
        topic.name = found.name.to_string();
        Some(found)
    } else {
        image.topic_by_name(&topic.name)
    };
    if !broker.authorizer.allows(&cx.principal, Operation::Read, Resource::Topic(&topic.name)) {
        return Err(ErrorCode::TopicAuthorizationFailed);
    }
    topic.topic_id = found.ok_or(ErrorCode::UnknownTopicOrPartition)?.id.0;
    Ok(())
}
