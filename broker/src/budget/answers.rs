//! The memory bound for answers: one budget for encoded answers that their clients have not taken
//! yet.
//!
//! An answer gets room before it is encoded, and releases it when it is sent completely. A request
//! that waits for room holds no large memory. Small answers need no room and never wait. So
//! heartbeats, commits and produces of other clients continue while one client does not read.
//!
//! Clients that do not read keep their room for seconds, so the order in which others get room
//! matters. Answers to produces and medium answers have their own parts of the budget. In the queue
//! of a part, each address has one answer at a time. So an answer waits behind at most one of each
//! other address, however many those request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::warn;

use super::room::{Budget, Room};
use super::turns::Turns;

/// An answer of at most this size needs no room: it fits into the share that each connection may
/// take.
pub(crate) const SMALL_BYTES_MAX: usize = 16 * 1024;

/// The divisor for the part of the budget that only answers to produces use. So written records are
/// acknowledged even if clients do not read their other answers.
const PRODUCED_PART: usize = 4;

/// The divisor for the part of the budget that only medium answers use. So the metadata of
/// thousands of topics does not wait behind group answers of megabytes.
const MEDIUM_PART: usize = 8;

/// The largest medium answer. With a small budget, it is a quarter of their part.
const MEDIUM_BYTES_MAX: usize = 1024 * 1024;

/// How many descriptions run at a time.
const DESCRIPTIONS_MAX: usize = 2;

/// A request that waits longer than this for its answer's room is logged.
const WAIT_WORTH_TELLING: Duration = Duration::from_secs(5);

/// The broker's budget for answers in memory.
#[derive(Clone, Debug)]
pub struct AnswerMemory {
    large: Part,
    medium: Part,
    produced: Part,
    medium_bytes_max: usize,
    descriptions: Arc<Semaphore>,
}

impl AnswerMemory {
    /// Creates a budget of `bytes_max`. A larger answer waits until no other uses its part.
    pub fn new(bytes_max: usize) -> Self {
        let (produced, medium) = (bytes_max / PRODUCED_PART, bytes_max / MEDIUM_PART);
        Self {
            large: Part::new(bytes_max - produced - medium),
            medium: Part::new(medium),
            produced: Part::new(produced),
            medium_bytes_max: MEDIUM_BYTES_MAX.min(medium / 4),
            descriptions: Arc::new(Semaphore::new(DESCRIPTIONS_MAX)),
        }
    }

    /// Waits for a turn to run a description. Its size is known only when it is done, and until
    /// then no budget contains it.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.descriptions).acquire_owned().await.ok()
    }

    /// Returns room for an answer of `bytes`, if there is some and no other answer waits for it.
    pub(crate) fn try_room(&self, bytes: usize) -> Option<Room> {
        let own = (bytes <= self.medium_bytes_max).then(|| self.medium.try_room(bytes)).flatten();
        own.or_else(|| self.large.try_room(bytes))
    }

    /// Waits for room for an answer of `bytes` to a client at `peer`. Returns `None` after
    /// `wait_max` without room.
    pub(crate) async fn room(
        &self,
        peer: IpAddr,
        bytes: usize,
        wait_max: Duration,
    ) -> Option<Room> {
        let part = if bytes <= self.medium_bytes_max { &self.medium } else { &self.large };
        part.room(peer, bytes, wait_max).await
    }

    /// Does the same for the answer to a produce.
    pub(crate) async fn produced_room(
        &self,
        peer: IpAddr,
        bytes: usize,
        wait_max: Duration,
    ) -> Option<Room> {
        self.produced.room(peer, bytes, wait_max).await
    }

    /// Returns room for the answer to a produce, if there is some and no other one waits for it.
    pub(crate) fn try_produced_room(&self, bytes: usize) -> Option<Room> {
        self.produced.budget.try_room(bytes)
    }

    fn parts(&self) -> [&Part; 3] {
        [&self.large, &self.medium, &self.produced]
    }

    /// Returns whether an answer waits for room.
    pub(crate) fn is_short(&self) -> bool {
        self.parts().iter().any(|part| part.budget.is_short())
    }

    /// Bytes of the budget in use.
    pub fn used_bytes(&self) -> usize {
        self.parts().iter().map(|part| part.budget.used_bytes()).sum()
    }
}

/// Logs that an answer of `bytes` got no room for so long.
pub(crate) fn no_room(bytes: usize, waited: Duration) {
    let seconds = waited.as_secs();
    warn!(bytes, seconds, "an answer had no memory for too long: its connection is closed");
}

/// A part of the budget, and the queue for it.
#[derive(Clone, Debug)]
struct Part {
    budget: Budget,
    /// Of each address, one waiting answer is in the queue.
    turns: Turns,
}

impl Part {
    fn new(bytes_max: usize) -> Self {
        Self {
            budget: Budget::new(
                bytes_max,
                "answers wait for memory: --answer-memory-mib is used up by clients that do not read",
            ),
            turns: Turns::new(1),
        }
    }

    fn try_room(&self, bytes: usize) -> Option<Room> {
        if bytes <= SMALL_BYTES_MAX {
            return Some(Room::default());
        }
        self.budget.try_room(bytes)
    }

    async fn room(&self, peer: IpAddr, bytes: usize, wait_max: Duration) -> Option<Room> {
        if let Some(room) = self.try_room(bytes) {
            return Some(room);
        }
        let mut room = Box::pin(async {
            let _turn = self.turns.turn(peer).await;
            self.budget.room(bytes).await
        });
        let since = Instant::now();
        while since.elapsed() < wait_max {
            match tokio::time::timeout(WAIT_WORTH_TELLING.min(wait_max), &mut room).await {
                Ok(room) => return Some(room),
                Err(_) => self.budget.tell_of_waiting(),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

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

    #[tokio::test]
    async fn a_medium_answer_does_not_wait_behind_large_ones() {
        let memory = AnswerMemory::new(32 * 1024 * KIB);
        let unread = memory.try_room(20 * 1024 * KIB).unwrap();
        let mut large = Box::pin(memory.room(peer(1), 11 * 1024 * KIB, Duration::MAX));
        assert!((&mut large).now_or_never().is_none());
        let medium: Vec<_> = (0..4).map(|_| memory.try_room(1024 * KIB).unwrap()).collect();
        assert!(
            memory.try_room(100 * KIB).is_none(),
            "those of a medium size have a part, not all"
        );
        assert!(memory.try_room(1024 * KIB + 1).is_none(), "what is larger waits with its like");
        drop((unread, medium));
        assert!(large.await.is_some());
        assert_eq!(memory.used_bytes(), 0);
    }

    #[tokio::test]
    async fn who_asks_for_much_waits_behind_its_own() {
        let memory = large(10 * 1024 * KIB);
        let unread = memory.try_room(10 * 1024 * KIB).unwrap();
        let mut greedy: VecDeque<_> = (0..10)
            .map(|_| Box::pin(memory.room(peer(1), 10 * 1024 * KIB, Duration::MAX)))
            .collect();
        assert!(greedy.iter_mut().all(|room| room.now_or_never().is_none()));
        let mut other = Box::pin(memory.room(peer(2), 10 * 1024 * KIB, Duration::MAX));
        assert!((&mut other).now_or_never().is_none());
        drop(unread);
        let first = greedy.pop_front().unwrap().now_or_never().flatten();
        assert!(first.is_some(), "in the order of asking");
        assert!(greedy.iter_mut().all(|room| room.now_or_never().is_none()));
        drop(first);
        let second = (&mut other).now_or_never().flatten();
        assert!(second.is_some(), "one of each other address is before it");
        drop(second);
        // An answer that stops waiting, with its turn or before it, delays no other one.
        drop(greedy.pop_front());
        drop(greedy.pop_back());
        for room in greedy {
            assert!(room.now_or_never().flatten().is_some());
        }
        assert!(memory.large.turns.is_empty(), "nobody waits any more");
        assert_eq!(memory.used_bytes(), 0);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let memory = large(1024 * KIB);
        let all = memory.try_room(4096 * KIB).unwrap();
        assert!(memory.room(peer(1), 60 * KIB, Duration::from_millis(20)).await.is_none());
        drop(all);
        assert!(
            memory.room(peer(1), 4096 * KIB, Duration::from_millis(20)).await.is_some(),
            "one that is larger than the budget is alone"
        );
    }
}
