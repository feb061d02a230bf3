//! OffsetDelete (KIP-496).

use std::collections::BTreeMap;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use weir_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use weir_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::authorize;
use crate::api::RequestContext;
use crate::api::Services;
use crate::auth::{Operation, Resource};
use crate::group::Request;
use crate::metadata::TopicImage;

/// Answers a request.
pub(crate) async fn handle(
    services: &Services,
    cx: &RequestContext,
    mut request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let refused =
        |error: ErrorCode| OffsetDeleteResponse { error_code: error.code(), ..Default::default() };
    if let Err(error) = authorize(services, cx, Operation::Delete, &request.group_id) {
        return refused(error);
    }
    if request.group_id.is_empty() {
        return refused(ErrorCode::InvalidGroupId);
    }
    let mut judged = Vec::new();
    {
        let image = services.metadata.load();
        request.topics.retain_mut(|topic| {
            let allowed = services.authorizer.allows(
                &cx.requester,
                Operation::Read,
                Resource::Topic(&topic.name),
            );
            let (left_out, error) = match image.topic_by_name(&topic.name) {
                _ if !allowed => {
                    (std::mem::take(&mut topic.partitions), ErrorCode::TopicAuthorizationFailed)
                }
                None => (std::mem::take(&mut topic.partitions), ErrorCode::UnknownTopicOrPartition),
                Some(found) => (take_unknown(topic, found), ErrorCode::UnknownTopicOrPartition),
            };
            if !left_out.is_empty() {
                judged.push(refuse(&topic.name, &left_out, error));
            }
            !topic.partitions.is_empty()
        });
    }
    let group = request.group_id.clone();
    // An unknown group is an error even if no partition remains to be deleted.
    match services.groups.ask(&group, |to| Request::DeleteOffsets { request, to }).await {
        Err(error) => refused(error),
        Ok(response) if response.error_code != 0 => response,
        Ok(response) => merge(judged, response),
    }
}

/// Removes and returns the partitions that the topic does not have.
fn take_unknown(
    topic: &mut OffsetDeleteRequestTopic,
    found: &TopicImage,
) -> Vec<OffsetDeleteRequestPartition> {
    let is_there =
        |asked: &OffsetDeleteRequestPartition| found.partition(asked.partition_index).is_some();
    let (there, unknown) = std::mem::take(&mut topic.partitions).into_iter().partition(is_there);
    topic.partitions = there;
    unknown
}

fn refuse(
    topic: &str,
    partitions: &[OffsetDeleteRequestPartition],
    error: ErrorCode,
) -> OffsetDeleteResponseTopic {
    let partition = |asked: &OffsetDeleteRequestPartition| OffsetDeleteResponsePartition {
        partition_index: asked.partition_index,
        error_code: error.code(),
    };
    OffsetDeleteResponseTopic {
        name: topic.to_owned(),
        partitions: partitions.iter().map(partition).collect(),
    }
}

/// Merges the coordinator's results with the refusals, so that each topic occurs once in the
/// response.
fn merge(
    mut judged: Vec<OffsetDeleteResponseTopic>,
    response: OffsetDeleteResponse,
) -> OffsetDeleteResponse {
    let refused: BTreeMap<String, usize> =
        judged.iter().enumerate().map(|(at, topic)| (topic.name.clone(), at)).collect();
    for topic in response.topics {
        match refused.get(&topic.name).and_then(|at| judged.get_mut(*at)) {
            Some(known) => known.partitions.extend(topic.partitions),
            None => judged.push(topic),
        }
    }
    OffsetDeleteResponse { topics: judged, ..response }
}
