//! Fetching from one leader: one connection and one incremental fetch session, for all partitions
//! that it leads and this broker follows.
//!
//! The session appends an answer, flushes all its partitions at once, and only then sends the next
//! request, with this broker's new offsets. While a long poll waits, a second request adds new
//! partitions at once, and the leader then ends the poll. A request names only partitions whose
//! fetch has changed. The leader answers only for partitions with news. So quiet partitions cost
//! nothing.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{debug, info, warn};
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic, ReplicaState,
};
use weir_protocol::messages::fetch_response::PartitionData;
use weir_protocol::messages::{FetchRequest, FetchResponse, Message};
use weir_protocol::types::{BrokerId, LeaderEpoch, TopicId, TopicPartition};

use super::context::FetcherContext;
use super::flush::{FLUSH_MAX, wait_for_flush};
use super::inbox::{Inbox, Told};
use super::leader::{ANSWER_MAX, SessionError, connect};
use super::offsets::leader_offsets;
use super::silence::Silence;
use crate::replica::core::{FetchAnswer, FetchFrom, Next, Todo};
use crate::replica::{Partition, Settings};
use weir_log::EpochEnd;

/// The longest wait for writers that delete what the leader has deleted, so that the next fetch
/// carries the new log start offsets.
const LOG_START_MAX: Duration = Duration::from_secs(10);

/// The protocol version between brokers of this build.
const FETCH_VERSION: i16 = 18;

/// The first and the longest pause before a reconnect; the pause doubles in between
/// (`replica.fetch.backoff.ms`).
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(1_000);

/// The pause of a throttled partition that lags while the quota is used up, in milliseconds.
const THROTTLED_MS: u64 = 100;

/// A partition that this session fetches.
#[derive(Debug)]
struct Slot {
    partition: Arc<Partition>,
    epoch: LeaderEpoch,
    /// The fetch that the leader's session holds for it, and the number of the request that sent
    /// it.
    sent: Option<(FetchFrom, u64)>,
    /// The leader has answered that fetch, and waits for the next one.
    is_answered: bool,
    is_due: bool,
}

/// The task of one leader.
#[derive(Debug)]
pub(super) struct Session {
    context: Arc<FetcherContext>,
    leader: BrokerId,
    inbox: Arc<Inbox>,
    slots: HashMap<TopicPartition, Slot>,
    /// Partitions that the next request may have to name.
    due: Vec<TopicPartition>,
    /// Partitions that the leader's session still holds and must drop.
    forgotten: HashSet<TopicPartition>,
    /// Partitions that are not fetched before a time.
    delayed: BinaryHeap<Reverse<(u64, TopicPartition)>>,
    id: i32,
    epoch: i32,
    requests: u64,
    answers: u64,
    /// The leader has taken this session's fetches: an answer came that was no refusal.
    is_following: bool,
    silence: Silence,
}

impl Session {
    pub(super) fn new(context: Arc<FetcherContext>, leader: BrokerId, inbox: Arc<Inbox>) -> Self {
        Self {
            context,
            leader,
            inbox,
            slots: HashMap::new(),
            due: Vec::new(),
            forgotten: HashSet::new(),
            delayed: BinaryHeap::new(),
            id: 0,
            epoch: 0,
            requests: 0,
            answers: 0,
            is_following: false,
            silence: Silence::default(),
        }
    }

    /// Fetches until the task is dropped.
    pub(super) async fn run(mut self) {
        let mut pause = RETRY_MIN;
        loop {
            self.take_inbox();
            if self.slots.is_empty() {
                self.silence.end();
                self.inbox.notify.notified().await;
                continue;
            }
            self.begin_anew();
            let Err(error) = self.fetch_until_it_ends().await;
            if self.is_following {
                // The leader answered until just now.
                self.context.replicas.lost_leaders().lose(self.leader);
                self.silence.end();
            }
            match self.silence.failed(Instant::now()) {
                None => debug!(leader = self.leader.0, %error, "the connection to a leader ended"),
                Some(silent) => warn!(
                    leader = self.leader.0,
                    partitions = self.slots.len(),
                    silent_s = silent.as_secs(),
                    %error,
                    "cannot follow a leader: its partitions are not replicated to this broker, \
                     which tries again every second"
                ),
            }
            pause = if self.is_following { RETRY_MIN } else { (pause * 2).min(RETRY_MAX) };
            let notified = tokio::time::timeout(pause, self.inbox.notify.notified()).await;
            if notified.is_ok() {
                // The message may relate to the failure: the leader is back, or another one is
                // elected. The pause avoids an immediate retry.
                tokio::time::sleep(RETRY_MIN).await;
            }
        }
    }

    /// Starts a new session: no request is under way, and the leader knows no partition.
    fn begin_anew(&mut self) {
        (self.id, self.epoch) = (0, 0);
        self.is_following = false;
        self.answers = self.requests;
        self.forgotten.clear();
        self.due.clear();
        self.delayed.clear();
        for (id, slot) in &mut self.slots {
            (slot.sent, slot.is_due) = (None, true);
            self.due.push(*id);
        }
    }

    fn take_inbox(&mut self) {
        let told = std::mem::take(&mut *self.inbox.told.lock());
        for told in told {
            match told {
                Told::Fetch(partition, epoch) => {
                    let id = partition.id();
                    let slot =
                        Slot { partition, epoch, sent: None, is_answered: false, is_due: false };
                    self.leave(id);
                    self.slots.insert(id, slot);
                    self.make_due(id);
                }
                Told::Leave(id) => self.leave(id),
            }
        }
    }

    fn leave(&mut self, id: TopicPartition) {
        if let Some(Slot { sent: Some(_), .. }) = self.slots.remove(&id) {
            self.forgotten.insert(id);
        }
    }

    fn make_due(&mut self, id: TopicPartition) {
        if let Some(slot) = self.slots.get_mut(&id)
            && !std::mem::replace(&mut slot.is_due, true)
        {
            self.due.push(id);
        }
    }

    async fn fetch_until_it_ends(&mut self) -> Result<std::convert::Infallible, SessionError> {
        let (mut connection, address) = connect(&self.context, self.leader).await?;
        loop {
            self.take_inbox();
            self.take_delayed();
            let settings = self.context.replicas.settings();
            if let Some(request) = self.request(connection.awaited() == 0, &settings) {
                connection.send(FETCH_VERSION, &request).await?;
            }
            let inbox = Arc::clone(&self.inbox);
            let delayed_ms = self.delayed.peek().map_or(u64::MAX, |Reverse((at, _))| {
                at.saturating_sub(self.context.replicas.shared().now())
            });
            let limit = settings.fetch_wait_max + ANSWER_MAX;
            let waits = connection.awaited() > 0;
            // At most two requests: the long poll, and one with new partitions.
            let room = connection.awaited() < 2;
            tokio::select! {
                received = connection.receive(limit), if waits => {
                    let body = received?;
                    self.answers += 1;
                    if self.id == 0 {
                        self.context.replicas.lost_leaders().find(self.leader);
                    }
                    if !self.answered(body).await? {
                        connection.shrink();
                    }
                    if !std::mem::replace(&mut self.is_following, true) {
                        info!(
                            leader = self.leader.0,
                            host = address.host,
                            port = address.port,
                            partitions = self.slots.len(),
                            "following a leader"
                        );
                    }
                }
                () = inbox.notify.notified(), if room => {}
                () = tokio::time::sleep(Duration::from_millis(delayed_ms.max(1))), if room && delayed_ms < u64::MAX => {}
            }
        }
    }

    fn take_delayed(&mut self) {
        let now = self.context.replicas.shared().now();
        while let Some(Reverse((at, id))) = self.delayed.peek().copied()
            && at <= now
        {
            self.delayed.pop();
            self.make_due(id);
        }
    }

    /// The next request; `None` when no partition is to be named and a request is under way, or
    /// when there is nothing to fetch.
    fn request(&mut self, must_ask: bool, settings: &Settings) -> Option<FetchRequest> {
        if self.id == 0 && !must_ask {
            // The pending answer carries the id of the session, which later requests need.
            return None;
        }
        let mut topics: Vec<FetchTopic> = Vec::new();
        let now = self.context.replicas.shared().now();
        for id in std::mem::take(&mut self.due) {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            slot.is_due = false;
            // An offline log cannot be written before the next start, so it is not fetched.
            let is_writable = !slot.partition.log().is_offline();
            let from = match slot.partition.next_fetch(slot.epoch).filter(|_| is_writable) {
                Some(Next::Fetch(from)) if slot.partition.throttled_until(slot.epoch).is_none() => {
                    from
                }
                other => {
                    if slot.sent.take().is_some() {
                        self.forgotten.insert(id);
                    }
                    match other {
                        Some(Next::At(at)) => self.delayed.push(Reverse((at, id))),
                        // The quota is used up.
                        Some(Next::Fetch(_)) if is_writable => {
                            self.delayed.push(Reverse((now + THROTTLED_MS, id)))
                        }
                        Some(Next::AfterFlush) => {
                            // A flush is under way, unless nothing has requested it.
                            slot.partition.log().request_flush();
                            self.delayed.push(Reverse((now + 2, id)));
                        }
                        Some(Next::Never | Next::Fetch(_)) | None => {}
                    }
                    continue;
                }
            };
            if slot.sent.is_some_and(|(sent, _)| sent == from) && !slot.is_answered {
                continue;
            }
            slot.sent = Some((from, self.requests + 1));
            slot.is_answered = false;
            self.forgotten.remove(&id);
            let partition = FetchPartition {
                partition: id.index,
                current_leader_epoch: from.current_leader_epoch.0,
                fetch_offset: from.offset,
                last_fetched_epoch: from.last_fetched_epoch.map_or(-1, |epoch| epoch.0),
                log_start_offset: from.log_start,
                partition_max_bytes: settings.fetch_bytes_max,
                high_watermark: slot.partition.high_watermark(),
                ..Default::default()
            };
            match topics.last_mut() {
                Some(topic) if topic.topic_id == id.topic.0 => topic.partitions.push(partition),
                _ => topics.push(FetchTopic {
                    topic_id: id.topic.0,
                    partitions: vec![partition],
                    ..Default::default()
                }),
            }
        }
        let has_news = !topics.is_empty();
        let fetches = || self.slots.values().any(|slot| slot.sent.is_some());
        let may_ask = must_ask && self.id != 0;
        if !(has_news || may_ask && fetches()) {
            return None;
        }
        self.requests += 1;
        // The leader answers a session's first request at once: no partition can be added before
        // its answer.
        let wait = if self.id == 0 { Duration::ZERO } else { settings.fetch_wait_max };
        let request = FetchRequest {
            replica_state: ReplicaState {
                replica_id: self.context.id.0,
                replica_epoch: (self.context.broker_epoch)(),
                ..Default::default()
            },
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: settings.fetch_bytes_min,
            max_bytes: settings.fetch_response_bytes_max,
            session_id: self.id,
            session_epoch: self.epoch,
            topics,
            forgotten_topics_data: forget(&mut self.forgotten),
            ..Default::default()
        };
        if self.id != 0 {
            self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        }
        Some(request)
    }

    /// Takes up a response; returns whether it contains records.
    async fn answered(&mut self, mut body: Bytes) -> Result<bool, SessionError> {
        let response = FetchResponse::decode(&mut body, FETCH_VERSION)?;
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {}
            code => return Err(SessionError::Refused(code)),
        }
        if self.id == 0 {
            if response.session_id == 0 {
                return Err(SessionError::NoSession);
            }
            (self.id, self.epoch) = (response.session_id, 1);
        }
        let mut has_records = false;
        let (mut appended, mut out_of_range, mut heard) = (Vec::new(), Vec::new(), Vec::new());
        for topic in response.responses {
            for data in topic.partitions {
                let id =
                    TopicPartition { topic: TopicId(topic.topic_id), index: data.partition_index };
                has_records |= data.records.as_ref().is_some_and(|records| !records.is_empty());
                // An answer to an older fetch of this partition is followed by one to the newer
                // fetch.
                let Some(slot) = self.slots.get_mut(&id) else { continue };
                let Some((sent, _)) = slot.sent.filter(|(_, request)| *request <= self.answers)
                else {
                    continue;
                };
                let is_last = data.error_code != 0
                    || data.diverging_epoch.end_offset >= 0
                    || data.records.as_ref().is_some_and(|it| !it.is_empty());
                slot.is_answered |= is_last;
                let (partition, epoch) = (Arc::clone(&slot.partition), slot.epoch);
                heard.push((Arc::clone(&partition), epoch));
                match take_answer(self.leader, &partition, epoch, &sent, data).await {
                    Taken::Nothing => {}
                    Taken::Appended => appended.push((partition, epoch)),
                    Taken::OutOfRange => out_of_range.push(id),
                }
                self.make_due(id);
            }
        }
        if !out_of_range.is_empty() {
            self.ask_offsets(&out_of_range).await;
        }
        wait_for_flush(&appended, FLUSH_MAX).await;
        let deleted = async {
            for (partition, epoch) in heard {
                partition.follow_log_start(epoch).await;
            }
        };
        // A writer that is busy for longer delays only its own partition, not the leader's others.
        if tokio::time::timeout(LOG_START_MAX, deleted).await.is_err() {
            warn!(
                leader = self.leader.0,
                seconds = LOG_START_MAX.as_secs(),
                "what a leader has deleted is not deleted here in time; fetching goes on"
            );
        }
        Ok(has_records)
    }

    /// Asks for the start and the end of the leader's logs, for partitions whose offset the leader
    /// does not have.
    async fn ask_offsets(&self, ids: &[TopicPartition]) {
        let slots = ids.iter().filter_map(|id| self.slots.get(id));
        let wanted: Vec<(Arc<Partition>, LeaderEpoch)> =
            slots.map(|slot| (Arc::clone(&slot.partition), slot.epoch)).collect();
        let offsets = match leader_offsets(&self.context, self.leader, &wanted).await {
            Ok(offsets) => offsets,
            Err(error) => {
                debug!(leader = self.leader.0, %error, "cannot ask a leader for its offsets");
                HashMap::new()
            }
        };
        for id in ids {
            let Some(slot) = self.slots.get(id) else { continue };
            match offsets.get(id) {
                Some(&(start, end)) => {
                    let todo = slot.partition.leader_offsets(slot.epoch, start, end);
                    slot.partition.cut(slot.epoch, todo).await;
                }
                None => slot.partition.fetch_failed(slot.epoch),
            }
        }
    }
}

/// What one partition's answer means for the session.
enum Taken {
    Nothing,
    Appended,
    OutOfRange,
}

async fn take_answer(
    leader: BrokerId,
    partition: &Arc<Partition>,
    epoch: LeaderEpoch,
    sent: &FetchFrom,
    data: PartitionData,
) -> Taken {
    let records = data.records.filter(|records| !records.is_empty());
    let diverging = (data.diverging_epoch.end_offset >= 0).then_some(EpochEnd {
        epoch: LeaderEpoch(data.diverging_epoch.epoch),
        offset: data.diverging_epoch.end_offset,
    });
    let answer = FetchAnswer {
        error: ErrorCode::from_code(data.error_code),
        high_watermark: data.high_watermark,
        log_start: data.log_start_offset,
        diverging,
        has_records: records.is_some(),
    };
    if answer.error != ErrorCode::None {
        debug!(leader = leader.0, topic = %partition.topic(), partition = data.partition_index, error = answer.error.name(), "the leader refuses a fetch");
    }
    let todo = partition.fetch_answered(epoch, sent, &answer);
    if matches!(answer.error, ErrorCode::CorruptMessage | ErrorCode::KafkaStorageError) {
        partition.is_refused(epoch, sent.offset, answer.error);
    }
    match todo {
        Todo::Nothing => partition.step(),
        Todo::Append => {
            if let Some(records) = records {
                if partition.throttled().follower {
                    let shared = partition.shared();
                    shared.follower_quota.record(records.len(), shared.now());
                }
                if partition.follow(records, epoch).await {
                    return Taken::Appended;
                }
            }
        }
        todo @ (Todo::Truncate(_) | Todo::Restart(_)) => partition.cut(epoch, todo).await,
        Todo::AskOffsets => return Taken::OutOfRange,
    }
    Taken::Nothing
}

fn forget(forgotten: &mut HashSet<TopicPartition>) -> Vec<ForgottenTopic> {
    let mut topics: Vec<ForgottenTopic> = Vec::new();
    for id in forgotten.drain() {
        match topics.last_mut() {
            Some(topic) if topic.topic_id == id.topic.0 => topic.partitions.push(id.index),
            _ => topics.push(ForgottenTopic {
                topic_id: id.topic.0,
                partitions: vec![id.index],
                ..Default::default()
            }),
        }
    }
    topics
}
