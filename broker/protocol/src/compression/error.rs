//! Why a codec refuses bytes.

use thiserror::Error;

use crate::batch::Codec;

/// Why bytes cannot be decompressed, or compressed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CompressionError {
    /// They would be larger than the caller allows.
    #[error("more than {limit} bytes when decompressed")]
    TooLarge {
        /// The caller's limit in bytes.
        limit: usize,
    },
    /// The batch names a codec that there is not.
    #[error("the codec is unknown")]
    UnknownCodec,
    /// They are not what the codec writes.
    #[error("{codec:?}: {reason}")]
    Corrupt {
        /// The codec.
        codec: Codec,
        /// What its decoder says.
        reason: String,
    },
}

impl CompressionError {
    pub(super) fn corrupt(codec: Codec, reason: impl ToString) -> Self {
        Self::Corrupt { codec, reason: reason.to_string() }
    }
}
