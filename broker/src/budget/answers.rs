//! The bound on memory for answers: one budget for what is encoded and not yet taken by its client.
//!
//! An answer has room before it is encoded, and gives it back when all of it is sent. Who waits for
//! room holds nothing that is large. Small answers need no room and never wait: whoever does not
//! read, heartbeats, commits and produces of others go on.
//!
//! Clients that do not read keep their room for seconds, so the order matters in which others have
//! it. Answers to produces and answers of a medium size have parts of the budget for themselves.
//! And of each address one answer at a time stands in the queue of a part: an answer waits behind
//! one of each other address, however many others ask for.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::warn;

use super::room::{Budget, Room};

/// An answer of so many bytes needs no room: a part of what each connection may take.
pub(crate) const SMALL_BYTES_MAX: usize = 16 * 1024;

/// Of the whole budget what is for the answers to produces alone: records that are written are
/// acknowledged, whoever does not read what else was asked for.
const PRODUCED_PART: usize = 4;

/// Of the whole budget what is for answers of a medium size alone: the metadata of thousands of
/// topics does not wait behind groups of megabytes.
const MEDIUM_PART: usize = 8;

/// The largest answer of a medium size; of a small budget a quarter of their part.
const MEDIUM_BYTES_MAX: usize = 1024 * 1024;

/// How many descriptions are made at a time.
const DESCRIPTIONS_MAX: usize = 2;

/// A request that waits longer than this for the room of its answer is worth a line in the log.
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
    /// A budget of `bytes_max`. One answer that is larger waits until it is alone.
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

    /// A turn to have something described of which only the description tells how large it is:
    /// until then it is in no budget.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.descriptions).acquire_owned().await.ok()
    }

    /// Room for an answer of `bytes`, if there is some and nobody waits for it.
    pub(crate) fn try_room(&self, bytes: usize) -> Option<Room> {
        let own = (bytes <= self.medium_bytes_max).then(|| self.medium.try_room(bytes)).flatten();
        own.or_else(|| self.large.try_room(bytes))
    }

    /// Room for an answer of `bytes` to a client at `peer`. `None` if there was none for
    /// `wait_max`.
    pub(crate) async fn room(
        &self,
        peer: IpAddr,
        bytes: usize,
        wait_max: Duration,
    ) -> Option<Room> {
        let part = if bytes <= self.medium_bytes_max { &self.medium } else { &self.large };
        part.room(peer, bytes, wait_max).await
    }

    /// The same for the answer to a produce.
    pub(crate) async fn produced_room(
        &self,
        peer: IpAddr,
        bytes: usize,
        wait_max: Duration,
    ) -> Option<Room> {
        self.produced.room(peer, bytes, wait_max).await
    }

    /// The same, if there is some and nobody waits for it.
    pub(crate) fn try_produced_room(&self, bytes: usize) -> Option<Room> {
        self.produced.budget.try_room(bytes)
    }

    fn parts(&self) -> [&Part; 3] {
        [&self.large, &self.medium, &self.produced]
    }

    /// Whether somebody waits for room.
    pub(crate) fn is_short(&self) -> bool {
        self.parts().iter().any(|part| part.budget.is_short())
    }

    /// Bytes of the budget that are in use.
    pub fn used_bytes(&self) -> usize {
        self.parts().iter().map(|part| part.budget.used_bytes()).sum()
    }
}

/// A part of the budget, and the queue for it.
#[derive(Clone, Debug)]
struct Part {
    budget: Budget,
    /// For each address of which somebody waits: whose turn it is to stand in the queue.
    turns: Arc<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>,
}

impl Part {
    fn new(bytes_max: usize) -> Self {
        Self {
            budget: Budget::new(
                bytes_max,
                "answers wait for memory: --answer-memory-mib is used up by clients that do not read",
            ),
            turns: Arc::default(),
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
            let turn = Turn::of(peer, &self.turns);
            // The semaphore is never closed.
            let _mine = turn.peer.acquire().await.ok();
            self.budget.room(bytes).await
        });
        let since = Instant::now();
        while since.elapsed() < wait_max {
            match tokio::time::timeout(WAIT_WORTH_TELLING.min(wait_max), &mut room).await {
                Ok(room) => return Some(room),
                Err(_) => self.budget.tell_of_waiting(),
            }
        }
        warn!(%peer, bytes, waited = ?since.elapsed(), "an answer had no memory for too long: its connection is closed");
        None
    }
}

/// A place among those of one address that wait. With the last of them the address is forgotten.
struct Turn {
    address: IpAddr,
    peer: Arc<Semaphore>,
    turns: Arc<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>,
}

impl Turn {
    fn of(peer: IpAddr, turns: &Arc<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>) -> Self {
        let address = host(peer);
        let peer =
            Arc::clone(turns.lock().entry(address).or_insert_with(|| Arc::new(Semaphore::new(1))));
        Self { address, peer, turns: Arc::clone(turns) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.lock();
        // Copies are made under the lock: one is the table's, one is this.
        if Arc::strong_count(&self.peer) == 2 {
            turns.remove(&self.address);
        }
    }
}

/// What counts as one address: of IPv6 the network of 64 bits, all of which a host may use.
fn host(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::FutureExt;

    use super::*;

    const KIB: usize = 1024;

    /// A budget with so much for large answers.
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
        // Who gives up waiting, with its turn or before it, is in nobody's way.
        drop(greedy.pop_front());
        drop(greedy.pop_back());
        for room in greedy {
            assert!(room.now_or_never().flatten().is_some());
        }
        assert!(memory.large.turns.lock().is_empty(), "nobody waits any more");
        assert_eq!(memory.used_bytes(), 0);
    }

    #[test]
    fn a_host_is_one_address() {
        let one = host("2001:db8:0:1::1".parse().unwrap());
        assert_eq!(one, host("2001:db8:0:1:ffff::2".parse().unwrap()));
        assert_ne!(one, host("2001:db8:0:2::1".parse().unwrap()));
        assert_eq!(host("::ffff:10.0.0.1".parse().unwrap()), peer(1));
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
