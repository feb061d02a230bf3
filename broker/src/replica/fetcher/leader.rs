//! The connection to a leader, and why a session with it ended.

use std::sync::Arc;
use std::time::Duration;

use weir_client::{Address, ClientError, Connection, ConnectionSettings};
use weir_protocol::error::ErrorCode;
use weir_protocol::primitive::DecodeError;
use weir_protocol::types::BrokerId;

use super::context::FetcherContext;
use crate::peer_addresses::NoAddress;

/// The name and the bounds of a follower's connections.
const SETTINGS: ConnectionSettings = ConnectionSettings {
    client_id: "replica",
    connect_max: Duration::from_secs(5),
    send_max: Duration::from_secs(5),
    // The largest fetch, and one batch that is larger than that.
    response_bytes_max: 1 << 30,
};

/// The longest time for an answer, beyond the requested wait.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    NoAddress(#[from] NoAddress),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the leader answers {}", .0.name())]
    Refused(ErrorCode),
    #[error("the leader gives no session")]
    NoSession,
}

impl From<DecodeError> for SessionError {
    fn from(error: DecodeError) -> Self {
        Self::Client(error.into())
    }
}

/// Connects to a leader, on the listener that brokers use among themselves. Returns its address
/// too.
///
/// # Errors
/// When the metadata has no address of it, or none of its addresses accepts a connection.
pub(super) async fn connect(
    context: &FetcherContext,
    leader: BrokerId,
) -> Result<(Connection, Address), SessionError> {
    let address = context.peers.of(leader)?;
    let identities = context.peers.identities().map(Arc::as_ref);
    Ok((Connection::open(&address, identities, SETTINGS).await?, address))
}
