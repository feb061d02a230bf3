//! A probe whether a process still exists, by a connection attempt to its host.
//!
//! A host refuses connections to a port without a listener at once. So a killed broker differs from
//! a broken connection within one round trip. It is only a hint. If a host does not answer, or a
//! firewall answers for it, that costs time or a change of leaders, never a record.

use std::time::Duration;

use weir_client::{Address, connect};

/// The most time for an answer; after that the broker's session decides.
const ANSWER_MAX: Duration = Duration::from_millis(100);

/// Interval and number of attempts: a process closes its streams a moment before or after its
/// listeners.
const PAUSE: Duration = Duration::from_millis(2);
const TRIES: u32 = 10;

/// Whether the host refuses connections to this port.
pub(crate) async fn nobody_listens(host: &str, port: u16) -> bool {
    let address = Address::new(host, port);
    for _ in 0..TRIES {
        match connect(&address, ANSWER_MAX).await {
            // The kernel may still accept connections for a process that is ending; they break at
            // once.
            Ok(_) => tokio::time::sleep(PAUSE).await,
            Err(error) => return error.is_refused(),
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
