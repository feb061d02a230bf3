//! Asks a leader where its logs begin and end, for a follower whose offset it does not have.

use std::collections::HashMap;
use std::sync::Arc;

use weir_client::Connection;
use weir_protocol::messages::ListOffsetsRequest;
use weir_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use weir_protocol::types::{BrokerId, LeaderEpoch, TopicPartition};

use super::context::FetcherContext;
use super::leader::{ANSWER_MAX, SessionError, connect};
use crate::replica::Partition;

/// The protocol version between brokers of this build.
const LIST_OFFSETS_VERSION: i16 = 11;

/// The timestamps of ListOffsets that mean the end and the start of the log.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// The start and the end of the leader's logs, without those that it does not tell. It is rare, so
/// it has a connection of its own.
///
/// # Errors
/// When the leader cannot be reached or does not answer in time.
pub(super) async fn leader_offsets(
    context: &FetcherContext,
    leader: BrokerId,
    partitions: &[(Arc<Partition>, LeaderEpoch)],
) -> Result<HashMap<TopicPartition, (i64, i64)>, SessionError> {
    let (mut connection, _) = connect(context, leader).await?;
    let mut found = HashMap::new();
    for (partition, epoch) in partitions {
        let mut offsets = [-1; 2];
        for (offset, timestamp) in offsets.iter_mut().zip([EARLIEST, LATEST]) {
            let of = (&**partition, *epoch);
            *offset = leader_offset(&mut connection, context.id, of, timestamp).await?;
        }
        let [start, end] = offsets;
        if start >= 0 && end >= start {
            found.insert(partition.id(), (start, end));
        }
    }
    Ok(found)
}

/// One offset of a partition; -1 if the leader does not tell it.
async fn leader_offset(
    connection: &mut Connection,
    replica: BrokerId,
    (partition, epoch): (&Partition, LeaderEpoch),
    timestamp: i64,
) -> Result<i64, SessionError> {
    let request = ListOffsetsRequest {
        replica_id: replica.0,
        topics: vec![ListOffsetsTopic {
            name: partition.topic().to_string(),
            partitions: vec![ListOffsetsPartition {
                partition_index: partition.id().index,
                current_leader_epoch: epoch.0,
                timestamp,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = connection.call(LIST_OFFSETS_VERSION, &request, ANSWER_MAX).await?;
    let answer = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
    Ok(answer.filter(|answer| answer.error_code == 0).map_or(-1, |answer| answer.offset))
}
