//! Validation of records: keys, timestamps, offsets, and the rewrite of a batch.

use bytes::BytesMut;
use weir_protocol::batch::{BatchHeader, Codec};
use weir_protocol::record::{BatchBuilder, Records, walk};

use super::super::{LogConfig, TimestampType};
use super::refusal::{BadRecord, Refusal};

/// The timestamp of a record that has none (`RecordBatch.NO_TIMESTAMP`).
pub(super) const NO_TIMESTAMP: i64 = -1;

/// Returns whether a record may have this timestamp. A missing timestamp is allowed
/// (`LogValidator.recordHasInvalidTimestamp`). The age wraps as in Java, so a timestamp too far in
/// the past counts as the future.
pub(super) fn allows(config: &LogConfig, timestamp: i64, now_ms: i64) -> bool {
    let age = now_ms.wrapping_sub(timestamp);
    timestamp == NO_TIMESTAMP
        || (age <= config.timestamp_before_ms_max
            && age.wrapping_neg() <= config.timestamp_after_ms_max)
}

/// The most bad records in an answer. A request must not produce an answer larger than itself.
const BAD_RECORDS_MAX: usize = 100;

/// The result of reading the records of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// The largest timestamp, -1 if no record has one.
    pub(super) max_timestamp: i64,
    /// The offsets inside the batch do not count up from 0, as with some old clients. Like Kafka,
    /// the leader rewrites such a batch instead of refusing it.
    pub(super) offsets_are_off: bool,
}

/// Reads every record of a batch, at most `limit` bytes if it is compressed. Also returns how many
/// bytes it decompressed. As in `LogValidator.processRecordErrors`, one record with a wrong
/// timestamp decides the error code.
pub(super) fn inspect_records(
    header: &BatchHeader,
    batch: &[u8],
    limit: usize,
    config: &LogConfig,
    now_ms: i64,
) -> Result<(Found, u64), Refusal> {
    let mut found = Found { max_timestamp: NO_TIMESTAMP, offsets_are_off: false };
    let mut bad: Vec<BadRecord> = Vec::new();
    let (mut bad_count, mut index) = (0_usize, 0);
    let mut is_about_time = false;
    let walked = walk(header, batch, limit, config.decompressed_message_bytes_max, |record| {
        let timestamp = record.timestamp(header);
        found.max_timestamp = found.max_timestamp.max(timestamp);
        found.offsets_are_off |= record.offset_delta != index;
        let keyless = config.cleanup.compact && !record.has_key;
        let message = if keyless {
            Some("Compacted topic cannot accept message without key".to_owned())
        } else {
            timestamp_error(header, timestamp, config, now_ms)
        };
        if let Some(message) = message {
            is_about_time |= !keyless;
            bad_count += 1;
            if bad.len() < BAD_RECORDS_MAX {
                bad.push(BadRecord { index, message });
            }
        }
        index += 1;
    })?;
    match bad.first() {
        None => Ok((found, walked)),
        Some(_) if is_about_time => Err(Refusal::BadTimestamps { records: bad }),
        Some(first) => {
            Err(Refusal::BadRecords { count: bad_count, first: first.clone(), records: bad })
        }
    }
}

/// The same as `LogValidator.validateTimestamp`; messages for the user are Kafka's, word for word.
fn timestamp_error(
    header: &BatchHeader,
    timestamp: i64,
    config: &LogConfig,
    now_ms: i64,
) -> Option<String> {
    if config.timestamp_type == TimestampType::LogAppendTime || timestamp == NO_TIMESTAMP {
        return header
            .is_log_append_time()
            .then(|| "Producer should not set timestamp type to LogAppendTime".to_owned());
    }
    if allows(config, timestamp, now_ms) {
        return None;
    }
    let earliest = now_ms.saturating_sub(config.timestamp_before_ms_max);
    let latest = now_ms.saturating_add(config.timestamp_after_ms_max);
    Some(format!(
        "Timestamp {timestamp} is out of range. The timestamp should be within [{earliest}, {latest}]"
    ))
}

/// Rewrites a batch with another codec and with offsets that count up from 0.
pub(super) fn rewrite(
    header: &BatchHeader,
    section: &[u8],
    codec: Codec,
    level: i32,
) -> Result<BytesMut, Refusal> {
    let mut builder = BatchBuilder::like(header).codec(codec);
    for (record, offset) in Records::new(section, header.records_count).zip(0..) {
        let record = record?;
        builder.append_record(offset, record.timestamp(header), &record);
    }
    Ok(builder.build(level)?)
}
