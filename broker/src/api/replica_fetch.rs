//! Fetch requests of followers. They read up to the end of the log, and each one reports the
//! follower's progress.
//!
//! A follower's fetch waits for appends, not for the high watermark. If only the high watermark has
//! moved, the answer follows a little later. So a follower learns what is committed even if nothing
//! more is written (KIP-1166).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use weir_protocol::error::ErrorCode;
use weir_protocol::fetch::{FetchPartition, FetchResponse, FetchTopic, PARTITION_BYTES_MAX};
use weir_protocol::messages::FetchRequest;
use weir_protocol::messages::fetch_response::EpochEndOffset;
use weir_protocol::types::{BrokerEpoch, BrokerId, LeaderEpoch, TopicId, TopicPartition};

use super::RequestContext;
use super::replica_session::{FetchRequestPartition, Follower, SLOT_BYTES, Session};
use crate::api::Services;
use crate::api::reply::FileRegion;
use crate::budget::Room;
use crate::replica::core::FetchFrom;
use crate::replica::{FollowerFetch, Served};

/// The first version with the follower's broker epoch (KIP-903). The leader ignores progress
/// without it.
const REPLICA_STATE: i16 = 15;

/// How long an advanced high watermark waits for records to go with it. Under load records always
/// follow, and answers without records cost more than they help (KAFKA-9731).
const HIGH_WATERMARK_WAIT: Duration = Duration::from_millis(5);

/// The most absent partitions that are answered without room in the budget. The follower may not
/// know yet that they have moved.
const ABSENT_MAX: usize = 200;

/// Answers a follower's fetch, and returns the room of the answer.
///
/// Partitions on this broker need no room: a leader that does not answer its followers is soon
/// alone. Absent partitions need some, because any client can claim to be a follower and name
/// partitions that are not here.
pub(super) async fn answer(
    services: &Services,
    cx: &RequestContext,
    request: FetchRequest,
    bytes_max: usize,
) -> (FetchResponse<FileRegion>, Room) {
    let failed = |code: ErrorCode| {
        let response = FetchResponse { error_code: code.code(), ..FetchResponse::default() };
        (response, Room::default())
    };
    if cx.version < REPLICA_STATE {
        return failed(ErrorCode::UnsupportedVersion);
    }
    let (here, absent): (Vec<_>, Vec<_>) =
        wanted(services, &request).into_iter().partition(|wanted| wanted.partition.is_some());
    let absent: Vec<_> = absent.into_iter().map(|wanted| wanted.id).collect();
    let room = match absent.len() {
        ..=ABSENT_MAX => Room::default(),
        // The decoded request is not kept while the client of another answer is slow. The follower
        // begins a new session and asks again.
        count => match services.answer_memory.try_room(count * PARTITION_BYTES_MAX) {
            Some(room) => room,
            None => return failed(ErrorCode::FetchSessionIdNotFound),
        },
    };
    let follower = Follower {
        id: BrokerId(request.replica_state.replica_id),
        epoch: BrokerEpoch(request.replica_state.replica_epoch),
    };
    let mut session = match services.follower_sessions.take(
        follower,
        &services.metadata.load(),
        request.session_id,
        request.session_epoch,
    ) {
        Ok(session) => session,
        Err(code) => return failed(code),
    };
    let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
        let id = TopicId(topic.topic_id);
        topic.partitions.iter().map(move |&index| TopicPartition { topic: id, index })
    });
    let named = here.len() + absent.len();
    // The answer for absent partitions is immediate, and the session does not keep them: the
    // follower asks again.
    session.apply(here, forgotten.chain(absent.iter().copied()));
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let wait = if absent.is_empty() { wait } else { Duration::ZERO };
    let limits = Limits {
        deadline: Instant::now() + cx.room.waits(named * SLOT_BYTES, wait),
        bytes_min: usize::try_from(request.min_bytes).unwrap_or(0),
        bytes_max: usize::try_from(request.max_bytes).unwrap_or(0).min(bytes_max),
    };
    drop(request);
    let news = gather(cx, &mut session, follower, &limits).await;
    let mut response = FetchResponse { session_id: session.id, ..FetchResponse::default() };
    for (number, news) in news {
        say(&mut session, number, news, &mut response);
    }
    for id in absent {
        let unknown =
            FetchPartition { error_code: ErrorCode::UnknownTopicId.code(), ..nothing(id) };
        put(&mut response, id, unknown);
    }
    services.follower_sessions.give_back(session);
    (response, room)
}

/// The bounds of one request.
struct Limits {
    deadline: Instant,
    bytes_min: usize,
    bytes_max: usize,
}

fn wanted(services: &Services, request: &FetchRequest) -> Vec<FetchRequestPartition> {
    let mut wanted = Vec::new();
    for topic in &request.topics {
        wanted.extend(topic.partitions.iter().map(|partition| {
            let id = TopicPartition { topic: TopicId(topic.topic_id), index: partition.partition };
            FetchRequestPartition {
                id,
                partition: services.replicas.get(id),
                from: FetchFrom {
                    offset: partition.fetch_offset,
                    last_fetched_epoch: (partition.last_fetched_epoch >= 0)
                        .then_some(LeaderEpoch(partition.last_fetched_epoch)),
                    current_leader_epoch: LeaderEpoch(partition.current_leader_epoch),
                    log_start: partition.log_start_offset,
                },
                bytes_max: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
                high_watermark: partition.high_watermark,
            }
        }));
    }
    wanted
}

/// The answer for a partition.
type News = Result<Served, ErrorCode>;

/// Examines the partitions with news until there is enough for an answer, or the time is up.
async fn gather(
    cx: &RequestContext,
    session: &mut Session,
    follower: Follower,
    limits: &Limits,
) -> BTreeMap<u32, News> {
    let changes = session.changes();
    let mut news = BTreeMap::new();
    let mut deadline = limits.deadline;
    session.end_throttling();
    loop {
        let found = read_due(session, follower, limits, &mut news);
        let bytes: usize = news
            .values()
            .filter_map(|news| news.as_ref().ok()?.records.as_ref())
            .map(|slice| slice.length)
            .sum();
        if found.must_say
            || (bytes > 0 && bytes >= limits.bytes_min)
            || session.has_left()
            || changes.has_ended()
        {
            return news;
        }
        if found.high_watermark {
            deadline = deadline.min(Instant::now() + HIGH_WATERMARK_WAIT);
        }
        // Throttled partitions are examined again as soon as the quota allows it, or with the next
        // request.
        let throttled_until =
            found.throttled_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        tokio::select! {
            () = changes.changed() => {}
            () = tokio::time::sleep_until(throttled_until.unwrap_or(deadline)), if throttled_until.is_some_and(|until| until < deadline) => session.end_throttling(),
            () = cx.next_is_here.notified() => return news,
            () = tokio::time::sleep_until(deadline) => return news,
        }
    }
}

/// The result of one examination.
#[derive(Default)]
struct Found {
    /// Something to answer at once.
    must_say: bool,
    /// A high watermark that has moved, without anything else.
    high_watermark: bool,
    /// The quota is used up for this many milliseconds.
    throttled_ms: Option<u64>,
}

fn read_due(
    session: &mut Session,
    follower: Follower,
    limits: &Limits,
    news: &mut BTreeMap<u32, News>,
) -> Found {
    let mut found = Found::default();
    let taken: usize = news
        .values()
        .filter_map(|news| news.as_ref().ok()?.records.as_ref())
        .map(|slice| slice.length)
        .sum();
    let mut left = limits.bytes_max.saturating_sub(taken);
    let mut is_first = taken == 0;
    let (mut left_over, mut throttled) = (VecDeque::new(), Vec::new());
    for number in session.take_due() {
        let Some(slot) = session.slot_mut(number).filter(|slot| !slot.is_answered) else {
            continue;
        };
        let fetch = FollowerFetch {
            replica: follower.id,
            broker_epoch: follower.epoch,
            from: slot.from,
            is_news: std::mem::take(&mut slot.is_news),
        };
        let served = match &slot.partition {
            Some(partition) => partition.serve(&fetch, slot.bytes_max.min(left), is_first),
            None => Err(ErrorCode::UnknownTopicId),
        };
        if let Ok(served) = &served {
            if served.has_more {
                left_over.push_back(number);
            }
            if let Some(ms) = served.throttled_ms {
                found.throttled_ms = Some(found.throttled_ms.map_or(ms, |other| other.min(ms)));
                throttled.push(number);
            }
            left = left.saturating_sub(served.records.as_ref().map_or(0, |slice| slice.length));
            is_first &= served.records.is_none();
            let has_moved = served.high_watermark > slot.said_high_watermark;
            let start_has_moved = served.log_start_offset != slot.said_log_start;
            found.high_watermark |= has_moved;
            // The first answer of a session contains every log start offset, which alone is not
            // urgent.
            found.must_say |=
                served.diverging.is_some() || (start_has_moved && slot.said_log_start >= 0);
            if served.records.is_none()
                && served.diverging.is_none()
                && !has_moved
                && !start_has_moved
            {
                continue;
            }
        } else {
            found.must_say = true;
        }
        news.insert(number, served);
    }
    session.leave(left_over);
    session.throttle(throttled);
    found
}

/// Adds one partition to the response, beside the others of its topic.
fn say(session: &mut Session, number: u32, news: News, response: &mut FetchResponse<FileRegion>) {
    let Some(slot) = session.slot_mut(number) else { return };
    let mut partition = nothing(slot.id);
    match news {
        Ok(served) => {
            slot.is_answered = served.records.is_some() || served.diverging.is_some();
            if slot.said_high_watermark < i64::MAX {
                slot.said_high_watermark = served.high_watermark;
            }
            slot.said_log_start = served.log_start_offset;
            partition.high_watermark = served.high_watermark;
            partition.last_stable_offset = served.high_watermark;
            partition.log_start_offset = served.log_start_offset;
            if let Some(end) = served.diverging {
                partition.diverging_epoch =
                    EpochEndOffset { epoch: end.epoch.0, end_offset: end.offset };
            }
            partition.records = served.records.map(FileRegion::from);
        }
        Err(code) => {
            slot.is_answered = true;
            partition.error_code = code.code();
        }
    }
    put(response, slot.id, partition);
}

/// An answer for a partition without any values.
fn nothing(id: TopicPartition) -> FetchPartition<FileRegion> {
    FetchPartition {
        partition_index: id.index,
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        ..FetchPartition::default()
    }
}

fn put(
    response: &mut FetchResponse<FileRegion>,
    id: TopicPartition,
    partition: FetchPartition<FileRegion>,
) {
    let id = id.topic.0;
    match response.topics.last_mut() {
        Some(topic) if topic.topic_id == id => topic.partitions.push(partition),
        _ => response.topics.push(FetchTopic {
            topic: String::new(),
            topic_id: id,
            partitions: vec![partition],
        }),
    }
}
