//! Errors for Kafka clients.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::error::ErrorCode;

/// A Kafka error and its message, which is Kafka's own wherever Kafka has one.
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

/// The error for a request that names or changes more than its limit.
pub(super) fn too_large() -> ApiError {
    ApiError::new(
        ErrorCode::PolicyViolation,
        "Unable to perform excessively large batch operation.",
    )
}

/// The error code and message as responses carry them.
pub(super) fn wire(result: &Result<(), ApiError>) -> (i16, Option<String>) {
    match result {
        Ok(()) => (ErrorCode::None as i16, None),
        Err(error) => (error.code as i16, Some(error.message.clone())),
    }
}
