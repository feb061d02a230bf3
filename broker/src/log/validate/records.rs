//! The part of validation that reads records: keys, timestamps, offsets, and a batch written anew.

use bytes::BytesMut;
use weir_protocol::batch::{BatchHeader, Codec};
use weir_protocol::record::{BatchBuilder, RecordError, Records};

use super::super::{LogConfig, TimestampType};
use super::{BadRecord, NO_TIMESTAMP, Refusal, allows};

/// An answer names at most this many bad records: what a client sends must not make the answer larger than the request.
const BAD_RECORDS_MAX: usize = 100;

/// What reading the records of a batch has shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// The largest timestamp, -1 if no record has one.
    pub(super) max_timestamp: i64,
    /// The offsets inside the batch do not count up from 0, as those of some old clients. Kafka writes such a batch anew rather than to refuse it.
    pub(super) offsets_are_off: bool,
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Reads every record of a batch, of which `section` is the uncompressed part. The first error that is met decides the code of the answer, as in
/// `LogValidator.processRecordErrors`.
pub(super) fn look(header: &BatchHeader, section: &[u8], config: &LogConfig, now_ms: i64) -> Result<Found, Refusal> {
    let mut found = Found {
        max_timestamp: NO_TIMESTAMP,
        offsets_are_off: false,
    };
    let mut bad: Vec<BadRecord> = Vec::new();
    let mut bad_count = 0_usize;
    let mut first_is_timestamp = false;
    let mut records = Records::new(section, header.records_count);
    if header.codec() != Some(Codec::None) {
        records = records.with_bytes_max(config.decompressed_message_bytes_max);
    }
    for (record, index) in records.zip(0..) {
        let record = record?;
        let timestamp = record.timestamp(header);
        found.max_timestamp = found.max_timestamp.max(timestamp);
        found.offsets_are_off |= record.offset_delta != index;
        let keyless = config.cleanup.compact && record.key.is_none();
        let message = if keyless {
            Some("Compacted topic cannot accept message without key".to_owned())
        } else {
            timestamp_error(header, timestamp, config, now_ms)
        };
        if let Some(message) = message {
            first_is_timestamp |= bad_count == 0 && !keyless;
            bad_count += 1;
            if bad.len() < BAD_RECORDS_MAX {
                bad.push(BadRecord { index, message });
            }
        }
    }
    match bad.first() {
        None => Ok(found),
        Some(_) if first_is_timestamp => Err(Refusal::BadTimestamps { records: bad }),
        Some(first) => Err(Refusal::BadRecords {
            count: bad_count,
            first: first.clone(),
            records: bad,
        }),
    }
}

/// As `LogValidator.validateTimestamp`, word for word where it speaks to the user.
fn timestamp_error(header: &BatchHeader, timestamp: i64, config: &LogConfig, now_ms: i64) -> Option<String> {
    if config.timestamp_type == TimestampType::LogAppendTime {
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
pub(super) fn rewrite(header: &BatchHeader, section: &[u8], codec: Codec, level: i32) -> Result<BytesMut, Refusal> {
    let mut builder = BatchBuilder::like(header).codec(codec);
    for (record, offset) in Records::new(section, header.records_count).zip(0..) {
        let record = record?;
        builder.append_record(offset, record.timestamp(header), &record);
    }
    Ok(builder.build(level)?)
}
