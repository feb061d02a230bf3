//! Produce: records from clients into partitions.
//!
//! The batches stay in the frame of the request: they are validated there, get their offsets there,
//! and are written to the file from there. `handle` queues all batches before it returns, so a
//! connection's produces are appended in the order of its requests. Only the wait for the
//! acknowledgement is left to the future. Batches that take long to validate go to the thread for
//! large requests, and the connection's next request waits.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt;
use weir_protocol::batch::BatchHeader;
use weir_protocol::error::ErrorCode;
use weir_protocol::frame::response_bytes_max;
use weir_protocol::messages::ProduceResponse;
use weir_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use weir_protocol::produce::{ProducePartition, ProduceRequest, ProduceTopic, TopicRef};
use weir_protocol::types::{TopicId, TopicPartition};

mod outcome;
mod transactional;

use self::outcome::{Asking, Outcome, Refusal, Topic, Unread};
use super::request::Request;
use super::{Dispatch, RequestContext, repeats};
use crate::api::Services;
use crate::api::reply::Reply;
use crate::auth::{Operation, Resource};
use crate::budget::Room;
use crate::metadata::{MetadataImage, TopicImage};
use crate::replica::{Acks, Partition};
use weir_log::validate::{Effort, NotReady};
use weir_log::{AppendInfo, LogConfig, Prepared, TimestampType, validate};

/// The first version whose response names the new leader (KIP-951).
const LEADER_IN_RESPONSE: i16 = 10;

/// The client id that may write to internal topics, as in Kafka (`AdminUtils.ADMIN_CLIENT_ID`).
const ADMIN_CLIENT: &str = "__admin_client";

/// Handles a request.
pub(super) fn handle(mut request: Request, body: BytesMut) -> Dispatch {
    let mut produce = match ProduceRequest::decode(body, request.cx.version) {
        Ok(produce) => produce,
        Err(error) => return request.malformed(&error),
    };
    repeats::keep_last(
        &mut produce.topics,
        |topic| topic.topic.clone(),
        |topic| &mut topic.partitions,
        |partition| partition.index,
    );
    let (services, cx) = (&*request.services, &request.cx);
    let acks = match produce.acks {
        0 => Acks::None,
        1 => Acks::Leader,
        _ => Acks::All,
    };
    let timeout = Duration::from_millis(u64::try_from(produce.timeout_ms).unwrap_or(0))
        .min(ACKNOWLEDGED_WITHIN_MAX);
    let promised = match acks {
        Acks::None => 0,
        Acks::Leader | Acks::All => answer_bytes_max(&produce.topics),
    };
    let refusal = refuse_all(services, cx, &produce);
    let image = services.metadata.load();
    let transactional_id = produce.transactional_id;
    let asker = RequestInfo { cx, acks, effort: RefCell::new(Effort::of_a_moment()) };
    let mut topics: Vec<_> = produce
        .topics
        .into_iter()
        .map(|topic| append_topic(services, &asker, &image, topic, refusal))
        .collect();
    drop(image);
    // From here on only the unwritten records hold the room, unless the outcomes kept for the
    // answer are large as well.
    let named: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
    if named <= SMALL_MAX {
        request.cx.room = Room::default();
    }
    let takes_long = holds(&topics, |outcome| matches!(outcome, Outcome::Unread(_)));
    let must_ask = holds(&topics, |outcome| matches!(outcome, Outcome::Asking(_)));
    let server = Arc::clone(&request.services);
    let answer = async move {
        if takes_long {
            read_on(request.cx.version, &mut topics).await;
        }
        if holds(&topics, |outcome| matches!(outcome, Outcome::Asking(_))) {
            let id = transactional_id.unwrap_or_default();
            transactional::ask(&request.services, request.cx.version, &id, &mut topics).await;
        }
        let mut response = finish(&request, topics, acks, timeout).await;
        if acks == Acks::None {
            let failed = response
                .responses
                .iter()
                .flat_map(|topic| &topic.partition_responses)
                .any(|partition| partition.error_code != 0);
            // With acks=0 there is no response for the error. As in Kafka, the broker closes the
            // connection.
            return request.reply(if failed { Reply::close() } else { Reply::default() }, failed);
        }
        keep_within(&mut response, promised);
        // The connection has reserved the room of the answer before it took further requests.
        request.encoded(&response, Room::default())
    };
    // Later records must be appended after the first batch of a transaction, and after batches that
    // are not validated yet.
    let reply = match takes_long {
        true => server.large_requests.carry_out_to_the_end(answer),
        false => answer.boxed(),
    };
    Dispatch::Produced { reply, bytes_max: promised, alone: takes_long || must_ask }
}

/// The most bytes of an answer outside its topics, of a topic besides its name, and of a partition.
const ANSWER_BYTES_MAX: usize = 2 * 1024;
const TOPIC_BYTES_MAX: usize = 32;
const PARTITION_BYTES_MAX: usize = 80;

/// The most bytes of the answer, known before any work is done.
fn answer_bytes_max(topics: &[ProduceTopic]) -> usize {
    let of_topic = |topic: &ProduceTopic| {
        let name = match &topic.topic {
            TopicRef::Name(name) => name.len(),
            TopicRef::Id(_) => 0,
        };
        TOPIC_BYTES_MAX + name + topic.partitions.len() * PARTITION_BYTES_MAX
    };
    ANSWER_BYTES_MAX + topics.iter().map(of_topic).sum::<usize>()
}

/// Drops the record errors and the error messages, if the answer would exceed the reserved bytes.
/// The codes are enough for any client.
fn keep_within(response: &mut ProduceResponse, bytes_max: usize) {
    if response_bytes_max(response) <= bytes_max {
        return;
    }
    for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses)
    {
        partition.record_errors = Vec::new();
        partition.error_message = None;
    }
}

/// The most partitions of a request whose outcomes, of some eighty bytes each, are kept until the
/// answer without room.
const SMALL_MAX: usize = 200;

/// The longest wait for acknowledgements, whatever timeout the request has. The room of its answer
/// stays reserved meanwhile. Clients use half a minute.
const ACKNOWLEDGED_WITHIN_MAX: Duration = Duration::from_secs(5 * 60);

/// The fields of a request that apply to each of its partitions.
struct RequestInfo<'a> {
    cx: &'a RequestContext,
    acks: Acks,
    /// The validation work that may still run on this thread.
    effort: RefCell<Effort>,
}

/// Whether some partition's outcome satisfies `is_so`.
fn holds(topics: &[Topic], is_so: impl Fn(&Outcome) -> bool) -> bool {
    topics.iter().flat_map(|topic| &topic.partitions).any(|(_, outcome)| is_so(outcome))
}

/// Validates the remaining batches and queues them for their partitions. Yields after each batch.
async fn read_on(version: i16, topics: &mut [Topic]) {
    for topic in topics {
        for (_, outcome) in &mut topic.partitions {
            if !matches!(outcome, Outcome::Unread(_)) {
                continue;
            }
            let taken =
                std::mem::replace(outcome, Outcome::Refused(ErrorCode::UnknownServerError.into()));
            let Outcome::Unread(unread) = taken else { continue };
            let Unread { partition, config, records, room } = *unread;
            *outcome = match validate::validate(records, &config, version, crate::replica::now_ms())
            {
                Ok(prepared) => place(partition, prepared, &config, room),
                Err(refusal) => Outcome::Refused(refusal.into()),
            };
            tokio::task::yield_now().await;
        }
    }
}

/// The error of the request as a whole.
fn refuse_all(
    services: &Services,
    cx: &RequestContext,
    request: &ProduceRequest,
) -> Option<ErrorCode> {
    if !(-1..=1).contains(&request.acks) {
        return Some(ErrorCode::InvalidRequiredAcks);
    }
    // One transactional batch makes the whole request transactional.
    let is_transactional = |partition: &ProducePartition| {
        let header = partition.records.as_ref().map(|records| BatchHeader::parse(records));
        header.is_some_and(|header| header.is_ok_and(|header| header.is_transactional()))
    };
    if !request.topics.iter().flat_map(|topic| &topic.partitions).any(is_transactional) {
        return None;
    }
    let allows = |id| {
        services.authorizer.allows(&cx.requester, Operation::Write, Resource::TransactionalId(id))
    };
    let allowed = request.transactional_id.as_deref().is_some_and(allows);
    (!allowed).then_some(ErrorCode::TransactionalIdAuthorizationFailed)
}

fn append_topic(
    services: &Services,
    asker: &RequestInfo<'_>,
    image: &MetadataImage,
    topic: ProduceTopic,
    refusal: Option<ErrorCode>,
) -> Topic {
    let (found, name, id) = match topic.topic {
        TopicRef::Name(name) => (image.topic_by_name(&name), name, TopicId::ZERO),
        TopicRef::Id(id) => (image.topic(id), String::new(), id),
    };
    let refusal = refusal.or_else(|| {
        // A caller that may not write to a topic does not learn whether it exists.
        let shown = found.map_or(name.as_str(), |topic| &topic.name);
        let by_id = name.is_empty() && id != TopicId::ZERO;
        if (found.is_some() || !by_id)
            && !services.authorizer.allows(
                &asker.cx.requester,
                Operation::Write,
                Resource::Topic(shown),
            )
        {
            return Some(ErrorCode::TopicAuthorizationFailed);
        }
        let unknown =
            if by_id { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition };
        found.is_none().then_some(unknown)
    });
    let bring_one = |partition: ProducePartition| {
        let key =
            TopicPartition { topic: found.map_or(id, |topic| topic.id), index: partition.index };
        let outcome = match (refusal, found) {
            (None, Some(found)) => append_partition(services, asker, found, key, partition),
            (refusal, _) => Err(refusal.unwrap_or(ErrorCode::UnknownTopicOrPartition).into()),
        };
        (key, outcome.unwrap_or_else(Outcome::Refused))
    };
    Topic { name, id, partitions: topic.partitions.into_iter().map(bring_one).collect() }
}

fn append_partition(
    services: &Services,
    asker: &RequestInfo<'_>,
    topic: &TopicImage,
    key: TopicPartition,
    data: ProducePartition,
) -> Result<Outcome, Refusal> {
    topic.partition(key.index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    // Only coordinators write to internal topics (`ReplicaManager.appendRecords`).
    if topic.internal && asker.cx.client_id.as_deref() != Some(ADMIN_CLIENT) {
        return Err(ErrorCode::InvalidTopicException.into());
    }
    let partition = services.replicas.get(key).ok_or(ErrorCode::NotLeaderOrFollower)?;
    partition.traffic().produces();
    partition.accepts(asker.acks)?;
    let config = partition.config();
    let records = data.records.unwrap_or_default();
    services.metrics.received_records(records.len());
    let room = asker.cx.room.clone();
    let judged = validate::validate_within(
        records,
        &config,
        asker.cx.version,
        crate::replica::now_ms(),
        &mut asker.effort.borrow_mut(),
    );
    match judged {
        Ok(prepared) => Ok(place(partition, prepared, &config, room)),
        Err(NotReady::Refused(refusal)) => Err(refusal.into()),
        Err(NotReady::TakesLong(records)) => {
            Ok(Outcome::Unread(Box::new(Unread { partition, config, records, room })))
        }
    }
}

/// Queues a batch for its partition, unless its transaction's coordinator must be asked first.
fn place(partition: Arc<Partition>, prepared: Prepared, config: &LogConfig, room: Room) -> Outcome {
    let log_append_time = config.timestamp_type == TimestampType::LogAppendTime;
    if transactional::must_ask(&partition, &prepared) {
        return Outcome::Asking(Box::new(Asking { partition, prepared, log_append_time, room }));
    }
    Outcome::Brought {
        appending: partition.append_with(prepared, room.into_keepsake()),
        log_append_time,
    }
}

/// Waits for all acknowledgements and builds the response.
async fn finish(
    request: &Request,
    topics: Vec<Topic>,
    acks: Acks,
    timeout: Duration,
) -> ProduceResponse {
    let Request { services, cx, .. } = request;
    let deadline = tokio::time::Instant::now() + timeout;
    let mut response = ProduceResponse::default();
    for topic in topics {
        let mut answered =
            TopicProduceResponse { name: topic.name, topic_id: topic.id.0, ..Default::default() };
        for (key, outcome) in topic.partitions {
            // Waiting for one partition after the other is as fast as for all at once, because all
            // share one deadline.
            let mut partition = match outcome {
                Outcome::Refused(refusal) => refused(services, key, refusal),
                // `transactional::ask` has resolved all of these.
                Outcome::Asking(_) => refused(services, key, ErrorCode::InvalidTxnState.into()),
                // `read_on` has resolved all of these.
                Outcome::Unread(_) => refused(services, key, ErrorCode::UnknownServerError.into()),
                Outcome::Brought { appending, log_append_time } => {
                    match appending.acknowledged_by(acks, deadline, || cx.span()).await {
                        Ok(Ok(info)) => {
                            services.metrics.appended_records(records_of(&info));
                            appended(key.index, &info, log_append_time)
                        }
                        Ok(Err(error)) => refused(services, key, error.into()),
                        Err(_) => refused(services, key, ErrorCode::RequestTimedOut.into()),
                    }
                }
            };
            if cx.version >= LEADER_IN_RESPONSE && moved(partition.error_code) {
                partition.current_leader =
                    name_leader(services, cx, key, &mut response.node_endpoints);
            }
            answered.partition_responses.push(partition);
        }
        response.responses.push(answered);
    }
    response
}

fn records_of(info: &AppendInfo) -> u64 {
    u64::try_from(info.last_offset - info.first_offset + 1).unwrap_or(0)
}

fn appended(index: i32, info: &AppendInfo, log_append_time: bool) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        base_offset: info.first_offset,
        log_append_time_ms: if log_append_time { info.max_timestamp } else { -1 },
        log_start_offset: info.log_start_offset,
        ..Default::default()
    }
}

fn refused(services: &Services, key: TopicPartition, refusal: Refusal) -> PartitionProduceResponse {
    let partition = services.replicas.get(key);
    if let Some(partition) = &partition {
        partition.traffic().produce_failed();
    }
    let log_start_offset = partition.filter(|_| refusal.tells_log_start);
    PartitionProduceResponse {
        index: key.index,
        error_code: refusal.code as i16,
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: log_start_offset
            .map_or(-1, |partition| partition.log().log_start_offset()),
        record_errors: refusal.records,
        error_message: refusal.message,
        ..Default::default()
    }
}

fn moved(code: i16) -> bool {
    code == ErrorCode::NotLeaderOrFollower as i16 || code == ErrorCode::FencedLeaderEpoch as i16
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
