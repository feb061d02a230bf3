//! The handshake of a connection, within bounds of number and time.
//!
//! A client that sends nothing takes no place. A handshake that is slow gives its place up early
//! while others wait.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::super::farewell::farewell;
use super::places::Places;
use super::refused::Refused;
use super::secured::Secured;
use super::stream::TlsStream;
use weir_security::principal::Principal;

/// The longest wait for the first byte, then for a place, and then for the handshake itself.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// The longest handshake while others wait for a place.
const HURRIED_MAX: Duration = Duration::from_secs(2);

/// The longest wait for a whole first message while others wait for a place: it is in the first
/// packets of a client, and costs one that means no good next to nothing.
const HELLO_HURRIED_MAX: Duration = Duration::from_millis(250);

/// How often a handshake is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The first byte of every record of a handshake.
const HANDSHAKE_RECORD: u8 = 22;

/// A client that has got through.
#[derive(Debug)]
pub(in crate::net) struct Greeted {
    /// The connection.
    pub(in crate::net) stream: TlsStream,
    /// Who the client is by its certificate.
    pub(in crate::net) principal: Principal,
    /// The version of the protocol, such as `TLSv1.3`.
    pub(in crate::net) protocol: &'static str,
    /// Whether a ticket saved most of the handshake.
    pub(in crate::net) resumed: bool,
}

/// Carries out the handshake with a client at `peer`.
///
/// # Errors
/// Why the connection ends. The client has been told, as far as TLS has words for it.
pub(in crate::net) async fn greet(
    secured: &Secured,
    places: &Places,
    socket: TcpStream,
    peer: IpAddr,
) -> Result<Greeted, Refused> {
    let mut first = [0];
    match timeout(HANDSHAKE_MAX, socket.peek(&mut first)).await {
        Err(_) => return Err(Refused::slow()),
        Ok(Err(error)) => return Err(Refused::by(&error)),
        Ok(Ok(0)) => return Err(Refused::closed()),
        // An alert would be the length of a huge response to a client without TLS, for which some
        // reserve memory.
        Ok(Ok(_)) if first != [HANDSHAKE_RECORD] => return Err(Refused::plaintext()),
        Ok(Ok(_)) => {}
    }
    let place = timeout(HANDSHAKE_MAX, places.place(peer)).await;
    let _place = place.map_err(|_| Refused::busy())?;
    let session = secured
        .config()
        .and_then(|config| ServerConnection::new(config).map_err(std::io::Error::other))
        .map_err(|error| Refused::by(&error))?;
    let mut stream = TlsStream::new(socket, session);
    let outcome = within_time(places, &mut stream).await;
    match outcome.and_then(|()| secured.principal(stream.session())) {
        Ok(principal) => {
            let session = stream.session();
            let protocol = match session.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            };
            let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            Ok(Greeted { stream, principal, protocol, resumed })
        }
        Err(refused) => {
            farewell_to(stream).await;
            Err(refused)
        }
    }
}

async fn within_time(places: &Places, stream: &mut TlsStream) -> Result<(), Refused> {
    let began = Instant::now();
    let has_greeted = AtomicBool::new(false);
    let mut shaking = Box::pin(shake(stream, &has_greeted));
    loop {
        match timeout(CHECK_INTERVAL, &mut shaking).await {
            Ok(outcome) => return outcome,
            Err(_) => {
                let took = began.elapsed();
                let hurried = if has_greeted.load(Ordering::Relaxed) {
                    HURRIED_MAX
                } else {
                    HELLO_HURRIED_MAX
                };
                if took >= HANDSHAKE_MAX || (took >= hurried && places.are_short()) {
                    return Err(Refused::slow());
                }
            }
        }
    }
}

/// Sets `has_greeted` once the client's first message is whole, which the broker answers.
async fn shake(stream: &mut TlsStream, has_greeted: &AtomicBool) -> Result<(), Refused> {
    loop {
        let has_greeted_now = stream.session().protocol_version().is_some();
        has_greeted.store(has_greeted_now, Ordering::Relaxed);
        stream.send_all().await.map_err(|error| Refused::by(&error))?;
        if !stream.session().is_handshaking() {
            return Ok(());
        }
        stream.readable().await.map_err(|error| Refused::by(&error))?;
        match stream.fill() {
            Ok(0) => return Err(Refused::closed()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Refused::by(&error)),
        }
    }
}

/// Lets the client read why it is refused, before the connection closes.
async fn farewell_to(mut stream: TlsStream) {
    // The client may have gone, or read nothing.
    if let Ok(Ok(())) = timeout(CHECK_INTERVAL, stream.send_all()).await {
        farewell(stream.socket()).await;
    }
}
