//! Makes the stream to a broker: resolves its host, connects, and finds out who is there.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::either::Either;
use weir_tls::{Identities, TlsClient};

use crate::{Address, ClientError};

/// A stream to a broker: plain, or over TLS.
pub(crate) type Stream = Either<TcpStream, Box<TlsClient>>;

/// Connects to the first address of the host that accepts a connection, and sends small writes at
/// once. `within` bounds everything, including the resolution of the name.
///
/// # Errors
/// [`ClientError::Connect`].
pub async fn connect(address: &Address, within: Duration) -> Result<TcpStream, ClientError> {
    let deadline = Instant::now() + within;
    let connected = async {
        let host = (address.host.as_str(), address.port);
        let found = timeout_at(deadline, tokio::net::lookup_host(host));
        let found: Vec<SocketAddr> = found.await.map_err(|_| io::ErrorKind::TimedOut)??.collect();
        let stream = connect_to_any(&found, deadline).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    connected.await.map_err(|error| ClientError::Connect { address: address.clone(), error })
}

/// Connects to an address, and over TLS if a node has to be there. `identities` is what this
/// process shows to it.
///
/// # Errors
/// [`ClientError::Connect`]: also when another node is there, or this process has no identity.
pub(crate) async fn open(
    address: &Address,
    identities: Option<&Identities>,
    within: Duration,
) -> Result<Stream, ClientError> {
    let deadline = Instant::now() + within;
    let stream = connect(address, within).await?;
    let Some(node) = &address.node else { return Ok(Either::Left(stream)) };
    let secured = async {
        let identities = identities
            .ok_or_else(|| io::Error::other("this process has no certificate of the cluster"))?;
        let identity = identities.current()?;
        let secured = timeout_at(deadline, identity.connect(stream, node));
        secured.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    };
    match secured.await {
        Ok(stream) => Ok(Either::Right(Box::new(stream))),
        Err(error) => Err(ClientError::Connect { address: address.clone(), error }),
    }
}

/// Tries the addresses in turn. Each has an equal share of the time that is left, so that one which
/// does not answer leaves time for the next.
pub(crate) async fn connect_to_any(
    addresses: &[SocketAddr],
    deadline: Instant,
) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let time = deadline.saturating_duration_since(Instant::now());
        let share = time / u32::try_from(left).unwrap_or(u32::MAX);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            // A process may still listen behind an address that did not answer.
            Ok(Err(_)) if failure.kind() == io::ErrorKind::TimedOut => {}
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}
