//! Whether a broker serves.

use std::net::SocketAddr;
use std::time::Duration;

use weir_client::{Address, Connection, ConnectionSettings};
use weir_protocol::messages::ApiVersionsRequest;

/// The most time to connect, and for a serving broker's answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);

const SETTINGS: ConnectionSettings = ConnectionSettings {
    client_id: "weir-local",
    connect_max: ANSWER_MAX,
    send_max: ANSWER_MAX,
    response_bytes_max: 1 << 20,
};

/// Whether a broker answers at this address. An accepted connection is not enough: a broker accepts
/// connections before it serves.
pub(super) async fn broker_answers(address: SocketAddr) -> bool {
    let address = Address::new(address.ip().to_string(), address.port());
    let Ok(mut connection) = Connection::open(&address, None, SETTINGS).await else { return false };
    connection.call(0, &ApiVersionsRequest::default(), ANSWER_MAX).await.is_ok()
}
