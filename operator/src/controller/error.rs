//! What a Kafka client is told when a request cannot be carried out.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::error::ErrorCode;

/// A Kafka error and what to say with it; the message is Kafka's own wherever Kafka has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// More than one request may be about.
pub(super) fn too_large() -> ApiError {
    ApiError::new(
        ErrorCode::PolicyViolation,
        "Unable to perform excessively large batch operation.",
    )
}

/// An error code and message as responses carry them.
pub(super) fn wire(result: &Result<(), ApiError>) -> (i16, Option<String>) {
    match result {
        Ok(()) => (ErrorCode::None as i16, None),
        Err(error) => (error.code as i16, Some(error.message.clone())),
    }
}
