//! Validation of a client's batch before a leader appends it: Kafka's `LogValidator` and the checks
//! of `UnifiedLog.append` before it.
//!
//! The produce API calls it with the records of one partition, before the partition's writer takes
//! part. It is pure: it knows the batch, the topic's settings and the time that the caller passes.
//! The writer adds offsets and the leader epoch later, and checks producer sequences.
//!
//! With `record.validation=full`, the default, every record is read, as in Kafka. So consumers can
//! read what is in a log, and its header is true, so that lookups by time and retention can rely on
//! it. A compressed batch is decompressed piece by piece ([`weir_protocol::record::walk`]); the
//! pieces are dropped.
//!
//! With `record.validation=header`, only the header and the checksum of a batch are checked. Its
//! records are read only in these cases:
//!
//! - it is compressed and the topic limits the decompressed size of a record
//!   (`max.decompressed.message.bytes`);
//! - the topic is compacted, so every record needs a key;
//! - the topic has another codec than the batch, so the batch is rewritten;
//! - timestamps are checked and the header leaves doubt: its timestamps are missing, out of order
//!   or out of bounds, or `message.timestamp.before.max.ms` is set, because no header has the
//!   smallest timestamp. With Kafka's defaults and a truthful client this does not happen.
//!
//! Then a producer may write a valid checksum over records that do not parse, or over a wrong
//! largest timestamp. The consumer finds out, and the broker does not.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::BytesMut;
use weir_protocol::batch::{self, BatchError, BatchHeader, Codec};
use weir_protocol::compression::{CompressionError, default_level};
use weir_protocol::record::{self};

use super::producers::{Guard, Marker};
use super::{Compression, LogConfig, RecordValidation, TimestampType};

mod records;
mod refusal;

use self::records::allows;
pub use self::refusal::{BadRecord, Refusal};

/// The first version of Produce whose batches may be compressed with zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;

/// The decompression limit of a batch that is held in memory as a whole, now or by a later
/// compaction. It is a multiple of the largest allowed batch.
const DECOMPRESSED_BATCHES_MAX: usize = 16;

/// The limit of a batch that is only walked over, in the same multiples: that takes time, but no
/// memory.
const WALKED_BATCHES_MAX: usize = 128;

/// The smallest base of both multiples (Kafka's default for `max.message.bytes`). Clients fill
/// batches by their compressed size.
const DECOMPRESSED_BASE_MIN: usize = 1_048_588;

/// Batches ready to be appended. Their checksums are valid. Only base offset and leader epoch are
/// still to be set, both outside the checksum.
#[derive(Debug)]
pub struct Prepared {
    /// The batches, one after the other. A Produce request has one per partition.
    pub bytes: BytesMut,
    /// Their headers.
    pub headers: Vec<BatchHeader>,
    /// The author of the batches.
    pub origin: Origin,
}

/// The author of a batch (`AppendOrigin` in Apache Kafka), which decides how its producer is
/// checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client, with the guard of its transaction's verification, if there was one.
    Client(Option<Guard>),
    /// A coordinator on this broker: it writes for a producer, but without the producer's
    /// sequences.
    Coordinator,
    /// The marker at the end of a transaction.
    Marker(Marker),
}

/// The work that validation may do for a request while others wait for the thread. A decompressed
/// byte counts 1, a record `EFFORT_OF_RECORD`. A few hundred bytes can hold a hundred million of
/// either.
#[derive(Debug)]
pub struct Effort(u64);

/// The cost of one record, in decompressed bytes.
const EFFORT_OF_RECORD: u64 = 64;

impl Effort {
    /// Some ten milliseconds. Usual requests need less: clients fill a batch, or a request, up to a
    /// megabyte.
    pub fn of_a_moment() -> Self {
        Self(64 << 20)
    }

    /// No limit.
    pub fn all() -> Self {
        Self(u64::MAX)
    }
}

/// Why records are not ready to be appended.
#[derive(Debug)]
pub enum NotReady {
    /// They are invalid.
    Refused(Refusal),
    /// The validation needs more effort than is left. Returns the records.
    TakesLong(BytesMut),
}

impl From<Refusal> for NotReady {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<BatchError> for NotReady {
    fn from(error: BatchError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<CompressionError> for NotReady {
    fn from(error: CompressionError) -> Self {
        Self::Refused(error.into())
    }
}

/// Validates the records of a Produce request of `version` for one partition, and prepares them for
/// the append. `now_ms` is the time of the append.
///
/// # Errors
/// The reason why they may not be appended.
pub fn validate(
    bytes: BytesMut,
    config: &LogConfig,
    version: i16,
    now_ms: i64,
) -> Result<Prepared, Refusal> {
    match validate_within(bytes, config, version, now_ms, &mut Effort::all()) {
        Ok(prepared) => Ok(prepared),
        Err(NotReady::Refused(refusal)) => Err(refusal),
        Err(NotReady::TakesLong(bytes)) => {
            Err(Refusal::TooLarge { size: bytes.len(), limit: config.message_bytes_max as usize })
        }
    }
}

/// Does the same as [`validate`] within the remaining `effort`.
///
/// # Errors
/// The reason why they may not be appended, or that the effort does not suffice.
pub fn validate_within(
    mut bytes: BytesMut,
    config: &LogConfig,
    version: i16,
    now_ms: i64,
    effort: &mut Effort,
) -> Result<Prepared, NotReady> {
    let header = check_batch(&bytes, config, version)?;
    let codec = header.codec().ok_or(Refusal::UnknownCodec)?;
    let (target, level) = written_with(codec, config);
    let found = if config.record_validation == RecordValidation::Full
        || must_look(&header, codec, config, now_ms)
    {
        let of_records = u64::from(header.records_count.unsigned_abs()) * EFFORT_OF_RECORD;
        let Some(left) = effort.0.checked_sub(of_records) else {
            return Err(NotReady::TakesLong(bytes));
        };
        let (most, left_bytes) =
            (walked_bytes_max(&header, config), usize::try_from(left).unwrap_or(usize::MAX));
        match records::inspect_records(&header, &bytes, most.min(left_bytes), config, now_ms) {
            Ok((found, walked)) => {
                effort.0 = left.saturating_sub(walked);
                Some(found)
            }
            Err(Refusal::DecompressesTooLarge { limit }) if limit < most => {
                // The remaining batches of the request must not even begin.
                effort.0 = 0;
                return Err(NotReady::TakesLong(bytes));
            }
            Err(refusal) => {
                // The validation may have used that much.
                effort.0 = left.saturating_sub(most as u64);
                return Err(refusal.into());
            }
        }
    } else {
        None
    };
    if target != codec || found.is_some_and(|found| found.offsets_are_off) {
        let section = record::section(&header, &bytes, decompressed_bytes_max(config))?;
        bytes = records::rewrite(&header, &section, target, level)?;
        check_size(bytes.len(), config)?;
    }
    check_fits_segment(bytes.len(), config)?;
    let log_append_time = config.timestamp_type == TimestampType::LogAppendTime;
    let max_timestamp = match found {
        _ if log_append_time => now_ms,
        Some(found) => found.max_timestamp,
        None => header.max_timestamp,
    };
    if header.is_log_append_time() != log_append_time || header.max_timestamp != max_timestamp {
        batch::set_max_timestamp(&mut bytes, log_append_time, max_timestamp);
    }
    let header = BatchHeader::parse(&bytes)?;
    Ok(Prepared { bytes, headers: vec![header], origin: Origin::Client(None) })
}

/// Returns the codec and the level with which a batch is written.
pub(super) fn written_with(codec: Codec, config: &LogConfig) -> (Codec, i32) {
    match config.compression {
        Compression::Producer => (codec, default_level(codec)),
        Compression::Always { codec, level } => (codec, level),
    }
}

/// Returns the most bytes to which the records of a batch may decompress if they are held in
/// memory.
pub(super) fn decompressed_bytes_max(config: &LogConfig) -> usize {
    decompressed_base(config).saturating_mul(DECOMPRESSED_BATCHES_MAX)
}

/// Returns the most bytes to which the records of an appended batch may decompress.
fn walked_bytes_max(header: &BatchHeader, config: &LogConfig) -> usize {
    let is_held = config.cleanup.compact
        || header.codec().is_some_and(|codec| written_with(codec, config).0 != codec);
    match is_held {
        true => decompressed_bytes_max(config),
        false => decompressed_base(config).saturating_mul(WALKED_BATCHES_MAX),
    }
}

fn decompressed_base(config: &LogConfig) -> usize {
    (config.message_bytes_max as usize).max(DECOMPRESSED_BASE_MIN)
}

/// Bytes of the smallest record: its length, attributes, timestamp and offset, no key, no value, no
/// headers, a byte each.
const RECORD_BYTES_MIN: u64 = 7;

/// Checks a batch without its records, in Kafka's order.
fn check_batch(bytes: &[u8], config: &LogConfig, version: i16) -> Result<BatchHeader, Refusal> {
    let header = BatchHeader::parse(bytes)?;
    if header.size_bytes() != bytes.len() {
        return Err(Refusal::NotOneBatch);
    }
    if header.codec() == Some(Codec::Zstd) && version < ZSTD_SINCE {
        return Err(Refusal::ZstdTooEarly(version));
    }
    let invalid = |reason: String| Err(Refusal::Invalid(reason));
    if header.base_offset != 0 {
        return invalid(format!(
            "The baseOffset of the record batch should be 0, but it is {}",
            header.base_offset
        ));
    }
    check_size(bytes.len(), config)?;
    batch::checked(bytes)?;
    let codec = header.codec().ok_or(Refusal::UnknownCodec)?;
    if header.records_count == 0 {
        return invalid("Invalid reported count for record batch: 0".to_owned());
    }
    if i64::from(header.records_count) != header.next_offset() {
        return invalid(format!(
            "Inconsistent batch offset range [0, {}] and count of records {}",
            header.last_offset(),
            header.records_count
        ));
    }
    // A batch cannot hold more records than it has bytes for, so it is refused without being read.
    let room = match codec {
        Codec::None => bytes.len().saturating_sub(batch::HEADER_BYTES),
        _ => walked_bytes_max(&header, config),
    };
    if u64::from(header.records_count.unsigned_abs()) * RECORD_BYTES_MIN > room as u64 {
        return invalid(format!("{} records cannot be in {room} bytes", header.records_count));
    }
    if header.is_control() {
        return invalid("Clients are not allowed to write control records".to_owned());
    }
    if header.has_producer() && header.base_sequence < 0 {
        return invalid(format!(
            "Invalid sequence number {} in record batch with producerId {}",
            header.base_sequence, header.producer_id
        ));
    }
    if header.is_transactional() && !header.has_producer() {
        return invalid("Transactional records need a producer id".to_owned());
    }
    Ok(header)
}

fn check_size(size: usize, config: &LogConfig) -> Result<(), Refusal> {
    let limit = config.message_bytes_max as usize;
    if size > limit { Err(Refusal::TooLarge { size, limit }) } else { Ok(()) }
}

fn check_fits_segment(size: usize, config: &LogConfig) -> Result<(), Refusal> {
    let limit = config.segment_bytes as usize;
    if size > limit {
        return Err(Refusal::LargerThanSegment { size, limit });
    }
    Ok(())
}

/// Returns whether the records must be read although only headers are validated: see the module's
/// comment.
fn must_look(header: &BatchHeader, codec: Codec, config: &LogConfig, now_ms: i64) -> bool {
    // A client that claims LogAppendTime gets an error for each record.
    let limited = codec != Codec::None && config.limits_decompressed_records();
    if limited
        || config.cleanup.compact
        || header.is_log_append_time()
        || written_with(codec, config).0 != codec
    {
        return true;
    }
    let (base, max) = (header.base_timestamp, header.max_timestamp);
    let in_order = base >= 0 && max >= base;
    let header_tells = in_order
        && config.timestamp_before_ms_max == i64::MAX
        && allows(config, base, now_ms)
        && allows(config, max, now_ms);
    config.timestamp_type == TimestampType::CreateTime && !header_tells
}

#[cfg(test)]
mod tests;
