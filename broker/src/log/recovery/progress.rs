//! How far recovery is: counted by the threads that recover, and read by whoever waits for them.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counts of a recovery. All at zero where nothing has to be recovered.
#[derive(Debug, Default)]
pub struct Recovery {
    logs: AtomicU64,
    logs_done: AtomicU64,
    bytes: AtomicU64,
    bytes_done: AtomicU64,
    steps: AtomicU64,
}

/// How far a recovery was at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Logs that are to be recovered.
    pub logs: u64,
    /// Those that are.
    pub logs_done: u64,
    /// Bytes of their segments, as far as they were counted: that comes first.
    pub bytes: u64,
    /// Those that were checked, or are known to be whole.
    pub bytes_done: u64,
    /// What was done besides: logs whose bytes were counted, deletions that were finished. Only
    /// that it grows means something.
    pub steps: u64,
}

impl Recovery {
    /// How far it is.
    pub fn now(&self) -> Recovered {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Recovered {
            // What is done is read first, so that it is never more than there is.
            logs_done: count(&self.logs_done),
            bytes_done: count(&self.bytes_done),
            logs: count(&self.logs),
            bytes: count(&self.bytes),
            steps: count(&self.steps),
        }
    }

    /// There are so many logs.
    pub(crate) fn begins(&self, logs: usize) {
        self.logs.store(logs as u64, Ordering::Relaxed);
    }

    /// A log has segments of so many bytes.
    pub(crate) fn has(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.steps();
    }

    /// Something was done that is counted nowhere else.
    pub(crate) fn steps(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// So many bytes more need no check any more.
    pub(crate) fn checked(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A log more is recovered.
    pub(crate) fn recovered_log(&self) {
        self.logs_done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The bytes of one log, of which each is counted as checked once, whatever becomes of it.
#[derive(Debug)]
pub(super) struct Share<'a> {
    recovery: &'a Recovery,
    left: u64,
}

impl<'a> Share<'a> {
    pub(super) fn new(recovery: &'a Recovery, bytes: u64) -> Self {
        Self { recovery, left: bytes }
    }

    /// So many bytes more were checked. What was written over, or has grown since they were
    /// counted, counts no more than there was.
    pub(super) fn checked(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        self.recovery.checked(bytes);
    }
}

impl Drop for Share<'_> {
    /// What was cut off, or set aside, needs no check any more.
    fn drop(&mut self) {
        self.recovery.checked(self.left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_counted_once() {
        let recovery = Recovery::default();
        recovery.begins(2);
        recovery.has(10);
        recovery.has(5);
        let done = || recovery.now().bytes_done;
        let mut share = Share::new(&recovery, 10);
        share.checked(4);
        assert_eq!(done(), 4);
        share.checked(4);
        share.checked(100);
        assert_eq!(done(), 10);
        drop(share);
        drop(Share::new(&recovery, 5));
        recovery.recovered_log();
        let now = recovery.now();
        assert_eq!(
            (now.logs_done, now.logs, now.bytes_done, now.bytes, now.steps),
            (1, 2, 15, 15, 2)
        );
    }
}
