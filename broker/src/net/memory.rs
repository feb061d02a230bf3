//! The bound on memory for requests: one budget for the whole broker, and buffers that sleeping connections do not keep.
//!
//! A connection pays for bytes as they arrive, never for what a length field claims. When the budget is spent, connections are not read from until others are
//! done; one that stalls in the middle of a frame is closed, so that stalled frames cannot hold the budget.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a connection may hold without asking: enough for all but large produces.
pub(crate) const FREE_BYTES: usize = 64 * 1024;

/// The budget is counted in pages: a semaphore's permits end below the byte count of a large machine.
const PAGE_BYTES: usize = 4096;

/// The broker's budget for requests in memory.
#[derive(Clone, Debug)]
pub struct RequestMemory {
    pages: Arc<Semaphore>,
    pages_max: usize,
}

/// A connection's share of the budget, given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Share {
    permit: Option<OwnedSemaphorePermit>,
}

impl RequestMemory {
    /// A budget of `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        let pages_max = (bytes_max / PAGE_BYTES).min(Semaphore::MAX_PERMITS);
        Self {
            pages: Arc::new(Semaphore::new(pages_max)),
            pages_max,
        }
    }

    /// Raises `share` until it covers `bytes`, waiting for others where the budget is spent.
    pub(crate) async fn cover(&self, share: &mut Share, bytes: usize) {
        // One request may be larger than the whole budget: then it waits until it is alone.
        let wanted = (bytes.saturating_sub(FREE_BYTES) / PAGE_BYTES).min(self.pages_max);
        let held = share.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(missing) = wanted
            .checked_sub(held)
            .and_then(|pages| u32::try_from(pages).ok())
            .filter(|&pages| pages > 0)
        else {
            return;
        };
        // The semaphore is never closed.
        if let Ok(permit) = Arc::clone(&self.pages).acquire_many_owned(missing).await {
            match &mut share.permit {
                Some(held) => held.merge(permit),
                None => share.permit = Some(permit),
            }
        }
    }

    /// Lowers `share` to what covers `bytes`.
    pub(crate) fn release(&self, share: &mut Share, bytes: usize) {
        let wanted = bytes.saturating_sub(FREE_BYTES) / PAGE_BYTES;
        let Some(permit) = &mut share.permit else { return };
        let surplus = permit.num_permits().saturating_sub(wanted);
        drop(permit.split(surplus));
    }

    /// Bytes of the budget that are in use.
    pub fn used_bytes(&self) -> usize {
        (self.pages_max - self.pages.available_permits()) * PAGE_BYTES
    }
}

/// Buffers that no connection of this thread needs at the moment.
const POOLED_MAX: usize = 32;
const POOLED_BYTES_MAX: usize = 1024 * 1024;

thread_local! {
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer, one with memory if there is one.
pub(crate) fn take_buffer() -> BytesMut {
    POOL.with_borrow_mut(|pool| pool.pop().unwrap_or_default())
}

/// Gives back a buffer that nothing is in any more.
pub(crate) fn give_buffer(buffer: BytesMut) {
    if buffer.is_empty() && (1..=POOLED_BYTES_MAX).contains(&buffer.capacity()) {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOLED_MAX {
                pool.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn the_budget_is_shared_and_given_back() {
        let memory = RequestMemory::new(1024 * 1024);
        let (mut one, mut two) = (Share::default(), Share::default());
        memory.cover(&mut one, FREE_BYTES).now_or_never().unwrap();
        assert_eq!(memory.used_bytes(), 0, "small requests are free");
        memory.cover(&mut one, FREE_BYTES + 900 * 1024).now_or_never().unwrap();
        assert_eq!(memory.used_bytes(), 900 * 1024);
        assert!(
            memory.cover(&mut two, FREE_BYTES + 200 * 1024).now_or_never().is_none(),
            "the second one waits"
        );
        memory.release(&mut one, FREE_BYTES + 100 * 1024);
        memory.cover(&mut two, FREE_BYTES + 200 * 1024).now_or_never().unwrap();
        drop((one, two));
        assert_eq!(memory.used_bytes(), 0);
        let mut huge = Share::default();
        memory
            .cover(&mut huge, 1024 * 1024 * 1024)
            .now_or_never()
            .expect("one that is larger than the budget runs alone");
    }
}
