//! OffsetForLeaderEpoch: the end of an epoch in this log (KIP-101, KIP-279, KIP-320). Consumers and
//! followers use it to detect truncation.

use std::sync::Arc;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use weir_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use weir_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use weir_protocol::types::{LeaderEpoch, TopicPartition};

use super::RequestContext;
use crate::api::Services;
use crate::auth::{Operation, Resource};
use crate::metadata::TopicImage;

/// Answers a request.
pub(crate) fn handle(
    services: &Services,
    cx: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let image = services.metadata.load();
    let topics = request.topics.into_iter().map(|topic| {
        let allowed = services.authorizer.allows(
            &cx.requester,
            Operation::Describe,
            Resource::Topic(&topic.topic),
        );
        let found = image.topic_by_name(&topic.topic);
        let partitions = topic.partitions.iter().map(|partition| {
            let result = if allowed {
                end_of(services, found, partition)
            } else {
                Err(ErrorCode::TopicAuthorizationFailed)
            };
            let mut answer = EpochEndOffset {
                partition: partition.partition,
                leader_epoch: -1,
                end_offset: -1,
                ..Default::default()
            };
            match result {
                Ok((epoch, offset)) => (answer.leader_epoch, answer.end_offset) = (epoch, offset),
                Err(code) => answer.error_code = code as i16,
            }
            answer
        });
        OffsetForLeaderTopicResult {
            partitions: partitions.collect(),
            topic: topic.topic.clone(),
            ..Default::default()
        }
    });
    OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() }
}

fn end_of(
    services: &Services,
    topic: Option<&Arc<TopicImage>>,
    asked: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ErrorCode> {
    let topic = topic.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    topic.partition(asked.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let key = TopicPartition { topic: topic.id, index: asked.partition };
    let partition = services.replicas.get(key).ok_or(ErrorCode::NotLeaderOrFollower)?;
    partition.check_leader(LeaderEpoch(asked.current_leader_epoch))?;
    Ok(partition
        .log()
        .end_offset_for_epoch(LeaderEpoch(asked.leader_epoch))
        .map_or((-1, -1), |end| (end.epoch.0, end.offset)))
}
