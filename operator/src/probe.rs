//! Whether a process is still there, asked of its host.
//!
//! A host answers for a port on which nobody listens any more at once, so a broker that was killed
//! is told from one whose connection broke in a round trip. Only a hint: a host that says nothing,
//! or a firewall that answers in its place, costs time or a change of leaders, never a record.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::net::TcpStream;

/// How long to wait for the answer. After that the broker's session decides.
const ANSWER_MAX: Duration = Duration::from_millis(100);

/// How often to ask: a process closes its streams a moment before or after it closes its listeners.
const PAUSE: Duration = Duration::from_millis(2);
const TRIES: u32 = 10;

/// Whether the host says that nobody listens on this port.
pub(crate) async fn nobody_listens(host: &str, port: u16) -> bool {
    for _ in 0..TRIES {
        match tokio::time::timeout(ANSWER_MAX, TcpStream::connect((host, port))).await {
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return true,
            // The kernel may still take connections for a process that is ending: they break at
            // once.
            Ok(Ok(_)) => tokio::time::sleep(PAUSE).await,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_is_told_from_an_open_one() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!nobody_listens("127.0.0.1", port).await);
        drop(listener);
        assert!(nobody_listens("127.0.0.1", port).await);
        assert!(!nobody_listens("no such host", port).await);
    }
}
