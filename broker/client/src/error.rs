//! Why a request to a broker failed.

use std::io;
use std::time::Duration;

use weir_protocol::primitive::{DecodeError, EncodeError};

use crate::Address;

/// Why a request to a broker failed. The connection is not usable afterwards.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The host's name was not resolved, or none of its addresses accepts a connection.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// Where to.
        address: Address,
        /// Why; `TimedOut` if an address did not answer in time.
        error: io::Error,
    },
    /// No connection of the pool became free.
    #[error("no connection became free within {} ms", .0.as_millis())]
    Busy(Duration),
    /// The peer did not take the request.
    #[error("the request was not sent within {} ms", .0.as_millis())]
    NotSent(Duration),
    /// The peer did not answer. It may have handled the request all the same.
    #[error("no answer within {} ms", .0.as_millis())]
    NoAnswer(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// The response is longer than the caller's limit.
    #[error("a response of {length} bytes is longer than the limit of {limit}")]
    TooLong {
        /// The length that the peer claims.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A response to another request than the oldest one without a response, or to none.
    #[error("a response to another request")]
    Unexpected,
    /// The request cannot be encoded in this version.
    #[error("cannot encode the request: {0}")]
    Encode(#[from] EncodeError),
    /// The bytes of the response are not valid.
    #[error("cannot decode the response: {0}")]
    Decode(#[from] DecodeError),
}

impl ClientError {
    /// Whether the peer closed or reset the connection. A request that may be repeated can go out
    /// again on a new one.
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Broken(_))
    }

    /// Whether the host refuses connections: no process listens on the port. False if one of its
    /// addresses did not answer in time.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Connect { error, .. } => error.kind() == io::ErrorKind::ConnectionRefused,
            _ => false,
        }
    }
}
