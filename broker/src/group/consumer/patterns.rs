//! PURE: the regular expressions of subscriptions (KIP-848): which ones are valid, and when they
//! are matched with topics.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

/// The most memory of a compiled regular expression, in bytes. Compiling one within this bound
/// takes less than a millisecond.
const REGEX_BYTES_MAX: usize = 128 << 10;

/// The most regular expressions of a group that are matched in one decision, because other groups
/// wait meanwhile, and the pause before the next ones. Kafka's coordinator matches them outside its
/// decisions, at most every ten seconds (`REGEX_BATCH_REFRESH_MIN_INTERVAL_MS`).
pub(super) const REGEXES_AT_ONCE: usize = 16;
pub(super) const REFRESH_EVERY_MS: u64 = 1_000;

/// Compiles a regular expression that must match a whole topic name. As with RE2, its time is
/// linear in the name, and `\w` is ASCII. A pattern that needs Unicode is accepted as well.
pub(super) fn compile(pattern: &str) -> Option<Regex> {
    let whole = format!("^(?:{pattern})$");
    let build =
        |unicode| RegexBuilder::new(&whole).unicode(unicode).size_limit(REGEX_BYTES_MAX).build();
    build(false).or_else(|_| build(true)).ok()
}

/// The state of matching a group's regular expressions.
#[derive(Debug, Default)]
pub(super) struct Matched {
    /// The metadata version at the last match of each.
    pub(super) versions: BTreeMap<Arc<str>, u64>,
    /// Whether some were not matched with the current metadata.
    pub(super) is_behind: bool,
    /// The earliest time of the next match, on the clock of [`crate::coordinator::Now::ms`].
    pub(super) again_at: u64,
}

impl Matched {
    /// Whether more of them may be matched now.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.is_behind && now_ms >= self.again_at
    }
}
