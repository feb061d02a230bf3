//! PURE: one decision, and what a group needs for it besides itself.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use uuid::Uuid;

use super::deadlines::Deadlines;
use super::memory::MemberMemory;
use super::settings::Settings;
use crate::coordinator::{Now, Outcome};
use crate::metadata::MetadataImage;

/// One decision: what a group needs besides itself.
pub(super) struct Turn<'a> {
    pub(super) now: Now,
    pub(super) settings: &'a Settings,
    pub(super) deadlines: &'a mut Deadlines,
    pub(super) ids: &'a mut Ids,
    pub(super) image: &'a Arc<MetadataImage>,
    pub(super) memory: &'a MemberMemory,
    pub(super) outcome: &'a mut Outcome,
}

/// What a member id has of its client's name.
pub(super) const PREFIX_CHARS_MAX: usize = 1024;

/// Makes up member ids. They are unique by the seed, which no other process has.
pub(super) struct Ids {
    pub(super) seed: u128,
    pub(super) count: u128,
}

impl Ids {
    /// An id that begins with what the client calls itself. Both together are a string that records
    /// and answers of every version can carry.
    pub(super) fn member(&mut self, prefix: &str) -> String {
        let prefix: String = prefix.chars().take(PREFIX_CHARS_MAX).collect();
        format!("{prefix}-{}", self.uuid())
    }

    pub(super) fn uuid(&mut self) -> Uuid {
        self.count += 1;
        // Two rounds of a mixer: the ids of one process look as little alike as those of two.
        let mut bits =
            self.seed ^ self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        bits = (bits ^ (bits >> 67)).wrapping_mul(0xbf58_476d_1ce4_e5b9_94d0_49bb_1331_11eb);
        bits ^= bits >> 59;
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }
}

impl Turn<'_> {
    /// The time in so many milliseconds; now, for what is negative.
    pub(super) fn in_ms(&self, ms: i32) -> u64 {
        self.now.ms + u64::try_from(ms).unwrap_or(0)
    }
}
