//! The connections of brokers to the controller: over TLS, or plain, by their first byte.
//!
//! Invariants
//! - A connection has a caller only once its handshake is done.
//! - The number and the time of handshakes have bounds, and none holds up another. Who is silent
//!   loses its place to who comes later.
//! - Somebody without a certificate gets through only where somebody may have none.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::either::Either;
use tonic::transport::server::Connected;
use tracing::{debug, warn};
use weir_telemetry::complaints::Complaints;
use weir_tls::{Arrivals, TlsServer, accept};

use super::caller::Caller;
use super::directory::Controllers;

/// The longest time until a connection has a caller. A broker speaks first, and at once.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// The most connections without a caller, and those of one address. One more takes the place of
/// the oldest.
const HANDSHAKES_MAX: usize = 2048;
const ADDRESS_MAX: usize = 128;

/// The most connections that are accepted before handshakes have their turn. A task of tokio has
/// 128 turns at sockets until it is called again.
const ACCEPTS_MAX: usize = 32;

/// The most connections of callers without certificates.
const STRANGERS_MAX: usize = 512;

/// What a client without TLS says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How often a connection is asked for the rest of that.
const PREFACE_INTERVAL: Duration = Duration::from_millis(10);

/// The wait after a failure to accept: mostly there is no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is told of a connection that was the oldest without a caller.
const CROWDED_OUT: &str = "too many connections do not say who they are, and it was the oldest";

/// The first byte of a client that speaks TLS.
const HANDSHAKE_RECORD: u8 = 22;

/// A connection, with its caller.
#[derive(Debug)]
pub struct Incoming {
    stream: Either<TcpStream, Box<TlsServer>>,
    caller: Caller,
    /// Its place among callers without certificates.
    _place: Option<OwnedSemaphorePermit>,
}

/// Who gets through without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strangers {
    /// Everybody: the command line of a local cluster has none.
    All,
    /// Those who may be brokers of a version before.
    Brokers,
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
    strangers: Strangers,
    places: Arc<Semaphore>,
    arrivals: Arc<Arrivals>,
    handshakes: FuturesUnordered<BoxFuture<'static, (SocketAddr, io::Result<Incoming>)>>,
    /// The wait after a failure to accept.
    pause: Option<Pin<Box<Sleep>>>,
    /// A broker comes again several times a second.
    complaints: Complaints,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Connections {
    /// Those of `listener`, from brokers of these controllers.
    pub fn new(listener: TcpListener, controllers: Controllers, strangers: Strangers) -> Self {
        Self {
            listener,
            controllers,
            strangers,
            places: Arc::new(Semaphore::new(STRANGERS_MAX)),
            arrivals: Arc::new(Arrivals::new(HANDSHAKES_MAX, ADDRESS_MAX)),
            handshakes: FuturesUnordered::new(),
            pause: None,
            complaints: Complaints::default(),
        }
    }

    /// Accepts what is there, and in a flood only so many that handshakes go on, too.
    fn accept(&mut self, cx: &mut Context<'_>) {
        for _ in 0..ACCEPTS_MAX {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.pause = None;
            }
            match self.listener.poll_accept(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok((stream, peer))) => {
                    let mut arrival = self.arrivals.arrive(peer.ip());
                    let greeting = self.greet(stream);
                    let greeting = async move {
                        let greeted = tokio::select! {
                            greeted = timeout(HANDSHAKE_MAX, greeting) => greeted,
                            () = arrival.crowded_out() => Ok(Err(io::Error::other(CROWDED_OUT))),
                        };
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
        cx.waker().wake_by_ref();
    }

    /// Finds out who the caller is.
    fn greet(&self, stream: TcpStream) -> impl Future<Output = io::Result<Incoming>> + use<> {
        let (controllers, places) = (self.controllers.clone(), Arc::clone(&self.places));
        let strangers = self.strangers;
        async move {
            stream.set_nodelay(true)?;
            let mut first = [0];
            if stream.peek(&mut first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if first == [HANDSHAKE_RECORD] {
                let find = |domain: &str| controllers.identities(domain);
                let (stream, own, node) = accept(stream, find).await?;
                let caller = Caller::Node(own.domain().to_owned(), node);
                let stream = Either::Right(Box::new(stream));
                return Ok(Incoming { stream, caller, _place: None });
            }
            if strangers == Strangers::Brokers && !controllers.take_strangers() {
                return Err(io::Error::other(
                    "it comes without TLS, and all brokers have certificates",
                ));
            }
            preface(&stream).await?;
            let place = places.try_acquire_owned().map_err(io::Error::other)?;
            let stream = Either::Left(stream);
            Ok(Incoming { stream, caller: Caller::Anybody, _place: Some(place) })
        }
    }

    fn tell(&self, peer: SocketAddr, error: &io::Error) {
        // A replica of the operator that does not lead refuses everybody, and probes of a port say
        // nothing.
        let is_told = error.kind() != io::ErrorKind::UnexpectedEof && !self.controllers.are_none();
        let due = is_told.then(|| self.complaints.are_due("refused"));
        match due.flatten() {
            Some(left_out) => {
                warn!(%peer, %error, left_out, "refuses a connection to the controller");
            }
            None => debug!(%peer, %error, "refuses a connection to the controller"),
        }
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

/// Waits until somebody without TLS has said the whole of the first message. The bytes stay.
async fn preface(stream: &TcpStream) -> io::Result<()> {
    let mut said = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut said).await?;
        let (said, whole) = (said.get(..length).unwrap_or_default(), length == PREFACE.len());
        if !PREFACE.starts_with(said) || length == 0 {
            return Err(io::Error::other("it speaks neither TLS nor HTTP/2"));
        }
        if whole {
            return Ok(());
        }
        sleep(PREFACE_INTERVAL).await;
    }
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
mod tests;
