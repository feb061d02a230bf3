//! OffsetDelete (KIP-496).

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::offset_delete_request::OffsetDeleteRequestTopic;
use weir_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use weir_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::authorize;
use crate::api::RequestContext;
use crate::auth::{Operation, Resource};
use crate::broker::Broker;
use crate::group::Request;

/// Answers a request.
pub(crate) async fn handle(broker: &Broker, cx: &RequestContext, mut request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let refused = |error: ErrorCode| OffsetDeleteResponse {
        error_code: error.code(),
        ..Default::default()
    };
    if let Err(error) = authorize(broker, cx, Operation::Delete, &request.group_id) {
        return refused(error);
    }
    if request.group_id.is_empty() {
        return refused(ErrorCode::InvalidGroupId);
    }
    let mut judged = Vec::new();
    {
        let image = broker.metadata.load();
        request.topics.retain(|topic| {
            let allowed = broker.authorizer.allows(&cx.principal, Operation::Read, Resource::Topic(&topic.name));
            let error = match image.topic_by_name(&topic.name) {
                _ if !allowed => ErrorCode::TopicAuthorizationFailed,
                None => ErrorCode::UnknownTopicOrPartition,
                Some(_) => return true,
            };
            judged.push(refuse(topic, error));
            false
        });
    }
    let group = request.group_id.clone();
    // A group that is not there is an error also when nothing is left to be deleted from it.
    match broker.groups.ask(broker, &group, |to| Request::DeleteOffsets { request, to }).await {
        Err(error) => refused(error),
        Ok(response) if response.error_code != 0 => response,
        Ok(mut response) => {
            response.topics.append(&mut judged);
            response
        }
    }
}

fn refuse(topic: &OffsetDeleteRequestTopic, error: ErrorCode) -> OffsetDeleteResponseTopic {
    let partition = |index| OffsetDeleteResponsePartition {
        partition_index: index,
        error_code: error.code(),
    };
    OffsetDeleteResponseTopic {
        name: topic.name.clone(),
        partitions: topic.partitions.iter().map(|asked| partition(asked.partition_index)).collect(),
    }
}
