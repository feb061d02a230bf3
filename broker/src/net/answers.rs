//! The bound on memory for answers: one budget for what is encoded and not yet taken by its client.
//!
//! An answer has room before it is encoded, and gives it back when all of it is sent. Who waits for room holds nothing that is large. Small answers need no room and never wait: whoever
//! does not read, heartbeats, commits and produces of others go on.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::memory::{Budget, Room};

/// An answer of so many bytes needs no room: a part of what each connection may take.
pub(crate) const SMALL_BYTES_MAX: usize = 16 * 1024;

/// How long an answer may take to be read while others wait for its room.
const READ_MAX: Duration = Duration::from_secs(30);

/// A request that waits longer than this for the room of its answer is worth a line in the log.
const WAIT_WORTH_TELLING: Duration = Duration::from_secs(5);

/// The broker's budget for answers in memory.
#[derive(Clone, Debug)]
pub struct AnswerMemory(Budget);

impl AnswerMemory {
    /// A budget of `bytes_max`. One answer that is larger waits until it is alone.
    pub fn new(bytes_max: usize) -> Self {
        Self(Budget::new(
            bytes_max,
            "answers wait for memory: --answer-memory-mib is used up by clients that do not read",
        ))
    }

    /// Room for an answer of `bytes`, if there is some and nobody waits for it.
    pub(crate) fn try_room(&self, bytes: usize) -> Option<Room> {
        if bytes <= SMALL_BYTES_MAX {
            return Some(Room::default());
        }
        self.0.try_room(bytes)
    }

    /// Room for an answer of `bytes`, in the order in which it is asked for. `None` if there was none for `wait_max`.
    pub(crate) async fn room(&self, bytes: usize, wait_max: Duration) -> Option<Room> {
        if let Some(room) = self.try_room(bytes) {
            return Some(room);
        }
        let mut room = Box::pin(self.0.room(bytes));
        let since = Instant::now();
        while since.elapsed() < wait_max {
            match tokio::time::timeout(WAIT_WORTH_TELLING.min(wait_max), &mut room).await {
                Ok(room) => return Some(room),
                Err(_) => self.0.tell_of_waiting(),
            }
        }
        warn!(bytes, waited = ?since.elapsed(), "an answer had no memory for too long: its connection is closed");
        None
    }

    /// Bytes of the budget that are in use.
    pub fn used_bytes(&self) -> usize {
        self.0.used_bytes()
    }
}

/// The answers of one connection that were promised: its produces join before earlier ones are answered.
#[derive(Debug, Default)]
pub(super) struct Promised {
    /// In the order of the requests.
    bytes: VecDeque<usize>,
    sum: usize,
}

impl Promised {
    /// Takes up an answer of at most `bytes`. Returns its room, if what the connection may take is used up; `None` where there is none in the budget either:
    /// then nothing may join it.
    pub(super) fn add(&mut self, bytes: usize, memory: &AnswerMemory) -> Option<Room> {
        self.bytes.push_back(bytes);
        self.sum += bytes;
        if bytes == 0 || self.sum <= SMALL_BYTES_MAX {
            return Some(Room::default());
        }
        memory.0.try_room(bytes)
    }

    /// The first of them is there.
    pub(super) fn take(&mut self) {
        self.sum -= self.bytes.pop_front().unwrap_or_default();
    }
}

/// An answer's room while it is sent.
#[derive(Debug)]
pub(super) struct Sending {
    room: Room,
    since: Instant,
}

impl Sending {
    /// Of an answer of which nothing is sent yet.
    pub(super) fn of(room: Room) -> Self {
        Self { room, since: Instant::now() }
    }

    /// Whether the client has had its time, and others wait for the room.
    pub(super) fn is_overdue(&self, memory: &AnswerMemory) -> bool {
        self.room.is_of_the_budget() && self.since.elapsed() >= READ_MAX && memory.0.is_short()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const KIB: usize = 1024;

    /// An answer that began to be sent longer ago than it may take.
    fn slow(room: Room) -> Sending {
        Sending {
            since: Instant::now().checked_sub(2 * READ_MAX).unwrap(),
            ..Sending::of(room)
        }
    }

    #[tokio::test]
    async fn who_does_not_read_has_its_time_while_others_wait() {
        let memory = AnswerMemory::new(1024 * KIB);
        let one = slow(memory.try_room(800 * KIB).unwrap());
        let just_begun = Sending::of(memory.try_room(100 * KIB).unwrap());
        let small = slow(memory.try_room(SMALL_BYTES_MAX).unwrap());
        assert!(memory.try_room(200 * KIB).is_none());
        assert_eq!(memory.used_bytes(), 900 * KIB);
        assert!(!one.is_overdue(&memory), "nobody waits");
        let mut waits = Box::pin(memory.room(200 * KIB, Duration::MAX));
        assert!((&mut waits).now_or_never().is_none());
        assert!(one.is_overdue(&memory));
        assert!(!just_begun.is_overdue(&memory), "it has some time");
        assert!(!small.is_overdue(&memory), "it has no room that others could have");
        assert!(memory.try_room(SMALL_BYTES_MAX + 1).is_none(), "nobody overtakes who waits");
        assert!(memory.try_room(SMALL_BYTES_MAX).is_some());
        drop(one);
        assert!(waits.await.is_some());
        drop(just_begun);
        assert_eq!(memory.used_bytes(), 0);
    }

    #[test]
    fn a_connection_promises_little_without_room() {
        let memory = AnswerMemory::new(64 * KIB);
        let mut promised = Promised::default();
        assert!(!promised.add(SMALL_BYTES_MAX, &memory).unwrap().is_of_the_budget());
        let second = promised.add(40 * KIB, &memory).unwrap();
        assert!(second.is_of_the_budget() && promised.add(40 * KIB, &memory).is_none());
        for _ in 0..3 {
            promised.take();
        }
        drop(second);
        assert!(!promised.add(SMALL_BYTES_MAX, &memory).unwrap().is_of_the_budget());
        assert_eq!(memory.used_bytes(), 0);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let memory = AnswerMemory::new(1024 * KIB);
        let all = memory.try_room(4096 * KIB).unwrap();
        assert!(memory.room(20 * KIB, Duration::from_millis(20)).await.is_none());
        drop(all);
        assert!(
            memory.room(4096 * KIB, Duration::from_millis(20)).await.is_some(),
            "one that is larger than the budget is alone"
        );
    }
}
