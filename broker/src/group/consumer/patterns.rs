//! PURE: the regular expressions that members subscribe by (KIP-848): which are taken, and when
//! they are matched.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

/// The memory that a regular expression may take once it is compiled, which takes less than a
/// millisecond then.
const REGEX_BYTES_MAX: usize = 128 << 10;

/// How many regular expressions of a group are matched in one decision, since the coordinator
/// decides for others meanwhile; and when the next ones are, of a group that has more which may
/// mean other topics by now. Kafka's coordinator does it beside its decisions, every ten seconds at
/// most (`REGEX_BATCH_REFRESH_MIN_INTERVAL_MS`).
pub(super) const REGEXES_AT_ONCE: usize = 16;
pub(super) const REFRESH_EVERY_MS: u64 = 1_000;

/// A regular expression that topics' names must match as a whole. Its time is linear in what it
/// looks at, as RE2's, and so are its classes: `\w` is of ASCII. What only Unicode has is taken as
/// well.
pub(super) fn compile(pattern: &str) -> Option<Regex> {
    let whole = format!("^(?:{pattern})$");
    let build =
        |unicode| RegexBuilder::new(&whole).unicode(unicode).size_limit(REGEX_BYTES_MAX).build();
    build(false).or_else(|_| build(true)).ok()
}

/// When a group's regular expressions were matched.
#[derive(Debug, Default)]
pub(super) struct Matched {
    /// Each with the version of the metadata.
    pub(super) versions: BTreeMap<Arc<str>, u64>,
    /// Some of them have not been matched with the metadata that there is.
    pub(super) is_behind: bool,
    /// Before that they are not matched again ([`crate::coordinator::Now::ms`]).
    pub(super) again_at: u64,
}

impl Matched {
    /// Whether more of them may be matched now.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.is_behind && now_ms >= self.again_at
    }
}
