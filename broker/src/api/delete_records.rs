//! DeleteRecords: raises a partition's log start offset (KIP-107), and answers when every replica
//! has done so.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::delete_records_request::DeleteRecordsPartition;
use weir_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use weir_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use weir_protocol::types::{LeaderEpoch, TopicPartition};

use super::{RequestContext, repeats};
use crate::api::Services;
use crate::auth::{Operation, Resource};
use crate::metadata::TopicImage;
use crate::replica::{Partition, Waiter};

/// The offset that means the high watermark (`DeleteRecordsRequest.HIGH_WATERMARK`).
const HIGH_WATERMARK: i64 = -1;

/// Bytes that a partition takes while the request waits, in the request and the response. A topic
/// takes as much, besides its name.
const ASKED_BYTES: usize = 160;

/// Answers a request.
pub(crate) async fn handle(
    services: &Services,
    cx: &RequestContext,
    mut request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    repeats::keep_last(
        &mut request.topics,
        |topic| topic.name.clone(),
        |topic| &mut topic.partitions,
        |partition| partition.partition_index,
    );
    let image = Arc::clone(&services.metadata.load());
    let kept: usize = request
        .topics
        .iter()
        .map(|topic| topic.name.len() + (topic.partitions.len() + 1) * ASKED_BYTES)
        .sum();
    let wait =
        cx.room.waits(kept, Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)));
    let deadline = Instant::now() + wait;
    // Deletes in all partitions, of all topics, before it waits for any
    // (`ReplicaManager.deleteRecords`).
    let mut deleted = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let allowed = services.authorizer.allows(
            &cx.requester,
            Operation::Delete,
            Resource::Topic(&topic.name),
        );
        let found = image.topic_by_name(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let result = match allowed {
                true => delete(services, found, partition).await,
                false => Err(ErrorCode::TopicAuthorizationFailed),
            };
            partitions.push((partition.partition_index, result));
        }
        deleted.push((topic.name, partitions));
    }
    let mut response = DeleteRecordsResponse::default();
    for (name, deleted) in deleted {
        let mut partitions = Vec::with_capacity(deleted.len());
        for (partition_index, result) in deleted {
            let result = match result {
                Ok((replica, offset)) => timeout_at(deadline, deleted_everywhere(&replica, offset))
                    .await
                    .unwrap_or(Err(ErrorCode::RequestTimedOut)),
                Err(code) => Err(code),
            };
            partitions.push(DeleteRecordsPartitionResult {
                partition_index,
                low_watermark: result.unwrap_or(-1),
                error_code: result.err().unwrap_or(ErrorCode::None) as i16,
                ..Default::default()
            });
        }
        response.topics.push(DeleteRecordsTopicResult { name, partitions, ..Default::default() });
    }
    response
}

async fn delete(
    services: &Services,
    topic: Option<&Arc<TopicImage>>,
    asked: &DeleteRecordsPartition,
) -> Result<(Arc<Partition>, i64), ErrorCode> {
    let topic = topic.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if topic.internal {
        return Err(ErrorCode::InvalidTopicException);
    }
    topic.partition(asked.partition_index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let key = TopicPartition { topic: topic.id, index: asked.partition_index };
    let partition = services.replicas.get(key).ok_or(ErrorCode::NotLeaderOrFollower)?;
    partition.check_leader(LeaderEpoch::UNKNOWN)?;
    if !partition.config().cleanup.delete {
        // Compaction without deletion promises to keep the last record of every key. Deleting a
        // prefix would break that promise.
        return Err(ErrorCode::PolicyViolation);
    }
    let high_watermark = partition.high_watermark();
    let offset = if asked.offset == HIGH_WATERMARK { high_watermark } else { asked.offset };
    if !(0..=high_watermark).contains(&offset) {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    partition
        .with_writer(move |writer| writer.advance_log_start_offset(offset))
        .await?
        .map_err(|_| ErrorCode::KafkaStorageError)?;
    // The followers learn the new start offset with their next fetch.
    partition.watchers().mark_all_dirty();
    Ok((partition, offset))
}

/// Waits until the low watermark has reached `offset` and returns it. No live replica then has
/// records before it.
async fn deleted_everywhere(partition: &Arc<Partition>, offset: i64) -> Result<i64, ErrorCode> {
    let mut waiter = Waiter::new(Partition::waiters);
    loop {
        waiter.register([Arc::clone(partition)]);
        let low_watermark = partition.low_watermark().ok_or(ErrorCode::NotLeaderOrFollower)?;
        if low_watermark >= offset {
            return Ok(low_watermark);
        }
        waiter.woken().await;
    }
}
