//! Fetch: records from partitions to consumers.
//!
//! A read yields regions of segment files, never bytes: the records go from the file to the socket.
//! A request that finds fewer bytes than `min_bytes` waits on its partitions, and reads again when
//! one of them advances.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use weir_protocol::error::ErrorCode;
use weir_protocol::fetch::{
    self, FetchPartition, FetchResponse, FetchTopic, PARTITION_BYTES_MAX, RecordsLength,
};
use weir_protocol::messages::fetch_response::{EpochEndOffset, LeaderIdAndEpoch, NodeEndpoint};
use weir_protocol::messages::{Failing, FetchRequest, Measured, Message};
use weir_protocol::types::{TopicId, TopicPartition};

mod read;

use self::read::{Limits, Read, read_all, read_until_enough};
use super::fetch_session::{Key, ResolvedFetch, SessionRequest, TopicRef};
use super::request::Request;
use super::{Dispatch, RequestContext, replica_fetch};
use crate::api::Services;
use crate::api::reply::{Chunk, FileRegion, Reply};
use crate::budget::Room;
use crate::metrics::RequestName;
use crate::replica::now_ms;

/// The first version whose clients may read from followers (KIP-392).
const FROM_FOLLOWERS: i16 = 11;

/// The first version whose response names the new leader (KIP-951).
const LEADER_IN_RESPONSE: i16 = 16;

/// The most partitions of a session that are read on the thread of its connection: some
/// milliseconds of work.
const SESSION_MAX: usize = 20_000;

/// The most partitions of a session that are read without room in the budget. They take a part of
/// the memory that each connection may use.
const SMALL_SESSION_MAX: usize = 80;

/// Bytes that a partition takes while it is read and answered.
const READ_BYTES: usize = 400;

/// Bytes of an aborted transaction in an answer.
const ABORTED_BYTES_MAX: usize = 17;

/// Bytes that a partition takes while a request waits: in the request, and in the partition's list
/// of waiters.
const ASKED_BYTES: usize = 160;

impl RecordsLength for FileRegion {
    fn length(&self) -> usize {
        self.length
    }
}

/// Handles a request. The frame does not contain the partitions of a session, so they get room of
/// their own. A large session runs on the thread for large requests.
pub(super) fn handle(mut request: Request, fetch: FetchRequest) -> Dispatch {
    let services = Arc::clone(&request.services);
    let partitions = match is_of_follower(&fetch) {
        true => 0,
        false => services.fetch_sessions.partitions_of(fetch.session_id),
    };
    if partitions <= SMALL_SESSION_MAX {
        return Dispatch::Later(reply(request, fetch).boxed());
    }
    let room = services.request_memory.room(partitions * READ_BYTES, false);
    let replied = async move {
        request.cx.room = room.await;
        reply(request, fetch).await
    };
    Dispatch::Later(match partitions <= SESSION_MAX {
        true => replied.boxed(),
        false => services.large_requests.carry_out(replied),
    })
}

/// Whether a broker fetches, which copies its leader.
fn is_of_follower(fetch: &FetchRequest) -> bool {
    fetch.replica_id >= 0 || fetch.replica_state.replica_id >= 0
}

/// Decodes and answers a request on the thread for large requests.
pub(super) async fn decode_and_reply(request: Request, body: BytesMut) -> Reply {
    match FetchRequest::decode(&mut Bytes::from(body), request.cx.version) {
        Ok(fetch) => reply(request, fetch).await,
        Err(error) => request.unreadable(&error),
    }
}

async fn reply(mut request: Request, fetch: FetchRequest) -> Reply {
    if is_of_follower(&fetch) {
        request.name = RequestName::FETCH_FOLLOWER;
    }
    let Some((response, room)) = answer(&request, fetch).await else {
        return Reply::close();
    };
    let failed = response.has_error();
    // The answer leaves out partitions of the session without news, so it may need less room.
    if room.is_of_the_budget() {
        room.shrink_to(response.encoded_bytes_max());
    }
    match response.encode(request.cx.version, request.cx.correlation_id) {
        Ok(frame) => {
            let reply = Reply {
                chunks: frame.chunks.into_iter().map(chunk).collect(),
                room,
                ..Reply::default()
            };
            request.reply(reply, failed)
        }
        Err(error) => request.unencodable(&error),
    }
}

fn chunk(chunk: fetch::Chunk<FileRegion>) -> Chunk {
    match chunk {
        fetch::Chunk::Bytes(bytes) => Chunk::Bytes(bytes),
        fetch::Chunk::Records(region) => Chunk::Region(region),
    }
}

/// The answer and its room; `None` when there was no room for too long.
async fn answer(
    asking: &Request,
    request: FetchRequest,
) -> Option<(FetchResponse<FileRegion>, Room)> {
    let Request { services, cx, .. } = asking;
    let failed = |code: ErrorCode| {
        let response = FetchResponse { error_code: code.code(), ..FetchResponse::default() };
        Some((response, Room::default()))
    };
    let replica_id =
        if cx.version >= 15 { request.replica_state.replica_id } else { request.replica_id };
    if replica_id >= 0 && !services.authorizer.allows_replica(&cx.requester, replica_id) {
        return failed(ErrorCode::ClusterAuthorizationFailed);
    }
    let settings = services.settings();
    if replica_id >= 0 {
        return Some(replica_fetch::answer(services, cx, request, settings.fetch_bytes_max).await);
    }
    let mut limits = Limits {
        wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)),
        bytes_min: usize::try_from(request.min_bytes).unwrap_or(0),
        bytes_max: usize::try_from(request.max_bytes).unwrap_or(0).min(settings.fetch_bytes_max),
        read_committed: request.isolation_level == 1,
        from_followers: cx.version >= FROM_FOLLOWERS,
        rack: Some(request.rack_id.clone()).filter(|rack| !rack.is_empty()),
    };
    let asked = match services.fetch_sessions.ask(SessionRequest::of(cx.version, request), now_ms())
    {
        Ok(asked) => asked,
        Err(code) => return failed(code),
    };
    // Only the partitions of the request remain in memory, and the wait for records may be long.
    limits.wait = cx.room.waits(asked.partitions.len() * ASKED_BYTES, limits.wait);
    let mut reads = read_until_enough(services, cx, &asked, &limits).await;
    let bytes_max = answer_bytes_max(&asked, &reads);
    let room = match services.answer_memory.try_room(bytes_max) {
        Some(room) => room,
        None => {
            // Drops the regions and reads them again once there is room. The session has not
            // recorded this answer yet.
            drop(reads);
            let room = asking.room_for_answer(bytes_max).await?;
            reads = read_all(services, cx, &asked, &limits);
            room
        }
    };
    for partition in reads.iter().filter_map(|read| read.partition.as_ref()) {
        partition.traffic().fetches();
    }
    let answers: Vec<_> = reads.iter().map(Read::answer).collect();
    let (session_id, included) =
        services.fetch_sessions.record(&asked, &answers, settings.fetch_sessions_max, now_ms());
    let mut response = FetchResponse { session_id, ..FetchResponse::default() };
    for (((key, _), read), _) in
        asked.partitions.into_iter().zip(reads).zip(included).filter(|(_, included)| *included)
    {
        say(services, cx, &mut response, key, read);
    }
    Some((response, room))
}

/// The most bytes that an answer takes, if it contains every requested partition.
fn answer_bytes_max(asked: &ResolvedFetch, reads: &[Read]) -> usize {
    let named: usize = asked.partitions.iter().map(|(key, _)| key.bytes()).sum();
    let aborted: usize = reads.iter().filter_map(|read| read.aborted.as_ref()).map(Vec::len).sum();
    named + aborted * ABORTED_BYTES_MAX + reads.len() * PARTITION_BYTES_MAX
}

/// Adds one partition to the response, beside the others of its topic.
fn say(
    services: &Services,
    cx: &RequestContext,
    response: &mut FetchResponse<FileRegion>,
    key: Key,
    read: Read,
) {
    let (name, id) = match &key.topic {
        TopicRef::Id(id) => (String::new(), *id),
        TopicRef::Name(name) => (name.to_string(), TopicId::ZERO),
    };
    if let (Some(partition), Some(records)) = (&read.partition, &read.records) {
        partition.traffic().fetched(records.length);
    }
    let mut partition = FetchPartition {
        partition_index: key.index,
        error_code: read.code.code(),
        high_watermark: read.high_watermark,
        last_stable_offset: read.last_stable_offset,
        log_start_offset: read.log_start_offset,
        records: read.records,
        aborted_transactions: read.aborted,
        preferred_read_replica: read.preferred.map_or(-1, |id| id.0),
        ..FetchPartition::default()
    };
    if let Some(end) = read.diverging {
        partition.diverging_epoch = EpochEndOffset { epoch: end.epoch.0, end_offset: end.offset };
    }
    if cx.version >= LEADER_IN_RESPONSE
        && matches!(read.code, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch)
    {
        let key = TopicPartition { topic: id, index: key.index };
        partition.current_leader = name_leader(services, cx, key, &mut response.node_endpoints);
    }
    match response.topics.last_mut() {
        Some(topic) if topic.topic == name && topic.topic_id == id.0 => {
            topic.partitions.push(partition)
        }
        _ => response.topics.push(FetchTopic {
            topic: name,
            topic_id: id.0,
            partitions: vec![partition],
        }),
    }
}

/// Adds the leader that this broker knows, and its endpoint, which saves the client a Metadata
/// request (KIP-951).
fn name_leader(
    services: &Services,
    cx: &RequestContext,
    key: TopicPartition,
    endpoints: &mut Vec<NodeEndpoint>,
) -> LeaderIdAndEpoch {
    let image = services.metadata.load();
    let Some(leader) = image.leader_hint(key, &cx.listener.name) else {
        return LeaderIdAndEpoch::default();
    };
    if let Some((endpoint, rack)) = leader.node
        && endpoints.iter().all(|known| known.node_id != leader.id.0)
    {
        endpoints.push(NodeEndpoint {
            node_id: leader.id.0,
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            rack: rack.clone(),
        });
    }
    LeaderIdAndEpoch { leader_id: leader.id.0, leader_epoch: leader.epoch.0 }
}
