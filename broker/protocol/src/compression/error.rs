//! The errors of the codecs.

use thiserror::Error;

use crate::batch::Codec;

/// Why bytes cannot be decompressed or compressed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CompressionError {
    /// The output would exceed the caller's limit.
    #[error("more than {limit} bytes when decompressed")]
    TooLarge {
        /// The caller's limit in bytes.
        limit: usize,
    },
    /// The batch names a codec that does not exist.
    #[error("the codec is unknown")]
    UnknownCodec,
    /// The bytes are not valid for the codec.
    #[error("{codec:?}: {reason}")]
    Corrupt {
        /// The codec.
        codec: Codec,
        /// What its decoder reports.
        reason: String,
    },
}

impl CompressionError {
    pub(super) fn corrupt(codec: Codec, reason: impl ToString) -> Self {
        Self::Corrupt { codec, reason: reason.to_string() }
    }
}
