//! The connection to a leader, and why a session with it ended.

use std::time::Duration;

use weir_client::{Address, ClientError, Connection, ConnectionSettings};
use weir_protocol::error::ErrorCode;
use weir_protocol::primitive::DecodeError;
use weir_protocol::types::BrokerId;

use super::context::FetcherContext;

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
    #[error("the metadata has no address of the leader on the listener {0}")]
    NoAddress(String),
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
    let listener = &context.listener;
    let address = {
        let image = context.metadata.load();
        let found = image.brokers.get(&leader).and_then(|leader| leader.endpoint(listener));
        let endpoint = found.ok_or_else(|| SessionError::NoAddress(listener.clone()))?;
        Address::new(endpoint.host.clone(), endpoint.port)
    };
    Ok((Connection::open(&address, SETTINGS).await?, address))
}
