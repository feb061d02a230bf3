//! ConsumerGroupHeartbeat and ConsumerGroupDescribe (KIP-848).

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::consumer_group_describe_response::DescribedGroup;
use weir_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
};

use super::membership::client;
use super::{authorize, authorize_member};
use crate::api::RequestContext;
use crate::api::Services;
use crate::api::repeats::once;
use crate::auth::{Operation, Resource};
use crate::group::{ConsumerHeartbeat, Request};

/// The cluster feature that the protocol requires.
const FEATURE: &str = "group.version";

/// Checks that the cluster has finalized the protocol.
fn check_feature(services: &Services) -> Result<(), ErrorCode> {
    match services.metadata.load().features.get(FEATURE) {
        Some(1..) => Ok(()),
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}

/// Answers ConsumerGroupHeartbeat.
pub(crate) async fn heartbeat(
    services: &Services,
    cx: &RequestContext,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let group = request.group_id.clone();
    let may_see = |topic: &String| {
        services.authorizer.allows(&cx.requester, Operation::Describe, Resource::Topic(topic))
    };
    let checked =
        check_feature(services).and_then(|()| match authorize_member(services, cx, &group) {
            Err(ErrorCode::InvalidGroupId) => Err(ErrorCode::InvalidRequest),
            Ok(()) if !request.subscribed_topic_names.iter().flatten().all(may_see) => {
                Err(ErrorCode::TopicAuthorizationFailed)
            }
            checked => checked,
        });
    let asked = match checked {
        Err(error) => Err(error),
        Ok(()) => {
            let client = client(cx);
            let request =
                |to| Request::ConsumerHeartbeat(ConsumerHeartbeat { client, request, to });
            services.groups.ask(&group, request).await
        }
    };
    asked.unwrap_or_else(|error| ConsumerGroupHeartbeatResponse {
        error_code: error.code(),
        error_message: Some(error.message().to_owned()),
        ..Default::default()
    })
}

/// Answers ConsumerGroupDescribe.
pub(crate) async fn describe(
    services: &Services,
    cx: &RequestContext,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let mut response = ConsumerGroupDescribeResponse::default();
    for group in once(request.group_ids, String::clone) {
        let mut described = describe_one(services, cx, &group)
            .await
            .unwrap_or_else(|error| refused(group.clone(), error));
        if described.error_code == 0 && request.include_authorized_operations {
            described.authorized_operations =
                services.authorizer.allowed_operations(&cx.requester, Resource::Group(&group));
        }
        response.groups.push(described);
    }
    response
}

fn refused(group_id: String, error: ErrorCode) -> DescribedGroup {
    DescribedGroup { error_code: error.code(), group_id, ..Default::default() }
}

async fn describe_one(
    services: &Services,
    cx: &RequestContext,
    group: &str,
) -> Result<DescribedGroup, ErrorCode> {
    check_feature(services)?;
    authorize(services, cx, Operation::Describe, group)?;
    if group.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let request = |to| Request::DescribeConsumers { group: group.to_owned(), to };
    let described = services.groups.ask(group, request).await?;
    let named = described.members.iter().flat_map(|member| {
        let assigned = member
            .assignment
            .topic_partitions
            .iter()
            .chain(&member.target_assignment.topic_partitions);
        member.subscribed_topic_names.iter().chain(assigned.map(|topic| &topic.topic_name))
    });
    let may_see = |topic: &String| {
        services.authorizer.allows(&cx.requester, Operation::Describe, Resource::Topic(topic))
    };
    if named.into_iter().all(may_see) {
        Ok(described)
    } else {
        Err(ErrorCode::TopicAuthorizationFailed)
    }
}
