//! PURE: what a coordinator's load does after others have failed, and when it begins.

use std::time::Duration;

use thiserror::Error;
use weir_log::ReadError;

use super::Unreadable;

/// The first pause before a failed load is repeated.
pub(in crate::coordinator) const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause; it doubles in between.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// After so many loads for which the disk has failed, what it does not return is left out. After so
/// many that failed for whatever reason, clients are told that the coordinator is not available.
/// Loads go on.
const FAILURES_MAX: u32 = 5;

/// The disk has not returned a part of the log.
#[derive(Debug, Error)]
#[error(transparent)]
pub(in crate::coordinator) struct DiskFailed(#[from] pub(in crate::coordinator) ReadError);

/// The failed loads of one leadership.
#[derive(Debug)]
pub(in crate::coordinator) struct Tries {
    /// The first pause.
    pause: Duration,
    pub(in crate::coordinator) failed: u32,
    /// Those for which the disk has failed. A load that has not come to its log says nothing about
    /// the disk, which may return everything to the next.
    disk_failed: u32,
}

impl Tries {
    /// None has failed. The first pause will be this one: [`PAUSE`], except in tests.
    pub(in crate::coordinator) fn with_pause(pause: Duration) -> Self {
        Self { pause, failed: 0, disk_failed: 0 }
    }

    /// What the next load does with a part of the log that the disk does not return.
    pub(in crate::coordinator) fn unreadable(&self) -> Unreadable {
        match self.disk_failed < FAILURES_MAX {
            true => Unreadable::Fails,
            false => Unreadable::IsLeftOut,
        }
    }

    /// Notes that a load has failed. Returns the pause before the next.
    pub(in crate::coordinator) fn failed(&mut self, error: &anyhow::Error) -> Duration {
        let pause = self.pause * 2_u32.saturating_pow(self.failed.min(5));
        self.failed = self.failed.saturating_add(1);
        self.disk_failed += u32::from(error.is::<DiskFailed>() && self.disk_failed < FAILURES_MAX);
        pause.min(PAUSE_MAX)
    }

    /// Whether waiting for a load is of no use to a client for now.
    pub(in crate::coordinator) fn are_of_no_use(&self) -> bool {
        self.failed >= FAILURES_MAX
    }
}
