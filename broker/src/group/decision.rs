//! PURE: the context of one decision: what a group needs besides itself.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use uuid::Uuid;

use super::deadlines::Deadlines;
use super::settings::Settings;
use crate::coordinator::{Memory, Now, Outcome};
use crate::metadata::MetadataImage;

/// The context of one decision.
pub(super) struct DecisionContext<'a> {
    pub(super) now: Now,
    pub(super) settings: &'a Settings,
    pub(super) deadlines: &'a mut Deadlines,
    pub(super) ids: &'a mut Ids,
    pub(super) image: &'a Arc<MetadataImage>,
    pub(super) memory: &'a Memory,
    pub(super) outcome: &'a mut Outcome,
}

/// The most characters of a client's name in a member id.
pub(super) const PREFIX_CHARS_MAX: usize = 1024;

/// Generates member ids. The seed, which no other process has, makes them unique.
pub(super) struct Ids {
    pub(super) seed: u128,
    pub(super) count: u128,
}

impl Ids {
    /// An id that begins with the client's name. All versions of records and responses can carry
    /// its length.
    pub(super) fn member(&mut self, prefix: &str) -> String {
        let prefix: String = prefix.chars().take(PREFIX_CHARS_MAX).collect();
        format!("{prefix}-{}", self.uuid())
    }

    pub(super) fn uuid(&mut self) -> Uuid {
        self.count += 1;
        // Two rounds of a mixer, so that the ids of one process look unrelated.
        let mut bits =
            self.seed ^ self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        bits = (bits ^ (bits >> 67)).wrapping_mul(0xbf58_476d_1ce4_e5b9_94d0_49bb_1331_11eb);
        bits ^= bits >> 59;
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }
}

impl DecisionContext<'_> {
    /// The time after this many milliseconds; now for a negative number.
    pub(super) fn in_ms(&self, ms: i32) -> u64 {
        self.now.ms + u64::try_from(ms).unwrap_or(0)
    }
}
