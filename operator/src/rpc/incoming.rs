//! The connections of brokers to the controller: over TLS, or plain, by their first byte.
//!
//! Invariants
//! - A connection has a caller only once its handshake is done.
//! - The number and the time of handshakes have bounds, and none holds up another.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::either::Either;
use tonic::transport::server::Connected;
use tracing::{debug, warn};
use weir_tls::{TlsServer, accept};

use super::caller::Caller;
use super::directory::Controllers;

/// The longest time until a connection has a caller. A broker speaks first, and at once.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// The most connections without a caller. More wait in the listener's backlog.
const HANDSHAKES_MAX: usize = 2048;

/// The wait after a failure to accept: mostly there is no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a refusal is told: a broker comes again several times a second.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// The first byte of a client that speaks TLS.
const HANDSHAKE_RECORD: u8 = 22;

/// A connection, with its caller.
#[derive(Debug)]
pub struct Incoming {
    stream: Either<TcpStream, Box<TlsServer>>,
    caller: Caller,
}

impl Connected for Incoming {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

/// The connections of a listener. It stops listening when it is dropped.
pub struct Connections {
    listener: TcpListener,
    controllers: Controllers,
    handshakes: FuturesUnordered<BoxFuture<'static, (SocketAddr, io::Result<Incoming>)>>,
    /// The wait after a failure to accept.
    pause: Option<Pin<Box<Sleep>>>,
    /// When a refusal was told last.
    told: Option<Instant>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Connections {
    /// Those of `listener`, from brokers of these controllers.
    pub fn new(listener: TcpListener, controllers: Controllers) -> Self {
        let handshakes = FuturesUnordered::new();
        Self { listener, controllers, handshakes, pause: None, told: None }
    }

    /// Accepts what is there, as far as there are places for handshakes.
    fn accept(&mut self, cx: &mut Context<'_>) {
        while self.handshakes.len() < HANDSHAKES_MAX {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.pause = None;
            }
            match self.listener.poll_accept(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok((stream, peer))) => {
                    let controllers = self.controllers.clone();
                    let greeting = async move {
                        let greeted = timeout(HANDSHAKE_MAX, greet(stream, &controllers)).await;
                        let slow = || Err(io::ErrorKind::TimedOut.into());
                        (peer, greeted.unwrap_or_else(|_| slow()))
                    };
                    self.handshakes.push(greeting.boxed());
                }
                Poll::Ready(Err(error)) => {
                    warn!(%error, "cannot accept a connection to the controller; trying again in 100 ms");
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }

    fn tell(&mut self, peer: SocketAddr, error: &io::Error) {
        // A replica of the operator that does not lead refuses everybody.
        let is_told = self.told.is_some_and(|told| told.elapsed() < TELL_INTERVAL);
        if is_told || self.controllers.are_none() {
            return debug!(%peer, %error, "refuses a connection to the controller");
        }
        self.told = Some(Instant::now());
        warn!(%peer, %error, "refuses a connection to the controller; further ones are told in ten seconds");
    }
}

impl Stream for Connections {
    type Item = io::Result<Incoming>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            this.accept(cx);
            match this.handshakes.poll_next_unpin(cx) {
                Poll::Ready(Some((_, Ok(incoming)))) => return Poll::Ready(Some(Ok(incoming))),
                Poll::Ready(Some((peer, Err(error)))) => this.tell(peer, &error),
                // The listener wakes this task.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Finds out who the caller is.
async fn greet(stream: TcpStream, controllers: &Controllers) -> io::Result<Incoming> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first != [HANDSHAKE_RECORD] {
        return Ok(Incoming { stream: Either::Left(stream), caller: Caller::Anybody });
    }
    let (stream, own, node) = accept(stream, |domain| controllers.identities(domain)).await?;
    let caller = Caller::Node(own.domain().to_owned(), node);
    Ok(Incoming { stream: Either::Right(Box::new(stream)), caller })
}

impl AsyncRead for Incoming {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt as _;
    use weir_security::principal::Principal;
    use weir_tls::Identities;
    use weir_tls::testing::Ca;

    use super::*;

    #[tokio::test]
    async fn callers_are_known_and_silent_ones_hold_nobody_up() {
        let ca = Ca::new();
        let controllers = Controllers::default();
        let own = Identities::new(ca.identity("c", &Principal::Controller, &[&ca]));
        controllers.put_identities("c".to_owned(), Arc::new(own));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = Connections::new(listener, controllers);
        let silent = TcpStream::connect(address).await.unwrap();
        let connecting = async {
            let mut plain = TcpStream::connect(address).await.unwrap();
            plain.write_all(b"PRI").await.unwrap();
            let stranger = TcpStream::connect(address).await.unwrap();
            let other = Ca::new().identity("c", &Principal::Broker(1), &[&ca]);
            // The client hears of it with its first read.
            let _ = other.connect(stranger, &Principal::Controller).await;
            let stream = TcpStream::connect(address).await.unwrap();
            let broker = ca.identity("c", &Principal::Broker(1), &[&ca]);
            (plain, broker.connect(stream, &Principal::Controller).await.unwrap())
        };
        let accepting = async {
            let mut callers = Vec::new();
            while callers.len() < 2 {
                callers.push(connections.next().await.unwrap().unwrap().connect_info());
            }
            callers
        };
        let (_kept, callers) = tokio::join!(connecting, accepting);
        let broker = Caller::Node("c".to_owned(), Principal::Broker(1));
        assert_eq!(callers, [Caller::Anybody, broker]);
        drop(connections);
        assert!(TcpListener::bind(address).await.is_ok(), "the port is free at once");
        drop(silent);
    }
}
