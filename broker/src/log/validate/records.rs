//! The part of validation that reads records: keys, timestamps, offsets, and a batch written anew.

use bytes::BytesMut;
use weir_protocol::batch::{BatchHeader, Codec};
use weir_protocol::record::{BatchBuilder, Records, walk};

use super::super::{LogConfig, TimestampType};
use super::refusal::{BadRecord, Refusal};

/// The timestamp of a record that has none (`RecordBatch.NO_TIMESTAMP`).
pub(super) const NO_TIMESTAMP: i64 = -1;

/// Whether a record may have this timestamp; that it has none is allowed
/// (`LogValidator.recordHasInvalidTimestamp`). What is too far back to be told from now counts as
/// the future, as Java counts.
pub(super) fn allows(config: &LogConfig, timestamp: i64, now_ms: i64) -> bool {
    let age = now_ms.wrapping_sub(timestamp);
    timestamp == NO_TIMESTAMP
        || (age <= config.timestamp_before_ms_max
            && age.wrapping_neg() <= config.timestamp_after_ms_max)
}

/// An answer names at most this many bad records: what a client sends must not make the answer
/// larger than the request.
const BAD_RECORDS_MAX: usize = 100;

/// What reading the records of a batch has shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// The largest timestamp, -1 if no record has one.
    pub(super) max_timestamp: i64,
    /// The offsets inside the batch do not count up from 0, as those of some old clients. Kafka
    /// writes such a batch anew rather than to refuse it.
    pub(super) offsets_are_off: bool,
}

/// Reads every record of a batch, of `limit` bytes at most where it is compressed; says also how
/// many those were. Of several records that may not be in the topic one whose timestamp is wrong
/// decides the code of the answer, as in `LogValidator.processRecordErrors`.
pub(super) fn look(
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

/// As `LogValidator.validateTimestamp`, word for word where it speaks to the user.
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

/// Writes a batch anew with another codec, and offsets that count up from 0.
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
