//! The deletion rules of `UnifiedLog` for `cleanup.policy=delete`: which segments are too old or
//! too many.
//!
//! The writer of a log calls it in the periodic sweep. It is pure: the caller passes the segments,
//! the settings and the time, and deletes the segments. Segments before the log start offset need
//! no rule; the writer drops them when the offset rises.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::{LogConfig, SegmentSummary};

/// Returns how many of the oldest segments to delete. They may include the active one, the last of
/// `segments`; the writer then rolls first.
///
/// A segment is deleted only after all those before it, and only below the high watermark. An empty
/// active segment stays.
pub fn expired(
    segments: &[SegmentSummary],
    config: &LogConfig,
    high_watermark: i64,
    log_end_offset: i64,
    now_ms: i64,
) -> usize {
    let mut surplus = surplus_bytes(segments, config);
    let mut count = 0;
    for (index, segment) in segments.iter().enumerate() {
        let next_offset = segments.get(index + 1).map_or(log_end_offset, |next| next.base_offset);
        let is_active = index + 1 == segments.len();
        if next_offset > high_watermark || (is_active && segment.size_bytes == 0) {
            break;
        }
        let too_many = surplus > 0 && surplus >= segment.size_bytes;
        if !too_many && !is_old(segment, config, now_ms) {
            break;
        }
        surplus = surplus.saturating_sub(segment.size_bytes);
        count += 1;
    }
    count
}

/// Returns the bytes by which the log exceeds `retention.bytes`.
fn surplus_bytes(segments: &[SegmentSummary], config: &LogConfig) -> u64 {
    let size: u64 = segments.iter().map(|segment| segment.size_bytes).sum();
    config.retention_bytes.map_or(0, |limit| size.saturating_sub(limit))
}

/// Whether the newest record of a segment is older than `retention.ms`.
fn is_old(segment: &SegmentSummary, config: &LogConfig, now_ms: i64) -> bool {
    config
        .retention_ms
        .is_some_and(|limit| now_ms.saturating_sub(newest_ms(segment, now_ms)) > limit)
}

/// Returns the time of a segment's newest record. The client sets timestamps. If the largest one is
/// missing or in the future, the time of the last append counts.
pub(super) fn newest_ms(segment: &SegmentSummary, now_ms: i64) -> i64 {
    if (0..=now_ms).contains(&segment.max_timestamp) {
        segment.max_timestamp
    } else {
        segment.modified_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000;

    fn config(retention_ms: Option<i64>, retention_bytes: Option<u64>) -> LogConfig {
        LogConfig { retention_ms, retention_bytes, ..LogConfig::default() }
    }

    /// Segments of ten offsets and 100 bytes with these largest timestamps. The last append to each
    /// was at 950.
    fn segments(timestamps: &[i64]) -> Vec<SegmentSummary> {
        let segment = |(base_offset, &max_timestamp)| SegmentSummary {
            size_bytes: 100,
            max_timestamp,
            ..SegmentSummary::empty(base_offset, 950)
        };
        (0..).step_by(10).zip(timestamps).map(segment).collect()
    }

    fn count(timestamps: &[i64], config: &LogConfig, high_watermark: i64) -> usize {
        expired(&segments(timestamps), config, high_watermark, 10 * timestamps.len() as i64, NOW)
    }

    #[test]
    fn segments_go_by_time() {
        for (timestamps, expected, why) in [
            (&[1, 2, 3][..], 3, "the active one too, when it is old"),
            (&[1, 899, 900], 2, "at the age of 100 one stays"),
            (&[1, 950, 1], 1, "not past one that stays"),
            (&[-1, 1], 0, "without a timestamp it is as old as its last append"),
            (&[i64::MAX, 1], 0, "so it is with a timestamp in the future"),
        ] {
            assert_eq!(count(timestamps, &config(Some(100), None), 1_000), expected, "{why}");
        }
        let future = [SegmentSummary { modified_ms: 800, ..segments(&[i64::MAX])[0] }];
        assert_eq!(
            expired(&future, &config(Some(100), None), 10, 10, NOW),
            1,
            "a timestamp in the future does not keep a segment"
        );
        assert_eq!(count(&[1, 2, 3], &config(None, None), 1_000), 0, "no limit");
    }

    #[test]
    fn segments_go_by_size() {
        let by_size = |limit| count(&[NOW; 4], &config(Some(100), limit), 1_000);
        let limits = [
            None,
            Some(400),
            Some(399),
            Some(301),
            Some(300),
            Some(299),
            Some(100),
            Some(1),
            Some(0),
        ];
        assert_eq!(limits.map(by_size), [0, 0, 0, 0, 1, 1, 3, 3, 4]);
    }

    #[test]
    fn nothing_goes_past_the_high_watermark() {
        for (high_watermark, expected) in [(0, 0), (9, 0), (10, 1), (29, 2), (30, 3)] {
            assert_eq!(count(&[1, 2, 3], &config(Some(100), None), high_watermark), expected);
            assert_eq!(count(&[NOW; 3], &config(None, Some(0)), high_watermark), expected);
        }
    }

    #[test]
    fn an_empty_active_segment_stays() {
        let mut segments = segments(&[1, 2]);
        segments.push(SegmentSummary::empty(20, 0));
        assert_eq!(expired(&segments, &config(Some(100), None), 20, 20, NOW), 2);
        assert_eq!(expired(&[], &config(Some(100), None), 0, 0, NOW), 0);
    }
}
