//! Writes batches: for recompression, compaction, records of the broker itself, and tests.

use bytes::{BufMut, BytesMut};

use super::{Headers, Record};
use crate::batch::{self, BatchHeader, Codec, HEADER_BYTES, LOG_OVERHEAD, MAGIC};
use crate::compression::{self, CompressionError};
use crate::types::{LeaderEpoch, ProducerEpoch, ProducerId};

/// The attribute bits of the codec, and the one that makes the base timestamp a delete horizon.
const CODEC_BITS: i16 = 0b111;
const DELETE_HORIZON_BIT: i16 = 0b100_0000;

/// The bits of a batch that belongs to a transaction, and of one with a control record.
const TRANSACTIONAL_BIT: i16 = 0b1_0000;
const CONTROL_BIT: i16 = 0b10_0000;

/// The timestamp of a record without one (`RecordBatch.NO_TIMESTAMP`).
const NO_TIMESTAMP: i64 = -1;

/// A batch that is being written.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    header: BatchHeader,
    base_timestamp: Option<i64>,
    keeps_last_offset: bool,
    section: Vec<u8>,
}

impl BatchBuilder {
    /// An empty, uncompressed batch without a producer. Its first record gets the offset
    /// `base_offset`.
    pub fn new(base_offset: i64) -> Self {
        let header = BatchHeader {
            base_offset,
            batch_length: 0,
            leader_epoch: LeaderEpoch::UNKNOWN,
            crc: 0,
            attributes: 0,
            last_offset_delta: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer_id: ProducerId(-1),
            producer_epoch: ProducerEpoch(-1),
            base_sequence: -1,
            records_count: 0,
        };
        Self { header, base_timestamp: None, keeps_last_offset: false, section: Vec::new() }
    }

    /// An empty batch with the attributes, producer, epoch and offsets of `original`; the caller
    /// appends the retained records. It keeps a delete horizon, and the max timestamp if that is an
    /// append time. Otherwise the records set the max timestamp
    /// (`MemoryRecords.buildRetainedRecordsInto`).
    pub fn like(original: &BatchHeader) -> Self {
        let base_timestamp = original.delete_horizon_ms();
        let max_timestamp =
            if original.is_log_append_time() { original.max_timestamp } else { NO_TIMESTAMP };
        let header = BatchHeader { max_timestamp, records_count: 0, ..*original };
        Self { header, base_timestamp, keeps_last_offset: true, section: Vec::new() }
    }

    /// Compresses the records with `codec`.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.header.attributes = self.header.attributes & !CODEC_BITS | i16::from(codec as u8);
        self
    }

    /// Sets the idempotent producer of the batch, and its first sequence number.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> Self {
        (self.header.producer_id, self.header.producer_epoch, self.header.base_sequence) =
            (id, epoch, base_sequence);
        self
    }

    /// Marks the batch as part of a transaction of its producer.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header.attributes |= TRANSACTIONAL_BIT;
        self
    }

    /// Marks the batch as holding a control record.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.header.attributes |= CONTROL_BIT;
        self
    }

    /// Sets the time from which the tombstones of the batch may be removed (KIP-534). Call it
    /// before the first record.
    #[must_use]
    pub fn delete_horizon(mut self, at_ms: i64) -> Self {
        self.header.attributes |= DELETE_HORIZON_BIT;
        self.base_timestamp = Some(at_ms);
        self
    }

    /// Appends a record. Offsets must ascend and lie within `i32::MAX` of the base offset.
    pub fn append<'a>(
        &mut self,
        offset: i64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) {
        let mut bytes = Vec::new();
        let mut count = 0;
        for (key, value) in headers {
            put_nullable(&mut bytes, Some(key));
            put_nullable(&mut bytes, value);
            count += 1;
        }
        self.push(offset, timestamp, key, value, Headers { count, bytes: &bytes });
    }

    /// Appends a record of another batch, under this offset and timestamp.
    pub fn append_record(&mut self, offset: i64, timestamp: i64, record: &Record<'_>) {
        self.push(offset, timestamp, record.key, record.value, record.headers);
    }

    fn push(
        &mut self,
        offset: i64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers<'_>,
    ) {
        let base_timestamp = *self.base_timestamp.get_or_insert(timestamp);
        let offset_delta = offset.saturating_sub(self.header.base_offset);
        let mut fixed = [0; 21];
        let mut end = 1;
        for number in [timestamp.wrapping_sub(base_timestamp), offset_delta] {
            end += encode(number, fixed.get_mut(end..).unwrap_or_default());
        }
        let fixed = fixed.get(..end).unwrap_or_default();
        let length = fixed.len()
            + nullable_size(key)
            + nullable_size(value)
            + varint_size(i64::from(headers.count))
            + headers.bytes.len();
        put_varint(&mut self.section, length as i64);
        self.section.extend_from_slice(fixed);
        put_nullable(&mut self.section, key);
        put_nullable(&mut self.section, value);
        put_varint(&mut self.section, i64::from(headers.count));
        self.section.extend_from_slice(headers.bytes);

        self.header.records_count += 1;
        if !self.header.is_log_append_time() {
            self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        }
        if !self.keeps_last_offset {
            self.header.last_offset_delta = i32::try_from(offset_delta).unwrap_or(i32::MAX);
        }
    }

    /// The number of records so far.
    pub fn records_count(&self) -> i32 {
        self.header.records_count
    }

    /// The finished batch: header, records and checksum. The codec defines the range of `level`
    /// ([`compression::default_level`]).
    ///
    /// # Errors
    /// When its codec is unknown or fails, or the batch exceeds the largest possible one.
    pub fn build(mut self, level: i32) -> Result<BytesMut, CompressionError> {
        let codec = self.header.codec().ok_or(CompressionError::UnknownCodec)?;
        let records = compression::compress(codec, level, &self.section)?;
        self.header.base_timestamp = self.base_timestamp.unwrap_or(NO_TIMESTAMP);
        write(&self.header, &records)
    }

    /// A batch from which compaction removed every record. The log keeps it because its header
    /// holds the last sequence number of a producer. It is uncompressed, without records or a
    /// delete horizon, and otherwise unchanged (`DefaultRecordBatch.writeEmptyHeader`).
    pub fn emptied(original: &BatchHeader) -> BytesMut {
        let attributes = original.attributes & !(CODEC_BITS | DELETE_HORIZON_BIT);
        let header =
            BatchHeader { attributes, base_timestamp: NO_TIMESTAMP, records_count: 0, ..*original };
        write(&header, &[]).unwrap_or_default()
    }
}

fn write(header: &BatchHeader, records: &[u8]) -> Result<BytesMut, CompressionError> {
    let size = HEADER_BYTES + records.len();
    let too_large = CompressionError::TooLarge { limit: i32::MAX as usize };
    let batch_length = i32::try_from(size - LOG_OVERHEAD).map_err(|_| too_large)?;
    let mut bytes = BytesMut::with_capacity(size);
    bytes.put_i64(header.base_offset);
    bytes.put_i32(batch_length);
    bytes.put_i32(header.leader_epoch.0);
    bytes.put_i8(MAGIC);
    bytes.put_u32(0);
    bytes.put_i16(header.attributes);
    bytes.put_i32(header.last_offset_delta);
    bytes.put_i64(header.base_timestamp);
    bytes.put_i64(header.max_timestamp);
    bytes.put_i64(header.producer_id.0);
    bytes.put_i16(header.producer_epoch.0);
    bytes.put_i32(header.base_sequence);
    bytes.put_i32(header.records_count);
    bytes.put_slice(records);
    // This call computes the checksum; the two fields have these values already.
    batch::set_max_timestamp(&mut bytes, header.is_log_append_time(), header.max_timestamp);
    Ok(bytes)
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn varint_size(value: i64) -> usize {
    let bits = 64 - zigzag(value).leading_zeros() as usize;
    bits.div_ceil(7).max(1)
}

/// Writes a zigzag integer to the beginning of `target` and returns the number of bytes, ten at
/// most.
fn encode(value: i64, target: &mut [u8]) -> usize {
    let mut rest = zigzag(value);
    let size = varint_size(value);
    for (index, byte) in target.iter_mut().take(size).enumerate() {
        let more = if index + 1 < size { 0x80 } else { 0 };
        *byte = (rest & 0x7f) as u8 | more;
        rest >>= 7;
    }
    size
}

fn put_varint(target: &mut Vec<u8>, value: i64) {
    let mut bytes = [0; 10];
    let size = encode(value, &mut bytes);
    target.extend_from_slice(bytes.get(..size).unwrap_or_default());
}

fn nullable_size(content: Option<&[u8]>) -> usize {
    content.map_or(1, |content| varint_size(content.len() as i64) + content.len())
}

fn put_nullable(target: &mut Vec<u8>, content: Option<&[u8]>) {
    put_varint(target, content.map_or(-1, |content| content.len() as i64));
    target.extend_from_slice(content.unwrap_or_default());
}
