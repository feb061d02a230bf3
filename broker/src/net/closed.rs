//! Why a connection ends.

use std::io;

use tracing::Span;

use super::tls::Refused;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    /// The client has closed the connection, which is no fault.
    #[error("the client closed the connection")]
    ByClient,
    /// A request failed that has no response, or whose response cannot be encoded.
    #[error("a request failed that has no response to say so")]
    Unanswerable,
    /// The broker is stopping, and all requests are answered.
    #[error("the broker stops")]
    Stopping,
    /// No bytes came for `connections.max.idle.ms`, or a frame stalled.
    #[error("idle for too long")]
    Idle,
    /// A frame came so slowly that others waited for its room.
    #[error("a request came too slowly, and others waited for its memory")]
    Slow,
    /// An answer was read so slowly that others waited for its room.
    #[error("an answer was read too slowly, and others waited for its memory")]
    Unread,
    /// There was no room for a frame for `connections.max.idle.ms`.
    #[error("there was no memory for a request for too long")]
    NoRoom,
    /// All places of nodes are taken.
    #[error("this broker has its most connections of nodes of the cluster")]
    Full,
    /// The client did not get through the handshake of TLS.
    #[error(transparent)]
    Handshake(#[from] Refused),
    /// The client did not log in.
    #[error("the client did not log in: {0}")]
    Login(String),
    /// The user or the password by which the client has logged in is no longer good.
    #[error("its login is no longer good: the user or the password is gone")]
    Revoked,
    /// The client speaks TLS, and the listener does not.
    #[error(
        "the client speaks TLS, and this listener does not: is security.protocol wrong at the client?"
    )]
    TlsOnPlain,
    /// The bytes are no request that can be answered. The span has what is known of the request.
    #[error("{0}")]
    BadRequest(String, Span),
    /// An I/O error of the socket.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Closed {
    /// The reason why a connection ends that cannot be written to.
    pub(super) fn by_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::QuotaExceeded => Self::Unread,
            _ => Self::Io(error),
        }
    }
}
