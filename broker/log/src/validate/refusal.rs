//! The reasons to refuse a client's batch.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use thiserror::Error;
use weir_protocol::batch::BatchError;
use weir_protocol::compression::CompressionError;
use weir_protocol::error::ErrorCode;
use weir_protocol::record::{RecordError, WalkError};

/// A record for which its batch is refused (KIP-467).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// The index of the record in the batch, from 0.
    pub index: i32,
    /// The reason.
    pub message: String,
}

/// Why a batch is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// There is not exactly one batch.
    #[error("Produce requests must have exactly one record batch per partition")]
    NotOneBatch,
    /// The format is magic 0 or 1, or an unknown one.
    #[error(
        "Produce requests are only allowed to contain record batches with magic version 2, not {0}"
    )]
    Magic(i8),
    /// The checksum does not match: the bytes were damaged on the way.
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
    /// Its records decompress to more than the limit.
    #[error("The records of the batch take more than {limit} bytes when decompressed")]
    DecompressesTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Its records cannot be decompressed with its codec.
    #[error("The records of the batch cannot be decompressed: {0}")]
    Undecodable(CompressionError),
    /// An unknown codec.
    #[error("The compression type of the record batch is unknown")]
    UnknownCodec,
    /// zstd in a request version that does not allow it.
    #[error("Produce requests with version {0} are not allowed to use ZStandard compression")]
    ZstdTooEarly(i16),
    /// An inconsistent header, or content that no client may write.
    #[error("{0}")]
    Invalid(String),
    /// Records that are not allowed in this topic.
    #[error("One or more records have been rejected due to {count} record errors in total, and only showing the first of them: {}", .first.message)]
    BadRecords {
        /// How many there are.
        count: usize,
        /// The first of them.
        first: BadRecord,
        /// All of them, up to `BAD_RECORDS_MAX`.
        records: Vec<BadRecord>,
    },
    /// Records whose timestamps are not allowed in this topic.
    #[error("One or more records have been rejected due to invalid timestamp")]
    BadTimestamps {
        /// The records, up to `BAD_RECORDS_MAX`.
        records: Vec<BadRecord>,
    },
}

impl Refusal {
    /// Returns Kafka's error code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotOneBatch | Self::Magic(_) | Self::Invalid(_) | Self::BadRecords { .. } => {
                ErrorCode::InvalidRecord
            }
            Self::Corrupt(_) => ErrorCode::CorruptMessage,
            Self::TooLarge { .. } | Self::DecompressesTooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
            Self::ZstdTooEarly(_) => ErrorCode::UnsupportedCompressionType,
            // Kafka's broker throws an error without a code of its own for these.
            Self::UnknownCodec | Self::Undecodable(_) => ErrorCode::UnknownServerError,
            Self::BadTimestamps { .. } => ErrorCode::InvalidTimestamp,
        }
    }

    /// Returns whether the answer contains the log start offset. In Kafka it does when the log's
    /// own checks refuse a batch, except the checks of size and checksum.
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

    /// Returns the bad records, for the answer's `record_errors`.
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
            // Kafka finds no batch if the bytes end too early, and two if bytes follow.
            BatchError::Incomplete { .. } => Self::NotOneBatch,
            // A retry would fail again, so the error must not be retriable.
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
