//! Compaction (`cleanup.policy=compact`): of the records with the same key the last one stays.
//! Kafka's `LogCleanerManager` and `Cleaner`.
//!
//! The maintenance thread asks of every compacted log what there is to gain ([`assess`]), and lets
//! [`clean`] rewrite the one with most of it. Rewriting happens beside the log, in files that
//! nobody reads; only [`Cleaned::swap_in`] needs the writer, and that for a few renames. How far a
//! log is clean, the log itself remembers, and the catalogue with it: a cut takes it back before
//! anything is appended behind it.
//!
//! What stays is fixed: offsets, the order of records, everything from the first offset that was
//! not cleaned on, the newest record of every key, and the header of a producer's last batch.
//! Tombstones go once `delete.retention.ms` has passed since they were first met here (KIP-534),
//! and so do markers of transactions of which nothing is left. Records of aborted transactions go
//! at once, and nothing at or behind an open one is touched. Kept as they are: batches whose
//! records cannot be read.

use super::retention::newest_ms;
use super::{LogConfig, SegmentSummary};

mod filter;
mod map;
mod run;
mod swap;

pub use map::OffsetMap;
pub use run::{assess, assess_from, clean};
pub use swap::Cleaned;
pub(super) use swap::finish;

/// What compaction would do to a log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Everything before this offset is clean already.
    pub first_dirty_offset: i64,
    /// The base offset of the first segment that may not be cleaned yet.
    pub end_offset: i64,
    /// Bytes that may be cleaned, of those and the clean ones. The log with the largest one comes
    /// first.
    pub dirty_ratio: f64,
    /// How often the log had been cut when this was found out: after another cut it does not hold.
    pub truncations: u32,
}

/// What there is to clean in a log; `None` when it is not enough, or nothing.
///
/// `cleaned_offset` is where the last cleaning ended, `committed` the offset below which everything
/// is committed and on the disk. The active segment, the last one, is never cleaned; nor are
/// segments with records younger than `min.compaction.lag.ms`, nor those behind them. A log is due
/// when its dirty part exceeds `min.cleanable.dirty.ratio`, or the newest record of its first dirty
/// segment is older than `max.compaction.lag.ms`.
fn plan(
    segments: &[SegmentSummary],
    config: &LogConfig,
    cleaned_offset: i64,
    log_start_offset: i64,
    committed: i64,
    now_ms: i64,
) -> Option<Plan> {
    let (active, sealed) = segments.split_last()?;
    // A log that was cut at its end or emptied since then is dirty from its beginning.
    let first_dirty_offset = if (log_start_offset..=active.base_offset).contains(&cleaned_offset) {
        cleaned_offset
    } else {
        log_start_offset
    };
    let ends = || segments.iter().skip(1).map(|next| next.base_offset);
    let mut plan = Plan {
        first_dirty_offset,
        end_offset: first_dirty_offset,
        dirty_ratio: 0.0,
        truncations: 0,
    };
    let (mut clean_bytes, mut dirty_bytes) = (0, 0);
    let mut overdue = false;
    for (segment, end) in sealed.iter().zip(ends()) {
        if end <= first_dirty_offset {
            clean_bytes += segment.size_bytes;
            continue;
        }
        let age_ms = now_ms.saturating_sub(newest_ms(segment, now_ms));
        if end > committed
            || (config.compaction_lag_ms_min > 0 && age_ms < config.compaction_lag_ms_min)
        {
            break;
        }
        overdue |= age_ms > config.compaction_lag_ms_max;
        dirty_bytes += segment.size_bytes;
        plan.end_offset = end;
    }
    if dirty_bytes == 0 {
        return None;
    }
    plan.dirty_ratio = dirty_bytes as f64 / (clean_bytes + dirty_bytes) as f64;
    (overdue || plan.dirty_ratio > config.dirty_ratio_min).then_some(plan)
}

/// Sorts neighbouring segments into groups that become one segment each: as many as are together no
/// larger than `segment.bytes`, and whose offsets fit into 32 bits relative to the first. Small
/// segments come from cleaning; so they do not become ever more. Gives the number of segments of
/// each group; `end_offset` is behind the last one.
fn groups(segments: &[SegmentSummary], end_offset: i64, config: &LogConfig) -> Vec<usize> {
    let mut groups: Vec<usize> = Vec::new();
    let (mut base_offset, mut bytes) = (0, 0);
    for (index, segment) in segments.iter().enumerate() {
        let next_offset = segments.get(index + 1).map_or(end_offset, |next| next.base_offset);
        let fits = bytes + segment.size_bytes <= u64::from(config.segment_bytes)
            && next_offset - base_offset <= i64::from(i32::MAX);
        match groups.last_mut() {
            Some(group) if fits => *group += 1,
            _ => {
                groups.push(1);
                (base_offset, bytes) = (segment.base_offset, 0);
            }
        }
        bytes += segment.size_bytes;
    }
    groups
}

#[cfg(test)]
mod tests;
