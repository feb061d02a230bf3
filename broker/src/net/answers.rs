//! The share of a connection in the answer budget: for the answers that its produces are owed, and
//! for the answer that it sends.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::budget::{AnswerMemory, Room, SMALL_BYTES_MAX};

/// How long a client may take to read an answer while others wait for room.
const READ_MAX: Duration = Duration::from_secs(30);

/// How long the client may read nothing of it meanwhile.
const STILL_MAX: Duration = Duration::from_secs(3);

/// The promised answers of one connection. Its produces start before earlier ones are answered.
#[derive(Debug, Default)]
pub(super) struct Promised {
    /// For each answer: its most bytes, and whether it holds a part of the budget. In the order of
    /// the requests.
    answers: VecDeque<(usize, bool)>,
    sum: usize,
    with_room: usize,
}

impl Promised {
    /// Adds an answer of at most `bytes`. Returns its room: an empty one while the connection's
    /// share suffices. Returns `None` when the budget has none either; then no other produce may
    /// join it.
    pub(super) fn add(&mut self, bytes: usize, memory: &AnswerMemory) -> Option<Room> {
        self.sum += bytes;
        let room = match bytes == 0 || self.sum <= SMALL_BYTES_MAX {
            true => Some(Room::default()),
            false => memory.try_produced_room(bytes),
        };
        // An answer that waits for room will have it soon.
        let has_room = room.as_ref().is_none_or(Room::is_of_the_budget);
        self.with_room += usize::from(has_room);
        self.answers.push_back((bytes, has_room));
        room
    }

    /// Removes the first one, because its reply is ready.
    pub(super) fn take(&mut self) {
        if let Some((bytes, has_room)) = self.answers.pop_front() {
            self.sum -= bytes;
            self.with_room -= usize::from(has_room);
        }
    }

    /// Returns whether one of them holds a part of the budget.
    pub(super) fn have_room(&self) -> bool {
        self.with_room > 0
    }
}

/// The rooms that a connection holds while it sends: that of the current answer, and those of
/// answers behind it.
#[derive(Debug)]
pub(super) struct Sending {
    room: Room,
    others_have_room: bool,
    /// When the answer before it was sent completely.
    since: Instant,
}

impl Sending {
    /// Creates the state of an answer of which nothing is sent yet.
    pub(super) fn of(room: Room, others_have_room: bool) -> Self {
        Self { room, others_have_room, since: Instant::now() }
    }

    /// The answer is sent, except for the gathered bytes.
    pub(super) fn is_done(&mut self) {
        self.room = Room::default();
    }

    /// Returns whether to close the connection: others wait for room, and the client has read
    /// nothing for `still` or reads for too long.
    pub(super) fn is_overdue(&self, still: Duration, memory: &AnswerMemory) -> bool {
        (self.others_have_room || self.room.is_of_the_budget())
            && (still >= STILL_MAX || self.since.elapsed() >= READ_MAX)
            && memory.is_short()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures::FutureExt;

    use super::*;

    const KIB: usize = 1024;

    /// A budget with this much for large answers.
    fn large(bytes: usize) -> AnswerMemory {
        AnswerMemory::new(bytes * 8 / 5)
    }

    /// A client on its own host.
    fn peer(host: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, host])
    }

    /// An answer whose sending began longer ago than it may take.
    fn slow(room: Room) -> Sending {
        Sending {
            since: Instant::now().checked_sub(2 * READ_MAX).unwrap(),
            ..Sending::of(room, false)
        }
    }

    #[tokio::test]
    async fn who_does_not_read_has_its_time_while_others_wait() {
        let memory = large(1024 * KIB);
        let one = slow(memory.try_room(800 * KIB).unwrap());
        let just_begun = Sending::of(memory.try_room(100 * KIB).unwrap(), false);
        let small = slow(memory.try_room(SMALL_BYTES_MAX).unwrap());
        assert!(memory.try_room(200 * KIB).is_none());
        assert_eq!(memory.used_bytes(), 900 * KIB);
        assert!(!one.is_overdue(Duration::ZERO, &memory), "nobody waits");
        let mut waits = Box::pin(memory.room(peer(1), 200 * KIB, Duration::MAX));
        assert!((&mut waits).now_or_never().is_none());
        assert!(one.is_overdue(Duration::ZERO, &memory));
        assert!(!just_begun.is_overdue(Duration::ZERO, &memory), "it has some time");
        assert!(just_begun.is_overdue(STILL_MAX, &memory), "its client takes nothing of it");
        assert!(
            Sending::of(Room::default(), true).is_overdue(STILL_MAX, &memory),
            "what stands behind has room"
        );
        assert!(!small.is_overdue(STILL_MAX, &memory), "it has no room that others could have");
        assert!(memory.try_room(60 * KIB).is_none(), "nobody overtakes who waits");
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
}
