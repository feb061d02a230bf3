//! What a batch from a client must satisfy before a leader appends it: Kafka's `LogValidator` and
//! the checks of `UnifiedLog.append` before it.
//!
//! Called by the produce API with the records of one partition, before the partition's writer takes
//! part. Pure: it knows the batch, the topic's settings and the time that it is told. Offsets, the
//! leader epoch and producer sequences come later, from the writer.
//!
//! With `record.validation=full`, the default, every record is read, as in Kafka, so that what lies
//! in a log can be read by its consumers, its header tells the truth about it, and lookups by time
//! and retention may believe that. What is compressed is decompressed piece by piece for that
//! ([`weir_protocol::record::walk`]), and thrown away.
//!
//! With `record.validation=header` a batch is judged by its header and its checksum, and its
//! records are read only where the header cannot tell:
//!
//! - it is compressed and the topic limits what a record may decompress to
//!   (`max.decompressed.message.bytes`);
//! - the topic is compacted, so every record needs a key;
//! - the topic has a codec of its own and the batch another, so it is written anew;
//! - timestamps are checked and the header leaves doubt: its timestamps are missing, out of order
//!   or out of bounds, or `message.timestamp.before.max.ms` is set, since no header tells the
//!   smallest timestamp. With Kafka's defaults and a truthful client this does not happen.
//!
//! Then a producer that writes a right checksum over records that do not parse, or over a wrong
//! largest timestamp, is not found out by the broker, but by the consumer.
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

/// A batch that is opened as a whole, now or by compaction later, may give this many times the
/// largest batch that is allowed, ...
const DECOMPRESSED_BATCHES_MAX: usize = 16;

/// ... and one that is only walked over this many times: it takes time then, and no memory. Both
/// ...
const WALKED_BATCHES_MAX: usize = 128;

/// ... where a limit below this one (Kafka's default for `max.message.bytes`) counts as this one:
/// clients fill batches by their compressed size.
const DECOMPRESSED_BASE_MIN: usize = 1_048_588;

/// What may be appended: batches whose checksums are right, of which only base offset and leader
/// epoch are still to be set, both outside the checksum.
#[derive(Debug)]
pub struct Prepared {
    /// The batches, one behind the other. A Produce request has one per partition.
    pub bytes: BytesMut,
    /// Their headers.
    pub headers: Vec<BatchHeader>,
    /// Who writes them.
    pub origin: Origin,
}

/// Who writes a batch (`AppendOrigin` in Apache Kafka): what is asked of its producer depends on
/// that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client, and what its transaction's coordinator was asked before.
    Client(Option<Guard>),
    /// A coordinator on this broker: for a producer, but not with its sequences.
    Coordinator,
    /// The end of a transaction.
    Marker(Marker),
}

/// What may be done for a request at most, where others wait for it: a byte that is decompressed is
/// one, a record that is read is as much as `EFFORT_OF_RECORD`. A few hundred bytes can hold a
/// hundred million of either.
#[derive(Debug)]
pub struct Effort(u64);

/// What reading a record costs, in bytes that are decompressed.
const EFFORT_OF_RECORD: u64 = 64;

impl Effort {
    /// Some ten milliseconds: more than what clients send takes, which fill a batch, or a request,
    /// up to a megabyte.
    pub fn of_a_moment() -> Self {
        Self(64 << 20)
    }

    /// As much as it takes.
    pub fn all() -> Self {
        Self(u64::MAX)
    }
}

/// Why records are not ready to be appended.
#[derive(Debug)]
pub enum NotReady {
    /// They may not be.
    Refused(Refusal),
    /// To say so takes more than it may. These are the records.
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

/// Judges the records that a Produce request of `version` has for one partition, and makes them
/// ready to be appended. `now_ms` is the time of the append.
///
/// # Errors
/// Why they may not be appended.
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

/// As [`validate`], with what is left of `effort`.
///
/// # Errors
/// Why they may not be appended, or that it takes longer to say so.
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
        match records::look(&header, &bytes, most.min(left_bytes), config, now_ms) {
            Ok((found, walked)) => {
                effort.0 = left.saturating_sub(walked);
                Some(found)
            }
            Err(Refusal::DecompressesTooLarge { limit }) if limit < most => {
                // What else is asked for is not even begun with.
                effort.0 = 0;
                return Err(NotReady::TakesLong(bytes));
            }
            Err(refusal) => {
                // As much as it may have taken.
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

/// The codec that a batch is written with, and its level.
pub(super) fn written_with(codec: Codec, config: &LogConfig) -> (Codec, i32) {
    match config.compression {
        Compression::Producer => (codec, default_level(codec)),
        Compression::Always { codec, level } => (codec, level),
    }
}

/// How many bytes the records of a batch may decompress to where they are held.
pub(super) fn decompressed_bytes_max(config: &LogConfig) -> usize {
    decompressed_base(config).saturating_mul(DECOMPRESSED_BATCHES_MAX)
}

/// How many they may decompress to in a batch that is appended.
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

/// What is checked of every batch, without its records; in Kafka's order.
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
    // Nobody need look into a batch that claims more records than there is room for.
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

/// Whether the records have to be read though only headers are validated: see the module's comment.
fn must_look(header: &BatchHeader, codec: Codec, config: &LogConfig, now_ms: i64) -> bool {
    // A client that calls its own time that of the append is told so record by record.
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
