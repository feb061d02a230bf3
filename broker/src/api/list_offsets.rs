//! ListOffsets: the start and the end of a partition, and the offset for a timestamp.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::list_offsets_request::ListOffsetsPartition;
use weir_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use weir_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use weir_protocol::types::{LeaderEpoch, TopicPartition};

use super::RequestContext;
use crate::api::Services;
use crate::auth::{Operation, Resource};
use crate::metadata::TopicImage;
use crate::replica::{Partition, read_error};
use weir_log::TimestampedOffset;

/// The special timestamps (`ListOffsetsRequest.java`), with the first version of each.
mod special {
    /// The end: high watermark, or last stable offset for `read_committed`.
    pub(super) const LATEST: i64 = -1;
    /// The log start offset.
    pub(super) const EARLIEST: i64 = -2;
    /// The record with the largest timestamp (KIP-734), since version 7.
    pub(super) const MAX_TIMESTAMP: i64 = -3;
    /// The first offset on local disk (KIP-405), since version 8.
    pub(super) const EARLIEST_LOCAL: i64 = -4;
    /// The last offset in remote storage (KIP-1005), since version 9.
    pub(super) const LATEST_TIERED: i64 = -5;
    /// The first offset that is not in remote storage yet (KIP-1023), since version 11.
    pub(super) const EARLIEST_PENDING_UPLOAD: i64 = -6;
}

/// The first version whose response carries the epoch of the record.
const LEADER_EPOCH_IN_RESPONSE: i16 = 4;

/// The isolation level `read_committed`.
const READ_COMMITTED: i8 = 1;

/// The isolation level, which decides the last offset that the caller may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestInfo {
    Client,
    ReadCommitted,
    /// A follower, which sees the log up to its end.
    Replica,
}

/// The first version that knows OFFSET_NOT_AVAILABLE (KIP-207).
const OFFSET_NOT_AVAILABLE: i16 = 5;

/// Answers a request. A lookup by timestamp may read the log, so the whole request then runs on a
/// blocking thread.
pub(crate) async fn handle(
    services: &Arc<Services>,
    cx: &RequestContext,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let needs_disk =
        request.topics.iter().flat_map(|topic| &topic.partitions).any(|partition| {
            partition.timestamp >= 0 || partition.timestamp == special::MAX_TIMESTAMP
        });
    if request.replica_id < 0 && request.isolation_level == READ_COMMITTED {
        know_transactions(services, &request).await;
    }
    if !needs_disk {
        return list(services, cx, request);
    }
    let (services, cx) = (Arc::clone(services), cx.clone());
    tokio::task::spawn_blocking(move || list(&services, &cx, request)).await.unwrap_or_default()
}

/// Loads the transactions of all named partitions. That reveals nothing to the caller.
async fn know_transactions(services: &Services, request: &ListOffsetsRequest) {
    for topic in &request.topics {
        let Some(found) = services.metadata.load().topic_by_name(&topic.name).cloned() else {
            continue;
        };
        for partition in &topic.partitions {
            if let Ok(replica) = find(services, Some(&found), partition) {
                replica.know_transactions().await;
            }
        }
    }
}

fn list(
    services: &Services,
    cx: &RequestContext,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let image = services.metadata.load();
    let asker = match (request.replica_id, request.isolation_level) {
        (0.., _) => RequestInfo::Replica,
        (_, READ_COMMITTED) => RequestInfo::ReadCommitted,
        _ => RequestInfo::Client,
    };
    let twice = NamedTwice::of(&request);
    let topics = request.topics.iter().map(|topic| {
        let allowed = services.authorizer.allows(
            &cx.requester,
            Operation::Describe,
            Resource::Topic(&topic.name),
        );
        let found = image.topic_by_name(&topic.name);
        let is_named_twice = twice.of_topic(&topic.name);
        let partitions = topic.partitions.iter().map(|partition| {
            let result = if !allowed {
                Err(ErrorCode::TopicAuthorizationFailed)
            } else if is_named_twice(partition.partition_index) {
                Err(ErrorCode::InvalidRequest)
            } else {
                find(services, found, partition)
                    .and_then(|replica| look_up(&replica, partition.timestamp, cx.version, asker))
            };
            answer(partition.partition_index, result, cx.version)
        });
        ListOffsetsTopicResponse {
            partitions: partitions.collect(),
            name: topic.name.clone(),
            ..Default::default()
        }
    });
    ListOffsetsResponse { topics: topics.collect(), ..Default::default() }
}

/// The partitions that a request names more than once: each of their entries is refused
/// (`ListOffsetsRequest.duplicatePartitions`). A topic's name may be long, so it is compared once.
struct NamedTwice<'a> {
    /// The first entry of each name.
    topics: BTreeMap<&'a str, usize>,
    partitions: BTreeSet<(usize, i32)>,
}

impl<'a> NamedTwice<'a> {
    fn of(request: &'a ListOffsetsRequest) -> Self {
        let mut topics = BTreeMap::new();
        let (mut seen, mut partitions) = (BTreeSet::new(), BTreeSet::new());
        for (at, topic) in request.topics.iter().enumerate() {
            let first = *topics.entry(topic.name.as_str()).or_insert(at);
            for partition in &topic.partitions {
                let named = (first, partition.partition_index);
                if !seen.insert(named) {
                    partitions.insert(named);
                }
            }
        }
        Self { topics, partitions }
    }

    /// Whether a partition of this topic is named twice.
    fn of_topic(&self, name: &str) -> impl Fn(i32) -> bool {
        let first = self.topics.get(name).filter(|_| !self.partitions.is_empty());
        move |index| first.is_some_and(|first| self.partitions.contains(&(*first, index)))
    }
}

fn find(
    services: &Services,
    topic: Option<&Arc<TopicImage>>,
    partition: &ListOffsetsPartition,
) -> Result<Arc<Partition>, ErrorCode> {
    let topic = topic.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    topic.partition(partition.partition_index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let key = TopicPartition { topic: topic.id, index: partition.partition_index };
    let replica = services.replicas.get(key).ok_or(ErrorCode::NotLeaderOrFollower)?;
    replica.check_leader(LeaderEpoch(partition.current_leader_epoch))?;
    Ok(replica)
}

/// The offset for `timestamp`; `None` when there is none.
fn look_up(
    partition: &Partition,
    timestamp: i64,
    version: i16,
    asker: RequestInfo,
) -> Result<Option<TimestampedOffset>, ErrorCode> {
    let log = partition.log();
    // A new leader does not know yet what is committed, and a client must never see the end go
    // back.
    let known = match asker {
        RequestInfo::Replica => Ok(log.log_end_offset()),
        RequestInfo::Client | RequestInfo::ReadCommitted => {
            partition.latest_offset().map_err(|code| match code {
                ErrorCode::OffsetNotAvailable if version < OFFSET_NOT_AVAILABLE => {
                    ErrorCode::LeaderNotAvailable
                }
                code => code,
            })
        }
    };
    let end = match (known, asker) {
        (Ok(end), RequestInfo::ReadCommitted) => {
            end.min(partition.last_stable_offset().ok_or(ErrorCode::OffsetNotAvailable)?)
        }
        (Ok(end), _) => end,
        (Err(_), _) => partition.high_watermark(),
    };
    // A record not found below the high watermark may lie above it.
    let or_unknown = |found: Option<TimestampedOffset>| {
        if found.is_none() { known.map(|_| None) } else { Ok(found) }
    };
    let at = |offset: i64| {
        let leader_epoch = log.epoch_of(offset).unwrap_or_else(|| partition.leader_epoch());
        Ok(Some(TimestampedOffset { timestamp: -1, offset, leader_epoch }))
    };
    let refuse = Err(ErrorCode::UnsupportedVersion);
    match timestamp {
        special::LATEST => known.map(|_| {
            Some(TimestampedOffset {
                timestamp: -1,
                offset: end,
                leader_epoch: partition.leader_epoch(),
            })
        }),
        special::EARLIEST => at(log.log_start_offset()),
        special::MAX_TIMESTAMP if version >= 7 => log
            .offset_of_max_timestamp(end)
            .map_err(|error| read_error(&error))
            .and_then(or_unknown),
        // Weir has no tiered storage: the whole log is local, and nothing waits for an upload.
        special::EARLIEST_LOCAL if version >= 8 => at(log.log_start_offset()),
        special::LATEST_TIERED if version >= 9 => Ok(None),
        special::EARLIEST_PENDING_UPLOAD if version >= 11 => Ok(None),
        0.. => log
            .offset_for_timestamp(timestamp, end)
            .map_err(|error| read_error(&error))
            .and_then(or_unknown),
        _ => refuse,
    }
}

fn answer(
    partition_index: i32,
    result: Result<Option<TimestampedOffset>, ErrorCode>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let mut response = ListOffsetsPartitionResponse {
        partition_index,
        timestamp: -1,
        offset: -1,
        leader_epoch: -1,
        ..Default::default()
    };
    match result {
        Ok(Some(found)) => {
            response.timestamp = found.timestamp;
            response.offset = found.offset;
            if version >= LEADER_EPOCH_IN_RESPONSE {
                response.leader_epoch = found.leader_epoch.0;
            }
        }
        Ok(None) => {}
        Err(code) => response.error_code = code as i16,
    }
    response
}
