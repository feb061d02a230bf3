//! Why a batch of a client is refused.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use thiserror::Error;
use weir_protocol::batch::BatchError;
use weir_protocol::compression::CompressionError;
use weir_protocol::error::ErrorCode;
use weir_protocol::record::{RecordError, WalkError};

/// A record that is the reason for which its batch is refused (KIP-467).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Which record of the batch, counted from 0.
    pub index: i32,
    /// What is wrong with it.
    pub message: String,
}

/// Why a batch is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// There is not exactly one batch.
    #[error("Produce requests must have exactly one record batch per partition")]
    NotOneBatch,
    /// Written in the format of magic 0 or 1, or an unknown one.
    #[error(
        "Produce requests are only allowed to contain record batches with magic version 2, not {0}"
    )]
    Magic(i8),
    /// The checksum does not match: the bytes were damaged on their way.
    #[error("Record batch is corrupted: {0}")]
    Corrupt(BatchError),
    /// Larger than `max.message.bytes`.
    #[error(
        "The record batch size is {size} bytes which exceeds the maximum configured value of {limit}"
    )]
    TooLarge {
        /// The batch's size in bytes, as received or as it would be written.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Larger than a segment.
    #[error(
        "The record batch size is {size} bytes which exceeds the maximum configured segment size of {limit}"
    )]
    LargerThanSegment {
        /// The batch's size in bytes.
        size: usize,
        /// The size of a segment in bytes.
        limit: usize,
    },
    /// Its records decompress to more than is looked into.
    #[error("The records of the batch take more than {limit} bytes when decompressed")]
    DecompressesTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Its records are not compressed as it says.
    #[error("The records of the batch cannot be decompressed: {0}")]
    Undecodable(CompressionError),
    /// A codec that does not exist.
    #[error("The compression type of the record batch is unknown")]
    UnknownCodec,
    /// zstd from a client that is too old to know it.
    #[error("Produce requests with version {0} are not allowed to use ZStandard compression")]
    ZstdTooEarly(i16),
    /// A header that contradicts itself, or what no client may write.
    #[error("{0}")]
    Invalid(String),
    /// Records that may not be in this topic.
    #[error("One or more records have been rejected due to {count} record errors in total, and only showing the first of them: {}", .first.message)]
    BadRecords {
        /// How many there are.
        count: usize,
        /// The first of them.
        first: BadRecord,
        /// All of them, up to a bound.
        records: Vec<BadRecord>,
    },
    /// Records whose timestamps may not be in this topic.
    #[error("One or more records have been rejected due to invalid timestamp")]
    BadTimestamps {
        /// The records, up to a bound.
        records: Vec<BadRecord>,
    },
}

impl Refusal {
    /// The code that Kafka answers with.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotOneBatch | Self::Magic(_) | Self::Invalid(_) | Self::BadRecords { .. } => {
                ErrorCode::InvalidRecord
            }
            Self::Corrupt(_) => ErrorCode::CorruptMessage,
            Self::TooLarge { .. } | Self::DecompressesTooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
            Self::ZstdTooEarly(_) => ErrorCode::UnsupportedCompressionType,
            // Of these Kafka's broker makes an error that it has no code for.
            Self::UnknownCodec | Self::Undecodable(_) => ErrorCode::UnknownServerError,
            Self::BadTimestamps { .. } => ErrorCode::InvalidTimestamp,
        }
    }

    /// Whether the answer says where the log begins: that it does in Kafka where the log's own
    /// checks refuse a batch, but for those of its size and checksum.
    pub fn tells_log_start(&self) -> bool {
        match self {
            Self::Invalid(_)
            | Self::BadRecords { .. }
            | Self::BadTimestamps { .. }
            | Self::UnknownCodec
            | Self::Undecodable(_) => true,
            Self::NotOneBatch
            | Self::Magic(_)
            | Self::Corrupt(_)
            | Self::TooLarge { .. }
            | Self::LargerThanSegment { .. }
            | Self::DecompressesTooLarge { .. }
            | Self::ZstdTooEarly(_) => false,
        }
    }

    /// The records that are to blame, for the answer's `record_errors`.
    pub fn bad_records(&self) -> &[BadRecord] {
        match self {
            Self::BadRecords { records, .. } | Self::BadTimestamps { records } => records,
            _ => &[],
        }
    }
}

impl From<BatchError> for Refusal {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Magic(magic) => Self::Magic(magic),
            // Kafka finds no batch where one does not end, and two where bytes follow it.
            BatchError::Incomplete { .. } => Self::NotOneBatch,
            // Sent again it would be the same: no error that makes clients try again.
            BatchError::Invalid(_) => Self::Invalid(error.to_string()),
            BatchError::Crc { .. } => Self::Corrupt(error),
        }
    }
}

impl From<CompressionError> for Refusal {
    fn from(error: CompressionError) -> Self {
        match error {
            CompressionError::TooLarge { limit } => Self::DecompressesTooLarge { limit },
            CompressionError::UnknownCodec => Self::UnknownCodec,
            CompressionError::Corrupt { .. } => Self::Undecodable(error),
        }
    }
}

impl From<WalkError> for Refusal {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Record(error) => error.into(),
            WalkError::Compression(error) => error.into(),
        }
    }
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        Self::Invalid(error.to_string())
    }
}
