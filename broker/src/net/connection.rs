//! One client's connection: bytes in, frames to the APIs, replies out in the order of the requests.
//!
//! Produces are taken up one after the other while earlier ones still wait to be committed, so one connection fills a group commit. Everything else begins when
//! what came before it is answered, as in Kafka. Beyond a bounded number of requests, or of bytes, the socket is not read from.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use weir_protocol::api::ApiKey;
use weir_protocol::frame;

use super::memory::{self, Share};
use super::reply::{Output, Reply};
use crate::api::{self, Caller, Handled};
use crate::broker::Broker;

/// Produces of one connection that may wait at a time. The Java client allows itself 5, librdkafka 1,000,000; what is beyond stays in the socket.
const IN_FLIGHT_MAX: usize = 64;

/// The largest request that is not a Produce. Produce carries records, which stay bytes; all others are decoded, into up to 40 times the memory of their bytes.
const DECODED_FRAME_BYTES_MAX: usize = 16 << 20;

/// A frame that has begun must go on arriving at least this often.
const STALL_MAX: Duration = Duration::from_secs(30);

/// The least that is asked of the socket at a time, and the most.
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 256 * 1024;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    /// The client is gone, which is no fault.
    #[error("the client closed the connection")]
    ByClient,
    /// A request failed that has no response, or whose response cannot be encoded.
    #[error("a request failed that has no response to say so")]
    Unanswerable,
    /// The broker stops, and all that was asked is answered.
    #[error("the broker stops")]
    Stopping,
    /// Nothing came for `connections.max.idle.ms`, or a frame stalled.
    #[error("idle for too long")]
    Idle,
    /// What came is no request that can be answered.
    #[error("{0}")]
    BadRequest(String),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a connection is given when it is accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The broker that serves it.
    pub(crate) broker: Arc<Broker>,
    /// Who is at the other end.
    pub(crate) caller: Arc<Caller>,
    /// Turns true when the broker stops.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Serves one connection to its end.
pub(crate) async fn serve(accepted: Accepted, stream: TcpStream) -> Closed {
    let limits = Limits::of(&accepted.broker);
    let mut connection = Connection {
        accepted,
        stream,
        limits,
        input: BytesMut::new(),
        share: Share::default(),
        read_bytes: READ_BYTES_MIN,
        in_flight: FuturesOrdered::new(),
        producing: false,
        output: Output::new(limits.idle_max),
        active: Instant::now(),
    };
    match connection.run().await {
        Ok(never) => match never {},
        Err(closed) => closed,
    }
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    frame_bytes_max: usize,
    idle_max: Duration,
}

impl Limits {
    fn of(broker: &Broker) -> Self {
        let settings = broker.settings();
        Self {
            frame_bytes_max: settings.socket_request_bytes_max,
            idle_max: settings.connections_idle_max,
        }
    }
}

/// Returns when the broker stops; its sender lives as long as the server.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}

struct Connection {
    accepted: Accepted,
    stream: TcpStream,
    limits: Limits,
    /// What has arrived and is not yet a request.
    input: BytesMut,
    share: Share,
    /// How much to ask for next: grows while the socket keeps up.
    read_bytes: usize,
    /// Requests that are taken up and not answered, in order.
    in_flight: FuturesOrdered<BoxFuture<'static, Reply>>,
    /// What is in flight are produces, and more of them may join.
    producing: bool,
    output: Output,
    /// When bytes last came or went.
    active: Instant,
}

impl Connection {
    async fn run(&mut self) -> Result<std::convert::Infallible, Closed> {
        let mut tick = Box::pin(tokio::time::sleep(self.tick()));
        let mut stop = self.accepted.stop.clone();
        loop {
            while let Some(frame) = self.next_frame()? {
                self.start(frame).await?;
            }
            self.answer_what_is_ready().await?;
            if self.next_frame_may_start() {
                continue;
            }
            let room = self.frame_length()?.is_none_or(|length| self.input.len() < 4 + length);
            if !room {
                self.accepted.caller.next_is_here.notify_one();
            }
            tokio::select! {
                biased;
                Some(reply) = self.in_flight.next(), if !self.in_flight.is_empty() => self.push(reply).await?,
                readable = self.stream.readable(), if room => {
                    readable?;
                    self.read().await?;
                }
                () = stopped(&mut stop), if self.in_flight.is_empty() => return Err(Closed::Stopping),
                () = tick.as_mut() => {
                    self.check_idle()?;
                    tick.as_mut().reset(Instant::now() + self.tick());
                }
            }
        }
    }

    /// The length of the next frame's body, once its prefix is there.
    fn frame_length(&self) -> Result<Option<usize>, Closed> {
        let Some(prefix) = self.input.first_chunk::<4>() else { return Ok(None) };
        let produce = self.input.len() < 6 || self.begins_with_produce();
        let limit = if produce {
            self.limits.frame_bytes_max
        } else {
            self.limits.frame_bytes_max.min(DECODED_FRAME_BYTES_MAX)
        };
        frame::request_length(*prefix, limit)
            .map(Some)
            .map_err(|error| Closed::BadRequest(error.to_string()))
    }

    fn begins_with_produce(&self) -> bool {
        self.input.get(4..6) == Some(&ApiKey::Produce.key().to_be_bytes())
    }

    /// Whether a whole request is there that need not wait for the ones before it.
    fn next_frame_may_start(&self) -> bool {
        let Ok(Some(length)) = self.frame_length() else { return false };
        if self.input.len() < 4 + length {
            return false;
        }
        let produce = self.begins_with_produce();
        self.in_flight.is_empty() || (produce && self.producing && self.in_flight.len() < IN_FLIGHT_MAX)
    }

    fn next_frame(&mut self) -> Result<Option<BytesMut>, Closed> {
        let Some(length) = self.frame_length()? else { return Ok(None) };
        if !self.next_frame_may_start() {
            return Ok(None);
        }
        self.input.advance(4);
        Ok(Some(self.input.split_to(length)))
    }

    async fn start(&mut self, frame: BytesMut) -> Result<(), Closed> {
        self.producing = frame.get(..2) == Some(&(ApiKey::Produce as i16).to_be_bytes());
        match api::dispatch(&self.accepted.broker, &self.accepted.caller, frame) {
            Handled::Now(reply) if self.in_flight.is_empty() => self.push(reply).await,
            Handled::Now(reply) => {
                self.in_flight.push_back(std::future::ready(reply).boxed());
                Ok(())
            }
            Handled::Later(reply) => {
                self.in_flight.push_back(reply);
                Ok(())
            }
            Handled::Alone(reply) => {
                self.producing = false;
                self.in_flight.push_back(reply);
                Ok(())
            }
            Handled::Close(reason) => {
                // What was asked before is still answered.
                while let Some(reply) = self.in_flight.next().await {
                    self.push(reply).await?;
                }
                self.output.flush(&self.stream).await?;
                Err(Closed::BadRequest(reason))
            }
        }
    }

    /// Sends what is answered by now: many replies, one write.
    async fn answer_what_is_ready(&mut self) -> Result<(), Closed> {
        while let Some(Some(reply)) = self.in_flight.next().now_or_never() {
            self.push(reply).await?;
        }
        self.output.flush(&self.stream).await?;
        Ok(())
    }

    async fn push(&mut self, reply: Reply) -> Result<(), Closed> {
        let close = reply.close;
        let sent = self.output.push(&self.stream, reply).await?;
        self.accepted.broker.metrics.sent_bytes(sent);
        self.active = Instant::now();
        if close {
            self.output.flush(&self.stream).await?;
            return Err(Closed::Unanswerable);
        }
        Ok(())
    }

    /// Takes what the socket has, within the budget.
    async fn read(&mut self) -> Result<(), Closed> {
        if self.input.is_empty() {
            memory::give_buffer(std::mem::replace(&mut self.input, memory::take_buffer()));
        }
        let missing = self.frame_length()?.map_or(READ_BYTES_MIN, |length| 4 + length - self.input.len());
        let wanted = missing.clamp(self.read_bytes, READ_BYTES_MAX);
        self.accepted
            .broker
            .request_memory
            .cover(&mut self.share, self.input.len() + wanted)
            .await;
        self.input.reserve(wanted);
        let read = match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => return Err(Closed::ByClient),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if self.input.is_empty() {
                    memory::give_buffer(std::mem::take(&mut self.input));
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.read_bytes = if read >= wanted {
            (wanted * 2).min(READ_BYTES_MAX)
        } else {
            (read.max(READ_BYTES_MIN)).next_power_of_two().min(READ_BYTES_MAX)
        };
        self.accepted.broker.request_memory.release(&mut self.share, self.input.len());
        self.accepted.broker.metrics.received_bytes(read as u64);
        self.active = Instant::now();
        Ok(())
    }

    fn tick(&self) -> Duration {
        STALL_MAX.min(self.limits.idle_max)
    }

    fn check_idle(&mut self) -> Result<(), Closed> {
        let silent = self.active.elapsed();
        let stalled = !self.input.is_empty() && self.in_flight.is_empty() && silent >= STALL_MAX;
        if stalled || (silent >= self.limits.idle_max && self.in_flight.is_empty()) {
            return Err(Closed::Idle);
        }
        Ok(())
    }
}
