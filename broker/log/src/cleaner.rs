//! Compaction (`cleanup.policy=compact`): keeps the last record of each key. Kafka's
//! `LogCleanerManager` and `Cleaner`.
//!
//! The maintenance thread assesses every compacted log ([`assess`]) and lets [`clean`] rewrite the
//! dirtiest one. [`clean`] writes new files beside the log, which no reader opens. Only
//! [`Cleaned::swap_in`] needs the writer, for a few renames. The log and the catalogue record the
//! offset up to which the log is clean. A truncation lowers it before anything is appended after
//! the cut.
//!
//! Compaction keeps offsets, the order of records, and everything from the first uncleaned offset
//! on. It keeps the newest record of every key and the header of a producer's last batch. It
//! removes tombstones once `delete.retention.ms` has passed since it first met them (KIP-534), and
//! likewise markers of transactions that have no records left. It removes records of aborted
//! transactions at once, and touches nothing from the first offset of an open transaction on.
//! Batches whose records cannot be read stay as they are.

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

/// A cleaning that a log needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Everything before this offset is clean already.
    pub first_dirty_offset: i64,
    /// The base offset of the first segment that may not be cleaned yet.
    pub end_offset: i64,
    /// Dirty bytes that may be cleaned, as a share of those and the clean bytes. The log with the
    /// highest ratio is cleaned first.
    pub dirty_ratio: f64,
    /// How often the log had been truncated when the plan was made. Another truncation invalidates
    /// the plan.
    pub truncations: u32,
}

/// Plans the cleaning of a log. Returns `None` when nothing may be cleaned, or too little.
///
/// `cleaned_offset` is the offset at which the last cleaning ended. Everything below `committed` is
/// committed and flushed. A cleaning never includes the active (last) segment, nor segments with
/// records younger than `min.compaction.lag.ms`, nor any segment after one of those. A log is due
/// when its dirty ratio exceeds `min.cleanable.dirty.ratio`, or when the newest record of one of
/// its dirty segments is older than `max.compaction.lag.ms`.
fn plan(
    segments: &[SegmentSummary],
    config: &LogConfig,
    cleaned_offset: i64,
    log_start_offset: i64,
    committed: i64,
    now_ms: i64,
) -> Option<Plan> {
    let (active, sealed) = segments.split_last()?;
    // A log that was truncated or emptied since then is dirty from its start.
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

/// Groups neighbouring segments; each group becomes one segment. A group takes as many as fit into
/// `segment.bytes`, with offsets that fit into 32 bits relative to the first. Cleaning makes small
/// segments; grouping keeps their number down. Returns the number of segments of each group;
/// `end_offset` is the end of the last one.
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
