//! The connections at a door for nodes that have not shown who they are, within bounds of number.
//!
//! A node speaks first, and at once. Who comes when there is no place takes that of the oldest:
//! somebody silent has mostly waited for long, and a node only for the time of its handshake.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The connections at one door that have not shown who they are.
#[derive(Debug)]
pub struct Arrivals {
    /// The most of them.
    max: usize,
    /// The most of one address.
    address_max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The number of the next one.
    next: u64,
    /// By their numbers, the oldest first.
    all: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
    of_address: HashMap<IpAddr, BTreeSet<u64>>,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub struct Arrival {
    arrivals: Arc<Arrivals>,
    number: u64,
    crowded_out: oneshot::Receiver<()>,
}

impl Arrivals {
    /// Places for `max` connections, and for `address_max` of one address.
    pub fn new(max: usize, address_max: usize) -> Self {
        Self { max, address_max, waiting: Mutex::default() }
    }

    /// Gives a place to a connection from this address. The oldest one loses its own if there are
    /// too many: of the same address, or of all.
    pub fn arrive(self: &Arc<Self>, address: IpAddr) -> Arrival {
        let mut waiting = self.waiting.lock();
        let of_address = waiting.of_address.get(&address);
        let oldest = of_address
            .filter(|numbers| numbers.len() >= self.address_max)
            .and_then(BTreeSet::first)
            .copied()
            .or_else(|| {
                let is_full = waiting.all.len() >= self.max;
                waiting.all.first_key_value().filter(|_| is_full).map(|(number, _)| *number)
            });
        if let Some(oldest) = oldest {
            waiting.remove(oldest);
        }
        let number = waiting.next;
        waiting.next += 1;
        let (keeps, crowded_out) = oneshot::channel();
        waiting.all.insert(number, (address, keeps));
        waiting.of_address.entry(address).or_default().insert(number);
        Arrival { arrivals: Arc::clone(self), number, crowded_out }
    }
}

impl Waiting {
    fn remove(&mut self, number: u64) {
        let Some((address, _)) = self.all.remove(&number) else { return };
        if let Some(numbers) = self.of_address.get_mut(&address) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.of_address.remove(&address);
            }
        }
    }
}

impl Arrival {
    /// Waits until a later connection takes this place.
    pub async fn crowded_out(&mut self) {
        // Nothing is ever sent: the sender goes with the place.
        let _ = (&mut self.crowded_out).await;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.arrivals.waiting.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Which of these have lost their place.
    fn lost(arrivals: &mut [Arrival]) -> Vec<bool> {
        let is_lost = |one: &mut Arrival| {
            one.crowded_out.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        arrivals.iter_mut().map(is_lost).collect()
    }

    #[test]
    fn the_oldest_of_an_address_goes_and_no_other() {
        let door = Arc::new(Arrivals::new(4, 2));
        let mut there: Vec<Arrival> = [1, 1, 2, 1].map(|last| door.arrive(host(last))).into();
        assert_eq!(lost(&mut there), [true, false, false, false]);
        // A second loss of the same address: its next oldest.
        there.push(door.arrive(host(1)));
        assert_eq!(lost(&mut there), [true, true, false, false, false]);
    }

    #[test]
    fn with_many_addresses_the_oldest_of_all_goes() {
        let door = Arc::new(Arrivals::new(3, 2));
        let mut there: Vec<Arrival> = (0..5).map(|last| door.arrive(host(last))).collect();
        assert_eq!(lost(&mut there), [true, true, false, false, false]);
    }

    #[tokio::test]
    async fn who_leaves_gives_its_place_back() {
        let door = Arc::new(Arrivals::new(2, 2));
        let mut first = door.arrive(host(1));
        for last in 0..10 {
            drop(door.arrive(host(last)));
        }
        assert_eq!(lost(std::slice::from_mut(&mut first)), [false]);
        let (_second, _third) = (door.arrive(host(2)), door.arrive(host(3)));
        first.crowded_out().await;
        drop(first);
        assert_eq!(door.waiting.lock().all.len(), 2);
        drop((_second, _third));
        let waiting = door.waiting.lock();
        assert!(waiting.all.is_empty() && waiting.of_address.is_empty());
    }
}
