//! The progress of a recovery. The recovery threads count, and the health page and the log of the
//! broker read.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of a recovery. All are zero when nothing needs recovery.
#[derive(Debug, Default)]
pub struct Recovery {
    logs: AtomicU64,
    logs_done: AtomicU64,
    bytes: AtomicU64,
    bytes_done: AtomicU64,
    steps: AtomicU64,
}

/// The progress at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Logs to recover.
    pub logs: u64,
    /// Recovered logs.
    pub logs_done: u64,
    /// Bytes of their segments, as far as they are counted; the count comes first.
    pub bytes: u64,
    /// Bytes that were checked, or that the catalogue vouches for.
    pub bytes_done: u64,
    /// Other steps: logs whose bytes were counted, and finished deletions. Only its growth has a
    /// meaning.
    pub steps: u64,
}

impl Recovery {
    /// Returns the current progress.
    pub fn now(&self) -> Recovered {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Recovered {
            // The done counters are read first, so that they never exceed the totals.
            logs_done: count(&self.logs_done),
            bytes_done: count(&self.bytes_done),
            logs: count(&self.logs),
            bytes: count(&self.bytes),
            steps: count(&self.steps),
        }
    }

    /// Sets the number of logs.
    pub fn begins(&self, logs: usize) {
        self.logs.store(logs as u64, Ordering::Relaxed);
    }

    /// Adds the bytes of a log's segments to the total.
    pub fn has(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.steps();
    }

    /// Counts a step that no other counter has.
    pub fn steps(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that need no check any more.
    pub fn checked(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a recovered log.
    pub fn recovered_log(&self) {
        self.logs_done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The bytes of one log. Each byte counts once as checked, whatever recovery does with it.
#[derive(Debug)]
pub(super) struct Share<'a> {
    recovery: &'a Recovery,
    left: u64,
}

impl<'a> Share<'a> {
    pub(super) fn new(recovery: &'a Recovery, bytes: u64) -> Self {
        Self { recovery, left: bytes }
    }

    /// Counts checked bytes. Bytes that the log gained or rewrote since it was counted do not
    /// exceed the total.
    pub(super) fn checked(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        self.recovery.checked(bytes);
    }
}

impl Drop for Share<'_> {
    /// Bytes that were cut off or set aside need no check any more.
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
