//! PURE: incremental fetch sessions (KIP-227): a client names its partitions once, and afterwards both sides say only what changed.
//!
//! Called by `fetch`. Knows no log and no clock: what was asked, what was last answered, and who has to make room. The semantics, error by error, are those of
//! `FetchSession.scala`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::TopicId;

/// The epoch that asks for a new session, and the one that asks for none.
const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

/// Partitions in all sessions together: bounds what clients can make a broker remember, at some 100 bytes each.
const PARTITIONS_MAX: usize = 1_000_000;

/// A session that was not used for this long gives way to any other (`min.incremental.fetch.session.eviction.ms`).
const EVICTION_MS: i64 = 120_000;

/// How a client names a topic: by id since version 13, by name before. One session does not mix them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TopicRef {
    Id(TopicId),
    Name(Arc<str>),
}

/// A partition as a client names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) topic: TopicRef,
    pub(crate) index: i32,
}

/// What a client asks of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) fetch_offset: i64,
    pub(crate) max_bytes: i32,
    pub(crate) current_leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
}

/// What an answer said of a partition, as far as the next answer depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) high_watermark: i64,
    pub(crate) log_start_offset: i64,
}

/// What is about to be answered of a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) said: Said,
    /// It carries records, an error, a diverging epoch or a replica to read from: it must be in the response.
    pub(crate) worth_saying: bool,
    pub(crate) has_records: bool,
    pub(crate) has_error: bool,
}

/// What a request asks for, with its session.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The partitions in the order in which they are to be read.
    pub(crate) partitions: Vec<(Key, Wish)>,
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
    wish: Wish,
    /// `None`: nothing was said, or the last answer was an error, so the next one must be told.
    said: Option<Said>,
}

#[derive(Debug)]
struct Session {
    by_id: bool,
    epoch: i32,
    used_ms: i64,
    partitions: IndexMap<Key, Cached>,
    /// Where the next reading begins: behind the last partition that was served, so that a busy one does not starve the others of a small response.
    start: usize,
}

/// All sessions of this broker.
#[derive(Debug, Default)]
pub struct FetchSessions {
    inner: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    sessions: BTreeMap<i32, Session>,
    partitions: usize,
    next_id: i32,
}

/// The session part of a request.
#[derive(Debug)]
pub(crate) struct SessionRequest {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
    pub(crate) by_id: bool,
    pub(crate) wanted: Vec<(Key, Wish)>,
    pub(crate) forgotten: Vec<Key>,
}

impl FetchSessions {
    /// What `request` asks for, by its own words and by its session.
    ///
    /// # Errors
    /// FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR: the client begins a new session.
    pub(crate) fn ask(&self, request: SessionRequest, now_ms: i64) -> Result<Asked, ErrorCode> {
        let mut inner = self.inner.lock();
        if request.epoch == INITIAL_EPOCH || request.epoch == FINAL_EPOCH {
            inner.remove(request.id);
            let kind = if request.epoch == FINAL_EPOCH { Kind::Sessionless } else { Kind::Full };
            return Ok(Asked {
                partitions: request.wanted,
                kind,
            });
        }
        inner.continue_session(request, now_ms)
    }

    /// Settles what is said: given every partition's answer, in the order of [`Asked::partitions`], returns the session id for the response and which of the
    /// partitions are in it. There are never more than `sessions_max` sessions (`max.incremental.fetch.session.cache.slots`).
    pub(crate) fn settle(&self, asked: &Asked, answers: &[Answer], sessions_max: usize, now_ms: i64) -> (i32, Vec<bool>) {
        let mut inner = self.inner.lock();
        match asked.kind {
            Kind::Sessionless => (0, vec![true; answers.len()]),
            Kind::Full => (inner.create(asked, answers, sessions_max, now_ms), vec![true; answers.len()]),
            Kind::Incremental { session } => (session, inner.say(session, asked, answers)),
        }
    }

    /// How many sessions and partitions in them there are.
    pub fn size(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.sessions.len(), inner.partitions)
    }
}

impl Sessions {
    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= session.partitions.len();
        }
    }

    fn continue_session(&mut self, request: SessionRequest, now_ms: i64) -> Result<Asked, ErrorCode> {
        let session = self.sessions.get_mut(&request.id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != request.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != request.by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        let before = session.partitions.len();
        for (key, wish) in request.wanted {
            match session.partitions.get_mut(&key) {
                Some(cached) => cached.wish = wish,
                None => {
                    session.partitions.insert(key, Cached { wish, said: None });
                }
            }
        }
        if !request.forgotten.is_empty() {
            let forgotten: BTreeSet<_> = request.forgotten.iter().collect();
            session.partitions.retain(|key, _| !forgotten.contains(key));
        }
        session.used_ms = now_ms;
        session.epoch = next_epoch(session.epoch);
        let mut partitions: Vec<_> = session.partitions.iter().map(|(key, cached)| (key.clone(), cached.wish)).collect();
        let start = session.start.checked_rem(partitions.len()).unwrap_or(0);
        partitions.rotate_left(start);
        self.partitions = self.partitions + partitions.len() - before;
        if partitions.is_empty() || self.partitions > PARTITIONS_MAX {
            // Nothing left to remember, or too much: the client is answered in full and told that it has no session.
            self.remove(request.id);
            return Ok(Asked {
                partitions,
                kind: Kind::Sessionless,
            });
        }
        Ok(Asked {
            partitions,
            kind: Kind::Incremental { session: request.id },
        })
    }

    fn create(&mut self, asked: &Asked, answers: &[Answer], sessions_max: usize, now_ms: i64) -> i32 {
        let size = asked.partitions.len();
        if size == 0 || self.partitions + size > PARTITIONS_MAX || !self.make_room(size, sessions_max, now_ms) {
            return 0;
        }
        let by_id = asked.partitions.first().is_some_and(|(key, _)| matches!(key.topic, TopicRef::Id(_)));
        let partitions: IndexMap<_, _> = asked
            .partitions
            .iter()
            .zip(answers)
            .map(|((key, wish), answer)| {
                (
                    key.clone(),
                    Cached {
                        wish: *wish,
                        said: (!answer.has_error).then_some(answer.said),
                    },
                )
            })
            .collect();
        self.partitions += partitions.len();
        let id = self.free_id();
        self.sessions.insert(
            id,
            Session {
                by_id,
                epoch: next_epoch(INITIAL_EPOCH),
                used_ms: now_ms,
                partitions,
                start: 0,
            },
        );
        id
    }

    /// Whether there is a slot for a session of `size` partitions: a free one, one that nobody used for long, or a smaller session's.
    fn make_room(&mut self, size: usize, sessions_max: usize, now_ms: i64) -> bool {
        if self.sessions.len() < sessions_max {
            return true;
        }
        if sessions_max == 0 {
            return false;
        }
        let oldest = self
            .sessions
            .iter()
            .min_by_key(|(_, session)| session.used_ms)
            .filter(|(_, session)| now_ms - session.used_ms > EVICTION_MS);
        let smaller = || {
            self.sessions
                .iter()
                .min_by_key(|(_, session)| session.partitions.len())
                .filter(|(_, session)| session.partitions.len() < size)
        };
        match oldest.or_else(smaller).map(|(&id, _)| id) {
            Some(id) => {
                self.remove(id);
                true
            }
            None => false,
        }
    }

    fn free_id(&mut self) -> i32 {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.sessions.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }

    fn say(&mut self, id: i32, asked: &Asked, answers: &[Answer]) -> Vec<bool> {
        let Some(session) = self.sessions.get_mut(&id) else {
            // It gave way to another one while this request waited: everything is said, and the next request is told to begin anew.
            return vec![true; answers.len()];
        };
        let mut included = Vec::with_capacity(answers.len());
        for ((key, _), answer) in asked.partitions.iter().zip(answers) {
            let Some((index, _, cached)) = session.partitions.get_full_mut(key) else {
                included.push(true);
                continue;
            };
            included.push(answer.worth_saying || cached.said != Some(answer.said));
            cached.said = (!answer.has_error).then_some(answer.said);
            if answer.has_records {
                session.start = index + 1;
            }
        }
        included
    }
}

/// Epochs go round without the two that have a meaning (`FetchMetadata.nextEpoch`).
fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        i32::MAX => 1,
        epoch => epoch + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSIONS_MAX: usize = 1000;

    fn key(index: i32) -> Key {
        Key {
            topic: TopicRef::Name("t".into()),
            index,
        }
    }

    fn wish(fetch_offset: i64) -> Wish {
        Wish {
            fetch_offset,
            max_bytes: 1024,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        }
    }

    fn request(id: i32, epoch: i32, wanted: &[(i32, i64)], forgotten: &[i32]) -> SessionRequest {
        let wanted = wanted.iter().map(|&(index, offset)| (key(index), wish(offset))).collect();
        SessionRequest {
            id,
            epoch,
            by_id: false,
            wanted,
            forgotten: forgotten.iter().map(|&index| key(index)).collect(),
        }
    }

    fn quiet(high_watermark: i64) -> Answer {
        Answer {
            said: Said {
                high_watermark,
                log_start_offset: 0,
            },
            worth_saying: false,
            has_records: false,
            has_error: false,
        }
    }

    fn records(high_watermark: i64) -> Answer {
        Answer {
            worth_saying: true,
            has_records: true,
            ..quiet(high_watermark)
        }
    }

    fn error() -> Answer {
        Answer {
            worth_saying: true,
            has_error: true,
            ..quiet(-1)
        }
    }

    #[test]
    fn a_session_says_only_what_changed() {
        let sessions = FetchSessions::default();
        let asked = sessions.ask(request(0, 0, &[(0, 0), (1, 0), (2, 0)], &[]), 0).unwrap();
        let (id, included) = sessions.settle(&asked, &[quiet(5), quiet(5), error()], SESSIONS_MAX, 0);
        assert!(id > 0 && included == [true; 3], "the first answer is full");
        let asked = sessions.ask(request(id, 1, &[], &[]), 1).unwrap();
        assert_eq!(
            sessions.settle(&asked, &[quiet(5), quiet(6), quiet(-1)], SESSIONS_MAX, 1).1,
            [false, true, true],
            "unchanged, advanced, no more an error"
        );
        let asked = sessions.ask(request(id, 2, &[(0, 7)], &[2]), 2).unwrap();
        assert_eq!(asked.partitions, [(key(0), wish(7)), (key(1), wish(0))]);
        sessions.settle(&asked, &[records(5), quiet(6)], SESSIONS_MAX, 2);
        let asked = sessions.ask(request(id, 3, &[], &[]), 3).unwrap();
        assert_eq!(asked.partitions[0].0, key(1), "who was served waits behind the others");
        assert_eq!(sessions.size(), (1, 2));
    }

    #[test]
    fn what_does_not_fit_a_session_is_refused_as_in_kafka() {
        let sessions = FetchSessions::default();
        assert_eq!(sessions.ask(request(9, 1, &[], &[]), 0).unwrap_err(), ErrorCode::FetchSessionIdNotFound);
        let asked = sessions.ask(request(0, 0, &[(0, 0)], &[]), 0).unwrap();
        let (id, _) = sessions.settle(&asked, &[quiet(0)], SESSIONS_MAX, 0);
        assert_eq!(
            sessions.ask(request(id, 2, &[], &[]), 0).unwrap_err(),
            ErrorCode::InvalidFetchSessionEpoch
        );
        let mixed = SessionRequest {
            by_id: true,
            ..request(id, 1, &[], &[])
        };
        assert_eq!(sessions.ask(mixed, 0).unwrap_err(), ErrorCode::FetchSessionTopicIdError);
        let asked = sessions.ask(request(id, 1, &[], &[0]), 0).unwrap();
        assert_eq!(sessions.settle(&asked, &[], SESSIONS_MAX, 0).0, 0, "an empty session ends");
        let asked = sessions.ask(request(0, -1, &[(0, 0)], &[]), 0).unwrap();
        assert_eq!(sessions.settle(&asked, &[quiet(0)], SESSIONS_MAX, 0), (0, vec![true]));
        assert_eq!(sessions.size(), (0, 0));
    }

    #[test]
    fn the_cache_is_bounded_and_the_smallest_or_oldest_gives_way() {
        let sessions = FetchSessions::default();
        let create = |partitions: i32, now: i64| {
            let wanted: Vec<_> = (0..partitions).map(|index| (index, 0)).collect();
            let asked = sessions.ask(request(0, 0, &wanted, &[]), now).unwrap();
            let answers = vec![quiet(0); asked.partitions.len()];
            sessions.settle(&asked, &answers, SESSIONS_MAX, now).0
        };
        for _ in 0..SESSIONS_MAX {
            assert!(create(2, 0) > 0);
        }
        assert_eq!(create(2, EVICTION_MS), 0, "no room for one of the same size");
        assert!(create(3, EVICTION_MS) > 0, "a larger one takes the place of a smaller");
        assert!(create(1, EVICTION_MS + 1) > 0, "and any one that of an idle one");
        assert_eq!(sessions.size().0, SESSIONS_MAX);
        let asked = sessions.ask(request(0, 0, &[(0, 0)], &[]), 3 * EVICTION_MS).unwrap();
        assert_eq!(sessions.settle(&asked, &[quiet(0)], 0, 3 * EVICTION_MS).0, 0, "no slots, no session");
    }

    #[test]
    fn epochs_go_round() {
        assert_eq!(next_epoch(i32::MAX), 1);
        assert_eq!(next_epoch(0), 1);
    }
}
