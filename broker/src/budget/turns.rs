//! Turns by client address: of each address, only so many at a time.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// The addresses that have a turn, or wait for one.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    /// Turns of one address at a time.
    each: usize,
    addresses: Arc<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>,
}

impl Turns {
    /// Nobody has a turn yet; an address may have `each` at a time.
    pub(crate) fn new(each: usize) -> Self {
        Self { each, addresses: Arc::default() }
    }

    /// Waits for a turn of a client at `peer`, first come first served.
    pub(crate) async fn turn(&self, peer: IpAddr) -> Turn {
        let address = host(peer);
        let semaphore = Arc::clone(
            self.addresses
                .lock()
                .entry(address)
                .or_insert_with(|| Arc::new(Semaphore::new(self.each))),
        );
        let mut turn =
            Turn { address, semaphore, has_it: false, addresses: Arc::clone(&self.addresses) };
        // The semaphore is never closed. The turn gives the permit back itself.
        if let Ok(permit) = turn.semaphore.acquire().await {
            permit.forget();
            turn.has_it = true;
        }
        turn
    }

    /// Whether no address has a turn or waits for one.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.lock().is_empty()
    }
}

/// A turn of an address, or the wait for one. The last one to drop removes the address.
#[derive(Debug)]
pub(crate) struct Turn {
    address: IpAddr,
    semaphore: Arc<Semaphore>,
    has_it: bool,
    addresses: Arc<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.has_it {
            self.semaphore.add_permits(1);
        }
        let mut addresses = self.addresses.lock();
        // The map and this value hold one reference each. New ones are only made under the lock.
        if Arc::strong_count(&self.semaphore) == 2 {
            addresses.remove(&self.address);
        }
    }
}

/// Returns the address that counts. For IPv6 this is the /64 network, because a host may use all of
/// it.
fn host(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_address() {
        let one = host("2001:db8:0:1::1".parse().unwrap());
        assert_eq!(one, host("2001:db8:0:1:ffff::2".parse().unwrap()));
        assert_ne!(one, host("2001:db8:0:2::1".parse().unwrap()));
        assert_eq!(host("::ffff:10.0.0.1".parse().unwrap()), IpAddr::from([10, 0, 0, 1]));
    }
}
