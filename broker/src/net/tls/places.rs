//! The bound of handshakes that are under way: of the process, and of each client address.
//!
//! A handshake costs some 0.1 to 1 ms of a core, and up to 64 KiB. One that waits for a place costs
//! only its socket.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::budget::{Turn, Turns};

/// The most handshakes of the process that are under way.
const PROCESS_MAX: usize = 512;

/// Those of one address. Many clients may share one, behind a load balancer.
const ADDRESS_MAX: usize = 128;

/// The places for handshakes.
#[derive(Debug)]
pub(in crate::net) struct Places {
    process: Arc<Semaphore>,
    addresses: Turns,
    waiting: AtomicUsize,
}

/// The place of one handshake.
#[derive(Debug)]
pub(super) struct Place {
    _process: Option<OwnedSemaphorePermit>,
    _address: Turn,
}

impl Places {
    /// Nobody has a place yet.
    pub(in crate::net) fn new() -> Self {
        Self {
            process: Arc::new(Semaphore::new(PROCESS_MAX)),
            addresses: Turns::new(ADDRESS_MAX),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Waits for a place for a handshake with a client at `peer`. The places of an address go to
    /// its clients in the order in which they came, and so do those of the process.
    pub(super) async fn place(&self, peer: IpAddr) -> Place {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let address = self.addresses.turn(peer).await;
        // The semaphore is never closed.
        let process = Arc::clone(&self.process).acquire_owned().await.ok();
        Place { _process: process, _address: address }
    }

    /// Whether a client waits for a place.
    pub(super) fn are_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Counts a waiting client as long as it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn host(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let places = Places::new();
        let one: Vec<Place> =
            (0..ADDRESS_MAX).filter_map(|_| places.place(host(1)).now_or_never()).collect();
        assert_eq!(one.len(), ADDRESS_MAX);
        let mut next = Box::pin(places.place(host(1)));
        assert!((&mut next).now_or_never().is_none() && places.are_short());
        assert!(places.place(host(2)).now_or_never().is_some(), "another address has its own");
        drop(one);
        assert!(next.now_or_never().is_some() && !places.are_short());
    }

    #[test]
    fn the_process_has_a_bound_and_forgets_who_leaves() {
        let places = Places::new();
        let addresses = u8::try_from(PROCESS_MAX / ADDRESS_MAX).unwrap();
        let all: Vec<Place> = (0..addresses)
            .flat_map(|last| {
                let places = &places;
                (0..ADDRESS_MAX).filter_map(move |_| places.place(host(last)).now_or_never())
            })
            .collect();
        assert_eq!(all.len(), PROCESS_MAX);
        let mut gone = Box::pin(places.place(host(200)));
        assert!((&mut gone).now_or_never().is_none());
        drop(gone);
        assert!(!places.are_short());
        drop(all);
        assert!(places.addresses.is_empty());
        assert_eq!(places.process.available_permits(), PROCESS_MAX);
    }
}
