//! The bound on memory for answers: one budget for what is encoded and not yet taken by its client.
//!
//! An answer has room before it is encoded, and gives it back when all of it is sent. Who waits for room holds nothing that is large. Small answers need no room and never wait: whoever
//! does not read, heartbeats, commits and produces of others go on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::warn;

use super::memory::{Budget, Room};

/// An answer of so many bytes needs no room: a part of what each connection may take.
pub(crate) const SMALL_BYTES_MAX: usize = 16 * 1024;

/// How long an answer may take to be read while others wait for room.
const READ_MAX: Duration = Duration::from_secs(30);

/// How long its client may take none of it meanwhile.
const STILL_MAX: Duration = Duration::from_secs(3);

/// Of the whole budget what is for the answers to produces alone: records that are written are acknowledged, whoever does not read what else was asked for.
const PRODUCED_PART: usize = 4;

/// How many descriptions are made at a time.
const DESCRIPTIONS_MAX: usize = 2;

/// A request that waits longer than this for the room of its answer is worth a line in the log.
const WAIT_WORTH_TELLING: Duration = Duration::from_secs(5);

/// The broker's budget for answers in memory.
#[derive(Clone, Debug)]
pub struct AnswerMemory {
    asked: Budget,
    produced: Budget,
    descriptions: Arc<Semaphore>,
}

impl AnswerMemory {
    /// A budget of `bytes_max`. One answer that is larger waits until it is alone.
    pub fn new(bytes_max: usize) -> Self {
        let shortage = "answers wait for memory: --answer-memory-mib is used up by clients that do not read";
        let produced = bytes_max / PRODUCED_PART;
        Self {
            asked: Budget::new(bytes_max - produced, shortage),
            produced: Budget::new(produced, shortage),
            descriptions: Arc::new(Semaphore::new(DESCRIPTIONS_MAX)),
        }
    }

    /// A turn to have something described of which only the description tells how large it is: until then it is in no budget.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.descriptions).acquire_owned().await.ok()
    }

    /// Room for an answer of `bytes`, if there is some and nobody waits for it.
    pub(crate) fn try_room(&self, bytes: usize) -> Option<Room> {
        try_room(&self.asked, bytes)
    }

    /// Room for an answer of `bytes`, in the order in which it is asked for. `None` if there was none for `wait_max`.
    pub(crate) async fn room(&self, bytes: usize, wait_max: Duration) -> Option<Room> {
        room(&self.asked, bytes, wait_max).await
    }

    /// The same for the answer to a produce.
    pub(super) async fn produced_room(&self, bytes: usize, wait_max: Duration) -> Option<Room> {
        room(&self.produced, bytes, wait_max).await
    }

    /// Whether somebody waits for room.
    fn is_short(&self) -> bool {
        self.asked.is_short() || self.produced.is_short()
    }

    /// Bytes of the budget that are in use.
    pub fn used_bytes(&self) -> usize {
        self.asked.used_bytes() + self.produced.used_bytes()
    }
}

fn try_room(budget: &Budget, bytes: usize) -> Option<Room> {
    if bytes <= SMALL_BYTES_MAX {
        return Some(Room::default());
    }
    budget.try_room(bytes)
}

async fn room(budget: &Budget, bytes: usize, wait_max: Duration) -> Option<Room> {
    if let Some(room) = try_room(budget, bytes) {
        return Some(room);
    }
    let mut room = Box::pin(budget.room(bytes));
    let since = Instant::now();
    while since.elapsed() < wait_max {
        match tokio::time::timeout(WAIT_WORTH_TELLING.min(wait_max), &mut room).await {
            Ok(room) => return Some(room),
            Err(_) => budget.tell_of_waiting(),
        }
    }
    warn!(bytes, waited = ?since.elapsed(), "an answer had no memory for too long: its connection is closed");
    None
}

/// The answers of one connection that were promised: its produces join before earlier ones are answered.
#[derive(Debug, Default)]
pub(super) struct Promised {
    /// What each takes, and whether that is a part of the budget. In the order of the requests.
    answers: VecDeque<(usize, bool)>,
    sum: usize,
    with_room: usize,
}

impl Promised {
    /// Takes up an answer of at most `bytes`. Returns its room, if what the connection may take is used up; `None` where there is none in the budget either:
    /// then nothing may join it.
    pub(super) fn add(&mut self, bytes: usize, memory: &AnswerMemory) -> Option<Room> {
        self.sum += bytes;
        let room = match bytes == 0 || self.sum <= SMALL_BYTES_MAX {
            true => Some(Room::default()),
            false => memory.produced.try_room(bytes),
        };
        // Who waits for room has it soon.
        let has_room = room.as_ref().is_none_or(Room::is_of_the_budget);
        self.with_room += usize::from(has_room);
        self.answers.push_back((bytes, has_room));
        room
    }

    /// The first of them is there.
    pub(super) fn take(&mut self) {
        if let Some((bytes, has_room)) = self.answers.pop_front() {
            self.sum -= bytes;
            self.with_room -= usize::from(has_room);
        }
    }

    /// Whether one of them has a part of the budget.
    pub(super) fn have_room(&self) -> bool {
        self.with_room > 0
    }
}

/// What a connection holds while it sends: the room of the answer that is on its way, and that of answers which stand behind it.
#[derive(Debug)]
pub(super) struct Sending {
    room: Room,
    others_have_room: bool,
    /// When the answer before was taken whole.
    since: Instant,
}

impl Sending {
    /// An answer of which nothing is sent yet.
    pub(super) fn of(room: Room, others_have_room: bool) -> Self {
        Self {
            room,
            others_have_room,
            since: Instant::now(),
        }
    }

    /// The answer is sent, but for what is gathered.
    pub(super) fn is_done(&mut self) {
        self.room = Room::default();
    }

    /// Whether the client, which has taken nothing for `still`, has had its time, and others wait for room.
    pub(super) fn is_overdue(&self, still: Duration, memory: &AnswerMemory) -> bool {
        (self.others_have_room || self.room.is_of_the_budget()) && (still >= STILL_MAX || self.since.elapsed() >= READ_MAX) && memory.is_short()
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
            ..Sending::of(room, false)
        }
    }

    #[tokio::test]
    async fn who_does_not_read_has_its_time_while_others_wait() {
        let memory = AnswerMemory::new(4096 * KIB / 3);
        let one = slow(memory.try_room(800 * KIB).unwrap());
        let just_begun = Sending::of(memory.try_room(100 * KIB).unwrap(), false);
        let small = slow(memory.try_room(SMALL_BYTES_MAX).unwrap());
        assert!(memory.try_room(200 * KIB).is_none());
        assert_eq!(memory.used_bytes(), 900 * KIB);
        assert!(!one.is_overdue(Duration::ZERO, &memory), "nobody waits");
        let mut waits = Box::pin(memory.room(200 * KIB, Duration::MAX));
        assert!((&mut waits).now_or_never().is_none());
        assert!(one.is_overdue(Duration::ZERO, &memory));
        assert!(!just_begun.is_overdue(Duration::ZERO, &memory), "it has some time");
        assert!(just_begun.is_overdue(STILL_MAX, &memory), "its client takes nothing of it");
        assert!(
            Sending::of(Room::default(), true).is_overdue(STILL_MAX, &memory),
            "what stands behind has room"
        );
        assert!(!small.is_overdue(STILL_MAX, &memory), "it has no room that others could have");
        assert!(memory.try_room(SMALL_BYTES_MAX + 1).is_none(), "nobody overtakes who waits");
        assert!(memory.try_room(SMALL_BYTES_MAX).is_some());
        drop(one);
        assert!(waits.await.is_some());
        drop(just_begun);
        assert_eq!(memory.used_bytes(), 0);
    }

    #[test]
    fn a_connection_promises_little_without_room() {
        let memory = AnswerMemory::new(256 * KIB);
        let mut promised = Promised::default();
        assert!(!promised.add(SMALL_BYTES_MAX, &memory).unwrap().is_of_the_budget());
        let second = promised.add(40 * KIB, &memory).unwrap();
        assert!(second.is_of_the_budget() && promised.add(40 * KIB, &memory).is_none());
        assert!(promised.have_room());
        for _ in 0..3 {
            promised.take();
        }
        assert!(!promised.have_room());
        drop(second);
        assert!(!promised.add(SMALL_BYTES_MAX, &memory).unwrap().is_of_the_budget());
        assert_eq!(memory.used_bytes(), 0);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let memory = AnswerMemory::new(4096 * KIB / 3);
        let all = memory.try_room(4096 * KIB).unwrap();
        assert!(memory.room(20 * KIB, Duration::from_millis(20)).await.is_none());
        drop(all);
        assert!(
            memory.room(4096 * KIB, Duration::from_millis(20)).await.is_some(),
            "one that is larger than the budget is alone"
        );
    }
}
