//! Whether a broker serves.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Whether a broker answers at this address. An accepted connection is not enough: a broker accepts
/// connections before it serves.
pub(super) async fn broker_answers(address: SocketAddr) -> bool {
    /// The most time for a serving broker's answer.
    const ANSWER_MAX: Duration = Duration::from_secs(1);
    /// An ApiVersions request, version 0: its length, key 18, version, correlation id, no client
    /// id.
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let ask = async {
        let mut connection = tokio::net::TcpStream::connect(address).await?;
        connection.write_all(&REQUEST).await?;
        connection.read_u32().await
    };
    tokio::time::timeout(ANSWER_MAX, ask).await.is_ok_and(|answer| answer.is_ok())
}
