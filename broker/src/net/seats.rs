//! The places of connections: of clients on all listeners together, and of nodes apart from them,
//! so that no client keeps a follower from its leader.
//!
//! A client has its seat from the first packet on. At the door for nodes anybody can knock, so a
//! connection sits down only once it has shown a certificate of the cluster. Those before have
//! places of their own, and the oldest leaves when there are too many.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use weir_tls::{Arrival, Arrivals};

use super::closed::Closed;
use super::tls::Places;

/// The part of the most connections that nodes of the cluster may have besides, and how many at
/// least: a broker keeps one for each partition leader, and some for transactions.
const NODES_SHARE: usize = 8;
const NODES_MIN: usize = 64;

/// The most connections that have not shown that they are nodes, and those of one address.
const ARRIVALS_MAX: usize = 1024;
const ADDRESS_MAX: usize = 128;

/// The seats of some listeners.
#[derive(Debug)]
pub(super) struct Seats {
    taken: Arc<AtomicUsize>,
    max: usize,
    handshakes: Places,
    /// At the door for nodes.
    arrivals: Option<Arc<Arrivals>>,
}

/// The seat of a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection has before its handshake.
#[derive(Debug)]
pub(super) enum Entry {
    Seated(Seat),
    Arriving(Arrival),
}

impl Seats {
    /// Seats for this many clients.
    pub(super) fn of_clients(max: usize) -> Self {
        Self { taken: Arc::default(), max, handshakes: Places::new(), arrivals: None }
    }

    /// Seats for nodes, where there are so many for clients.
    pub(super) fn of_nodes(clients_max: usize) -> Self {
        let max = (clients_max / NODES_SHARE).max(NODES_MIN);
        let arrivals = Arc::new(Arrivals::new(ARRIVALS_MAX, ADDRESS_MAX));
        Self { arrivals: Some(arrivals), ..Self::of_clients(max) }
    }

    /// Lets a connection in; `None` if there is no seat.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Entry> {
        match &self.arrivals {
            Some(arrivals) => Some(Entry::Arriving(arrivals.arrive(address))),
            None => self.take().map(Entry::Seated),
        }
    }

    /// Gives a connection its seat once its handshake is done.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn sit(&self, entry: Entry) -> Result<Seat, Closed> {
        match entry {
            Entry::Seated(seat) => Ok(seat),
            Entry::Arriving(_arrival) => self.take().ok_or(Closed::Full),
        }
    }

    fn take(&self) -> Option<Seat> {
        let free = |taken: usize| (taken < self.max).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
        taken.is_ok().then(|| Seat(Arc::clone(&self.taken)))
    }

    /// The places for handshakes.
    pub(super) fn handshakes(&self) -> &Places {
        &self.handshakes
    }
}

impl Entry {
    /// Waits until a later connection takes this place; a seat is kept for ever.
    pub(super) async fn crowded_out(&mut self) {
        match self {
            Self::Seated(_) => std::future::pending().await,
            Self::Arriving(arrival) => arrival.crowded_out().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn host(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn clients_have_their_seats_at_once() {
        let seats = Seats::of_clients(2);
        let [one, two] = [1, 2].map(|last| seats.enter(host(last)).unwrap());
        assert!(seats.enter(host(3)).is_none());
        drop(one);
        let kept = seats.enter(host(3)).map(|entry| seats.sit(entry).unwrap());
        assert!(kept.is_some() && seats.enter(host(4)).is_none());
        drop((two, kept));
        assert_eq!(seats.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn silent_ones_take_no_seat_of_a_node() {
        let seats = Seats::of_nodes(0);
        let mut silent: Vec<Entry> =
            (0..ARRIVALS_MAX).filter_map(|n| seats.enter(host((n / ADDRESS_MAX) as u8))).collect();
        let entries = (0..=NODES_MIN).filter_map(|_| seats.enter(host(200)));
        let mut sat: Vec<Result<Seat, Closed>> = entries.map(|entry| seats.sit(entry)).collect();
        assert!(matches!(sat.pop(), Some(Err(Closed::Full))), "no seat is left for one more node");
        assert!(sat.len() == NODES_MIN && sat.iter().all(Result::is_ok));
        let gone = silent.iter_mut().filter_map(|one| one.crowded_out().now_or_never()).count();
        assert_eq!(gone, 1, "each node that came left again before the next");
    }
}
