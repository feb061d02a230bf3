//! When the keys of an issuer may be fetched because a token names one that is not known. Clients
//! can invent ids of keys without end, and the issuer must not notice.

use std::collections::VecDeque;

/// The least time between two fetches, in milliseconds.
const INTERVAL_MS: u64 = 10_000;

/// How long an id that a fetch did not bring is not asked for again, in milliseconds
/// (`MISSING_KEY_ID_CACHE_IN_FLIGHT_MS`).
const MISSING_MS: u64 = 60_000;

/// How many such ids are remembered.
const MISSING_MAX: usize = 16;

/// The longest id that is worth a fetch (`MISSING_KEY_ID_MAX_KEY_LENGTH`).
const ID_BYTES_MAX: usize = 1_000;

/// Remembers when keys were fetched, and for which ids.
#[derive(Clone, Debug, Default)]
pub struct Refetch {
    last_ms: Option<u64>,
    missing: VecDeque<(String, u64)>,
}

impl Refetch {
    /// Whether to fetch the keys now for this id. The time is of a clock that never goes back.
    pub fn may(&mut self, id: &str, now_ms: u64) -> bool {
        self.missing.retain(|(_, since_ms)| now_ms.saturating_sub(*since_ms) < MISSING_MS);
        let is_soon = self.last_ms.is_some_and(|last| now_ms.saturating_sub(last) < INTERVAL_MS);
        if is_soon || id.len() > ID_BYTES_MAX || self.missing.iter().any(|(seen, _)| seen == id) {
            return false;
        }
        if self.missing.len() >= MISSING_MAX {
            self.missing.pop_front();
        }
        self.missing.push_back((id.to_owned(), now_ms));
        self.last_ms = Some(now_ms);
        true
    }
}
