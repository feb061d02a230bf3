//! PURE: incremental fetch sessions (KIP-227): a client names its partitions once, and afterwards
//! both sides send only changes.
//!
//! Called by `fetch`. Reads no log and no clock. It records the requested and last answered state
//! of each partition, and chooses the sessions to evict. The semantics, error by error, are those
//! of `FetchSession.scala`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod request;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::TopicId;

use super::topic_name::LENGTH_MAX as TOPIC_NAME_LENGTH_MAX;

/// The epoch that opens a new session, and the one that wants none.
const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

/// Bytes that a partition takes in a session, besides its topic's name.
const PARTITION_BYTES: usize = 160;

/// The idle time after which a session may be evicted for any other
/// (`min.incremental.fetch.session.eviction.ms`).
const EVICTION_MS: i64 = 120_000;

/// A topic in a client's request: by id since version 13, by name before. A session does not mix
/// them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TopicRef {
    Id(TopicId),
    Name(Arc<str>),
}

/// A partition in a client's request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) topic: TopicRef,
    pub(crate) index: i32,
}

impl Key {
    /// Whether such a topic can exist. The broker answers for an impossible name but does not keep
    /// it: a name on the wire may take 32 KB.
    fn can_exist(&self) -> bool {
        match &self.topic {
            TopicRef::Id(_) => true,
            TopicRef::Name(name) => name.len() <= TOPIC_NAME_LENGTH_MAX,
        }
    }

    /// The most bytes that it takes in a session.
    pub(crate) fn bytes(&self) -> usize {
        match &self.topic {
            TopicRef::Id(_) => PARTITION_BYTES,
            TopicRef::Name(name) => PARTITION_BYTES + name.len(),
        }
    }
}

/// The requested position and bounds of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartitionFetch {
    pub(crate) fetch_offset: i64,
    pub(crate) max_bytes: i32,
    pub(crate) current_leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
}

/// Partitions with their requests.
type Wishes = Vec<(Key, PartitionFetch)>;

/// The fields of the last answer for a partition that the next answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastSent {
    pub(crate) high_watermark: i64,
    pub(crate) log_start_offset: i64,
}

/// The next answer for a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) said: LastSent,
    /// Whether it has records, an error, a diverging epoch or a replica to read from. The response
    /// must then contain it.
    pub(crate) worth_saying: bool,
    pub(crate) has_records: bool,
    pub(crate) has_error: bool,
}

/// The partitions that a request asks for, with its session.
#[derive(Debug)]
pub(crate) struct ResolvedFetch {
    /// The partitions in reading order.
    pub(crate) partitions: Vec<(Key, PartitionFetch)>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sessionless,
    Full,
    Incremental { session: i32 },
}

#[derive(Debug)]
struct Cached {
    wish: PartitionFetch,
    /// `None` before the first answer and after an error; the next answer must then be sent.
    said: Option<LastSent>,
}

#[derive(Debug)]
struct Session {
    by_id: bool,
    epoch: i32,
    partitions: IndexMap<Key, Cached>,
    /// The index where the next read begins: after the last partition that was served, so that a
    /// busy one does not starve the others of a small response.
    start: usize,
}

/// A session, with its share of the bounds of all sessions.
#[derive(Debug)]
struct CachedPartition {
    /// Has a lock of its own, so no request waits for work on another's large session.
    session: Arc<Mutex<Session>>,
    used_ms: i64,
    partitions: usize,
    /// Bytes that the partitions take.
    bytes: usize,
}

/// All sessions of this broker.
#[derive(Debug)]
pub struct FetchSessions {
    inner: Mutex<Sessions>,
}

#[derive(Debug)]
struct Sessions {
    sessions: BTreeMap<i32, CachedPartition>,
    partitions: usize,
    bytes: usize,
    /// The most bytes of all sessions together. It bounds the memory that clients can claim.
    bytes_max: usize,
    next_id: i32,
}

/// The session part of a request.
#[derive(Debug)]
pub(crate) struct SessionRequest {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
    pub(crate) by_id: bool,
    pub(crate) wanted: Vec<(Key, PartitionFetch)>,
    pub(crate) forgotten: Vec<Key>,
}

impl FetchSessions {
    /// No sessions yet. All together may take `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        let sessions =
            Sessions { sessions: BTreeMap::new(), partitions: 0, bytes: 0, bytes_max, next_id: 0 };
        Self { inner: Mutex::new(sessions) }
    }

    /// The partitions that `request` asks for, by itself and by its session.
    ///
    /// # Errors
    /// FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH or FETCH_SESSION_TOPIC_ID_ERROR. The
    /// client then opens a new session.
    pub(crate) fn ask(
        &self,
        request: SessionRequest,
        now_ms: i64,
    ) -> Result<ResolvedFetch, ErrorCode> {
        if request.epoch == INITIAL_EPOCH || request.epoch == FINAL_EPOCH {
            self.inner.lock().remove(request.id);
            let kind = if request.epoch == FINAL_EPOCH { Kind::Sessionless } else { Kind::Full };
            return Ok(ResolvedFetch { partitions: request.wanted, kind });
        }
        let id = request.id;
        let session = self.inner.lock().session(id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let (mut partitions, impossible) = session.lock().apply(request)?;
        let bytes = partitions.iter().map(|(key, _)| key.bytes()).sum();
        let is_kept = self.inner.lock().grew(id, partitions.len(), bytes, now_ms);
        partitions.extend(impossible);
        let kind = if is_kept { Kind::Incremental { session: id } } else { Kind::Sessionless };
        Ok(ResolvedFetch { partitions, kind })
    }

    /// The number of partitions in a session; 0 when there is no such session.
    pub(crate) fn partitions_of(&self, id: i32) -> usize {
        self.inner.lock().sessions.get(&id).map_or(0, |kept| kept.partitions)
    }

    /// Records every partition's answer, in the order of [`ResolvedFetch::partitions`]. Returns the
    /// session id for the response, and which of the partitions it contains. There are never more
    /// than `sessions_max` sessions (`max.incremental.fetch.session.cache.slots`).
    pub(crate) fn record(
        &self,
        asked: &ResolvedFetch,
        answers: &[Answer],
        sessions_max: usize,
        now_ms: i64,
    ) -> (i32, Vec<bool>) {
        match asked.kind {
            Kind::Sessionless => (0, vec![true; answers.len()]),
            Kind::Full => {
                (self.create(asked, answers, sessions_max, now_ms), vec![true; answers.len()])
            }
            Kind::Incremental { session } => (session, self.say(session, asked, answers)),
        }
    }

    /// The number of sessions, and of partitions in all of them.
    pub fn size(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.sessions.len(), inner.partitions)
    }

    fn create(
        &self,
        asked: &ResolvedFetch,
        answers: &[Answer],
        sessions_max: usize,
        now_ms: i64,
    ) -> i32 {
        let kept = asked.partitions.iter().map(|(key, _)| key).filter(|key| key.can_exist());
        let (size, bytes) = kept.fold((0, 0), |(size, bytes), key| (size + 1, bytes + key.bytes()));
        if size == 0 || !self.inner.lock().make_room(size, bytes, sessions_max, now_ms) {
            return 0;
        }
        let by_id =
            asked.partitions.first().is_some_and(|(key, _)| matches!(key.topic, TopicRef::Id(_)));
        let cached = |wish: &PartitionFetch, answer: &Answer| Cached {
            wish: *wish,
            said: (!answer.has_error).then_some(answer.said),
        };
        let partitions =
            asked.partitions.iter().zip(answers).filter(|((key, _), _)| key.can_exist());
        let session = Session {
            by_id,
            epoch: next_epoch(INITIAL_EPOCH),
            partitions: partitions
                .map(|((key, wish), answer)| (key.clone(), cached(wish, answer)))
                .collect(),
            start: 0,
        };
        let mut inner = self.inner.lock();
        // Other requests may have taken the room meanwhile.
        if !inner.make_room(size, bytes, sessions_max, now_ms) {
            return 0;
        }
        inner.add(session, bytes, now_ms)
    }

    fn say(&self, id: i32, asked: &ResolvedFetch, answers: &[Answer]) -> Vec<bool> {
        let session = self.inner.lock().session(id);
        match session {
            Some(session) => session.lock().say(asked, answers),
            // The session was evicted while this request waited. The response contains every
            // partition, and the next request gets an error.
            None => vec![true; answers.len()],
        }
    }
}

impl Session {
    /// Applies the next request of the session. Returns all partitions of the session in reading
    /// order, and those that cannot be kept.
    fn apply(&mut self, request: SessionRequest) -> Result<(Wishes, Wishes), ErrorCode> {
        if self.epoch != request.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if self.by_id != request.by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        let (wanted, impossible): (Wishes, Wishes) =
            request.wanted.into_iter().partition(|(key, _)| key.can_exist());
        for (key, wish) in wanted {
            match self.partitions.get_mut(&key) {
                Some(cached) => cached.wish = wish,
                None => {
                    self.partitions.insert(key, Cached { wish, said: None });
                }
            }
        }
        if !request.forgotten.is_empty() {
            let forgotten: BTreeSet<_> = request.forgotten.iter().collect();
            self.partitions.retain(|key, _| !forgotten.contains(key));
        }
        self.epoch = next_epoch(self.epoch);
        let mut partitions: Vec<_> =
            self.partitions.iter().map(|(key, cached)| (key.clone(), cached.wish)).collect();
        let start = self.start.checked_rem(partitions.len()).unwrap_or(0);
        partitions.rotate_left(start);
        Ok((partitions, impossible))
    }

    fn say(&mut self, asked: &ResolvedFetch, answers: &[Answer]) -> Vec<bool> {
        let mut included = Vec::with_capacity(answers.len());
        for ((key, _), answer) in asked.partitions.iter().zip(answers) {
            let Some((index, _, cached)) = self.partitions.get_full_mut(key) else {
                included.push(true);
                continue;
            };
            included.push(answer.worth_saying || cached.said != Some(answer.said));
            cached.said = (!answer.has_error).then_some(answer.said);
            if answer.has_records {
                self.start = index + 1;
            }
        }
        included
    }
}

impl Sessions {
    fn session(&self, id: i32) -> Option<Arc<Mutex<Session>>> {
        self.sessions.get(&id).map(|kept| Arc::clone(&kept.session))
    }

    fn remove(&mut self, id: i32) {
        if let Some(kept) = self.sessions.remove(&id) {
            self.partitions -= kept.partitions;
            self.bytes -= kept.bytes;
        }
    }

    /// Updates the size of a session after a request. Returns whether the session stays. A session
    /// without partitions or beyond the bound is removed; its client gets a full answer and session
    /// id 0.
    fn grew(&mut self, id: i32, partitions: usize, bytes: usize, now_ms: i64) -> bool {
        // The session may have been evicted meanwhile; the next request gets the error.
        let Some(kept) = self.sessions.get_mut(&id) else { return true };
        self.partitions = self.partitions + partitions - kept.partitions;
        self.bytes = self.bytes + bytes - kept.bytes;
        (kept.used_ms, kept.partitions, kept.bytes) = (now_ms, partitions, bytes);
        if partitions == 0 || self.bytes > self.bytes_max {
            self.remove(id);
            return false;
        }
        true
    }

    fn add(&mut self, session: Session, bytes: usize, now_ms: i64) -> i32 {
        let (id, partitions) = (self.free_id(), session.partitions.len());
        self.partitions += partitions;
        self.bytes += bytes;
        self.sessions.insert(
            id,
            CachedPartition {
                session: Arc::new(Mutex::new(session)),
                used_ms: now_ms,
                partitions,
                bytes,
            },
        );
        id
    }

    /// Makes room for a session of `size` partitions that take `bytes`; returns whether there is
    /// any. Evicts sessions idle for [`EVICTION_MS`], and for a slot also a session with fewer
    /// partitions.
    fn make_room(&mut self, size: usize, bytes: usize, sessions_max: usize, now_ms: i64) -> bool {
        if sessions_max == 0 || bytes > self.bytes_max {
            return false;
        }
        while self.bytes + bytes > self.bytes_max {
            let Some(idle) = self.idle(now_ms) else { return false };
            self.remove(idle);
        }
        if self.sessions.len() < sessions_max {
            return true;
        }
        let smaller = || {
            let smallest = self.sessions.iter().min_by_key(|(_, kept)| kept.partitions);
            smallest.filter(|(_, kept)| kept.partitions < size).map(|(&id, _)| id)
        };
        let gone = self.idle(now_ms).or_else(smaller);
        gone.inspect(|id| self.remove(*id)).is_some()
    }

    /// The longest idle session, if it is idle for more than [`EVICTION_MS`].
    fn idle(&self, now_ms: i64) -> Option<i32> {
        let oldest = self.sessions.iter().min_by_key(|(_, kept)| kept.used_ms);
        oldest.filter(|(_, kept)| now_ms - kept.used_ms > EVICTION_MS).map(|(&id, _)| id)
    }

    fn free_id(&mut self) -> i32 {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.sessions.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }
}

/// The next epoch, which skips the two special ones (`FetchMetadata.nextEpoch`).
fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        i32::MAX => 1,
        epoch => epoch + 1,
    }
}
