//! Record batches (magic 2) as bytes. This module checks the header and patches the two fields that
//! a broker assigns in place. It leaves the records alone.
//!
//! Layout as in `DefaultRecordBatch.java`. The CRC covers everything from the attributes on, so the
//! base offset and the leader epoch can change without it. Nothing here allocates, and no index
//! leaves the given bytes.

use thiserror::Error;

use crate::types::{LeaderEpoch, ProducerEpoch, ProducerId};

/// Bytes before those that the length field counts: the base offset and the length itself.
pub const LOG_OVERHEAD: usize = 12;

/// Bytes of a whole batch header. The records follow it.
pub const HEADER_BYTES: usize = 61;

/// The only format that Kafka writes since version 4.0 (KIP-724).
pub const MAGIC: i8 = 2;

/// Where the bytes begin that the checksum of a batch covers.
pub const CHECKED_FROM: usize = ATTRIBUTES_AT;

const LEADER_EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;

/// How the records of a batch are compressed: the lowest three bits of its attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    #[default]
    None = 0,
    /// gzip.
    Gzip = 1,
    /// Snappy, in Java's (xerial) framing.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// Zstandard (KIP-110).
    Zstd = 4,
}

impl Codec {
    /// The codec with this id, if there is one.
    pub fn from_id(id: u8) -> Option<Self> {
        [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd]
            .into_iter()
            .find(|codec| *codec as u8 == id)
    }
}

/// What is wrong with the bytes of a batch.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("the batch is cut off: {needed} bytes are needed and {available} are there")]
    Incomplete {
        /// Bytes that are needed.
        needed: usize,
        /// Bytes that are there.
        available: usize,
    },
    /// Written in a format other than 2.
    #[error("magic {0} is not supported, only 2 is")]
    Magic(i8),
    /// A length, count or delta that is out of range.
    #[error("the batch header is invalid: {0}")]
    Invalid(&'static str),
    /// The checksum does not match the bytes.
    #[error("the CRC is {stored:#010x}, the bytes give {computed:#010x}")]
    Crc {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
}

/// A batch's header, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record; after compaction, of the record that was first when the
    /// batch was appended.
    pub base_offset: i64,
    /// Bytes after the length field.
    pub batch_length: i32,
    /// The epoch of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C from the attributes to the end.
    pub crc: u32,
    /// Codec, timestamp type, transactional, control and delete-horizon flags.
    pub attributes: i16,
    /// Last offset minus base offset.
    pub last_offset_delta: i32,
    /// The base of the records' timestamps; the delete horizon in a batch that has one.
    pub base_timestamp: i64,
    /// The largest timestamp of the records, or the append time.
    pub max_timestamp: i64,
    /// The idempotent producer, `-1` for none.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// The sequence number of the first record, `-1` for none.
    pub base_sequence: i32,
    /// Records in the batch; zero after compaction removed them all.
    pub records_count: i32,
}

/// `N` bytes from `at`, or `None` if the bytes end before that.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

impl BatchHeader {
    /// Parses the header at the beginning of `bytes`, which need not hold the records.
    ///
    /// # Errors
    /// [`BatchError::Incomplete`] when the bytes hold less than a header, else what is wrong with
    /// the header. This does not check the CRC.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        // Check the magic byte first: older formats have other fields after it and shorter headers.
        if let Some([magic]) = field::<1>(bytes, MAGIC_AT).map(|magic| magic.map(|byte| byte as i8))
            && magic != MAGIC
        {
            return Err(BatchError::Magic(magic));
        }
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Incomplete { needed: HEADER_BYTES, available: bytes.len() });
        };
        let i16_at = |at| field(header, at).map_or(0, i16::from_be_bytes);
        let i32_at = |at| field(header, at).map_or(0, i32::from_be_bytes);
        let i64_at = |at| field(header, at).map_or(0, i64::from_be_bytes);
        let parsed = Self {
            base_offset: i64_at(0),
            batch_length: i32_at(8),
            leader_epoch: LeaderEpoch(i32_at(LEADER_EPOCH_AT)),
            crc: i32_at(CRC_AT) as u32,
            attributes: i16_at(ATTRIBUTES_AT),
            last_offset_delta: i32_at(23),
            base_timestamp: i64_at(27),
            max_timestamp: i64_at(MAX_TIMESTAMP_AT),
            producer_id: ProducerId(i64_at(43)),
            producer_epoch: ProducerEpoch(i16_at(51)),
            base_sequence: i32_at(53),
            records_count: i32_at(57),
        };
        parsed.check()?;
        Ok(parsed)
    }

    fn check(&self) -> Result<(), BatchError> {
        if usize::try_from(self.batch_length)
            .map_or(true, |length| length < HEADER_BYTES - LOG_OVERHEAD)
        {
            return Err(BatchError::Invalid("its length is less than that of a header"));
        }
        if self.base_offset < 0
            || self.last_offset_delta < 0
            || self
                .base_offset
                .checked_add(i64::from(self.last_offset_delta))
                .is_none_or(|last| last == i64::MAX)
        {
            return Err(BatchError::Invalid("its offsets are out of range"));
        }
        if self.records_count < 0 {
            return Err(BatchError::Invalid("its record count is negative"));
        }
        Ok(())
    }

    /// The offset of the last record; after compaction, of the record that was last when the batch
    /// was appended.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// Bytes of the whole batch.
    pub fn size_bytes(&self) -> usize {
        LOG_OVERHEAD + usize::try_from(self.batch_length).unwrap_or(0)
    }

    /// The codec of the records; `None` for an unknown id.
    pub fn codec(&self) -> Option<Codec> {
        Codec::from_id((self.attributes & 0b111) as u8)
    }

    /// Whether the timestamp is the time of the append, not of the records' creation.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & 0b1000 != 0
    }

    /// Whether it belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & 0b1_0000 != 0
    }

    /// Whether it holds a control record, not data.
    pub fn is_control(&self) -> bool {
        self.attributes & 0b10_0000 != 0
    }

    /// The time from which compaction may remove the tombstones in it, if it has set one (KIP-534).
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & 0b100_0000 != 0).then_some(self.base_timestamp)
    }

    /// Whether an idempotent producer wrote it.
    pub fn has_producer(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// The sequence number of the last record. It wraps to 0 after `i32::MAX`
    /// (`DefaultRecordBatch.incrementSequence`).
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        i32::try_from(last % (i64::from(i32::MAX) + 1)).unwrap_or(0)
    }
}

/// The CRC-32C of a whole batch, from its attributes on.
fn computed_crc(batch: &[u8]) -> u32 {
    crc32c::crc32c(batch.get(ATTRIBUTES_AT..).unwrap_or_default())
}

/// Parses and checks the whole batch at the beginning of `bytes`, its checksum included.
///
/// # Errors
/// What is wrong with it.
pub fn checked(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let size = header.size_bytes();
    let batch =
        bytes.get(..size).ok_or(BatchError::Incomplete { needed: size, available: bytes.len() })?;
    let computed = computed_crc(batch);
    if computed != header.crc {
        return Err(BatchError::Crc { stored: header.crc, computed });
    }
    Ok(header)
}

fn put<const N: usize>(batch: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(target) = batch.get_mut(at..at + N) {
        target.copy_from_slice(&value);
    }
}

/// Sets what the leader assigns at append. Both fields lie outside the CRC.
pub fn set_offset_and_epoch(batch: &mut [u8], base_offset: i64, epoch: LeaderEpoch) {
    put(batch, 0, base_offset.to_be_bytes());
    put(batch, LEADER_EPOCH_AT, epoch.0.to_be_bytes());
}

/// Sets the timestamp type and the largest timestamp of a whole batch, and computes its CRC again.
pub fn set_max_timestamp(batch: &mut [u8], log_append_time: bool, max_timestamp: i64) {
    let attributes = field(batch, ATTRIBUTES_AT).map_or(0, i16::from_be_bytes);
    let attributes = if log_append_time { attributes | 0b1000 } else { attributes & !0b1000 };
    put(batch, ATTRIBUTES_AT, attributes.to_be_bytes());
    put(batch, MAX_TIMESTAMP_AT, max_timestamp.to_be_bytes());
    let crc = computed_crc(batch);
    put(batch, CRC_AT, crc.to_be_bytes());
}

/// An iterator over the consecutive batches in `bytes`.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
    failed: bool,
}

impl<'a> Batches<'a> {
    /// The batches in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0, failed: false }
    }

    /// The position of the next batch; after an error, the end of the last good one.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    /// A batch's header and all of its bytes. After an error the iterator ends.
    type Item = Result<(BatchHeader, &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.position..)?;
        if rest.is_empty() || self.failed {
            return None;
        }
        let found = BatchHeader::parse(rest).and_then(|header| {
            let size = header.size_bytes();
            rest.get(..size)
                .map(|batch| (header, batch))
                .ok_or(BatchError::Incomplete { needed: size, available: rest.len() })
        });
        match &found {
            Ok((header, _)) => self.position += header.size_bytes(),
            Err(_) => self.failed = true,
        }
        Some(found)
    }
}
