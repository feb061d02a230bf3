//! The end of a connection whose client is still to read why.

use std::io;
use std::time::Duration;

use rustix::net::Shutdown;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest time for the client to take the reason.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// The most bytes that are read and dropped meanwhile. Bytes that nobody reads would make the
/// kernel reset the connection, and the client would not see the reason.
const FAREWELL_BYTES_MAX: usize = 64 * 1024;

/// Ends what this side sends, and lets the client read it. The client may have gone.
pub(super) async fn farewell(socket: &TcpStream) {
    let _ = timeout(FAREWELL_MAX, drained(socket)).await;
}

async fn drained(socket: &TcpStream) -> io::Result<()> {
    rustix::net::shutdown(socket, Shutdown::Write)?;
    let (mut dropped, mut bytes) = (0, [0; 1024]);
    while dropped < FAREWELL_BYTES_MAX {
        socket.readable().await?;
        match socket.try_read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => dropped += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
