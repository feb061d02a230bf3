//! One client's connection: reads frames, hands them to the APIs, and sends replies in the order of
//! the requests.
//!
//! Produces start while earlier ones still wait for their commit, so one connection can fill a
//! group commit. As in Kafka, every other request starts when all earlier ones are answered. Beyond
//! a bounded number of requests or bytes, the connection does not read its socket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use weir_protocol::api::ApiKey;
use weir_protocol::frame;

use super::answers::Promised;
use super::buffers::{self, READ_BUFFER_BYTES};
use super::output::Output;
use crate::api::{self, Caller, Handled, Reply, Services};
use crate::budget::{self, Allowance, Room};

/// The most produces of one connection in flight. The Java client sends up to 5, librdkafka up to
/// 1,000,000; the rest stays in the socket.
const IN_FLIGHT_MAX: usize = 64;

/// The longest pause within a frame that has begun. Also the longest time for a whole frame while
/// others wait for its room.
const STALL_MAX: Duration = Duration::from_secs(30);

/// How often a waiting or arriving frame is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A frame that waits longer than this for room is logged.
const WAIT_WORTH_TELLING: Duration = Duration::from_secs(5);

/// The least and the most bytes of one read.
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 256 * 1024;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    /// The client has closed the connection, which is no fault.
    #[error("the client closed the connection")]
    ByClient,
    /// A request failed that has no response, or whose response cannot be encoded.
    #[error("a request failed that has no response to say so")]
    Unanswerable,
    /// The broker is stopping, and all requests are answered.
    #[error("the broker stops")]
    Stopping,
    /// No bytes came for `connections.max.idle.ms`, or a frame stalled.
    #[error("idle for too long")]
    Idle,
    /// A frame came so slowly that others waited for its room.
    #[error("a request came too slowly, and others waited for its memory")]
    Slow,
    /// An answer was read so slowly that others waited for its room.
    #[error("an answer was read too slowly, and others waited for its memory")]
    Unread,
    /// There was no room for a frame for `connections.max.idle.ms`.
    #[error("there was no memory for a request for too long")]
    NoRoom,
    /// The bytes are no request that can be answered.
    #[error("{0}")]
    BadRequest(String),
    /// An I/O error of the socket.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The parameters of an accepted connection.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The parts of the broker.
    pub(crate) services: Arc<Services>,
    /// The client.
    pub(crate) caller: Arc<Caller>,
    /// Turns true when the broker stops.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Serves one connection to its end.
pub(crate) async fn serve(accepted: Accepted, stream: TcpStream) -> Closed {
    let limits = Limits::of(&accepted.services);
    let answers = accepted.services.answer_memory.clone();
    let mut connection = Connection {
        accepted,
        stream,
        limits,
        input: BytesMut::new(),
        arriving: None,
        allowance: Allowance::default(),
        read_bytes: READ_BYTES_MIN,
        in_flight: FuturesOrdered::new(),
        promised: Promised::default(),
        producing: false,
        output: Output::new(limits.idle_max, answers),
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
    /// For requests other than Produce, which are decoded and then take more memory than their
    /// bytes.
    decoded_frame_bytes_max: usize,
    idle_max: Duration,
}

impl Limits {
    fn of(services: &Services) -> Self {
        let settings = services.settings();
        Self {
            frame_bytes_max: settings.socket_request_bytes_max,
            decoded_frame_bytes_max: settings
                .socket_request_bytes_max
                .min(services.config.memory.decoded_frame),
            idle_max: settings.connections_idle_max,
        }
    }
}

/// Returns when the broker stops; its sender lives as long as the server.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}

/// A frame that may start once it is complete, and its room.
struct Arriving {
    /// Its length without the length prefix.
    length: usize,
    room: Claim,
    /// A buffer of its own, once it has room, if it does not fit into the shared input buffer.
    body: Option<BytesMut>,
    /// When it began to wait, or got its room.
    since: Instant,
    /// When its last bytes came.
    progress: Instant,
}

/// A frame's claim on the request memory.
enum Claim {
    Waiting(BoxFuture<'static, Room>),
    Given(Room),
}

struct Connection {
    accepted: Accepted,
    stream: TcpStream,
    limits: Limits,
    /// Bytes that have arrived and are no request yet. They are few until the first frame has room.
    input: BytesMut,
    arriving: Option<Arriving>,
    allowance: Allowance,
    /// The size of the next read; grows while the socket keeps up.
    read_bytes: usize,
    /// Requests in progress, in order.
    in_flight: FuturesOrdered<BoxFuture<'static, Reply>>,
    /// The memory that each of their answers may take.
    promised: Promised,
    /// Whether the requests in flight are produces that more may join.
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
            while let Some((frame, room)) = self.next_frame()? {
                self.start(frame, room).await?;
            }
            self.answer_what_is_ready().await?;
            if self.arriving.is_none() && self.head()?.is_some() && self.next_may_start() {
                continue;
            }
            let may_read = self.may_read()?;
            if !may_read && self.arriving.is_none() {
                self.accepted.caller.next_is_here.notify_one();
            }
            tokio::select! {
                biased;
                Some(reply) = self.in_flight.next(), if !self.in_flight.is_empty() => self.push_next(reply).await?,
                () = room_given(&mut self.arriving), if !may_read && self.arriving.is_some() => {}
                readable = self.stream.readable(), if may_read => {
                    readable?;
                    self.read()?;
                }
                () = stopped(&mut stop), if self.in_flight.is_empty() => return Err(Closed::Stopping),
                () = check_is_due(), if self.arriving.is_some() => self.check_arriving()?,
                () = tick.as_mut() => {
                    self.check_arriving()?;
                    self.check_idle()?;
                    tick.as_mut().reset(Instant::now() + self.tick());
                }
            }
        }
    }

    /// Returns the length of the next frame's body, once its length and API are known.
    fn head(&self) -> Result<Option<usize>, Closed> {
        let Some(prefix) = self.input.first_chunk::<4>() else { return Ok(None) };
        let is_known = self.input.len() >= 6;
        let limit = if !is_known || self.begins_with_produce() {
            self.limits.frame_bytes_max
        } else {
            self.limits.decoded_frame_bytes_max
        };
        let length = frame::request_length(*prefix, limit)
            .map_err(|error| Closed::BadRequest(error.to_string()))?;
        Ok(is_known.then_some(length))
    }

    fn begins_with_produce(&self) -> bool {
        self.input.get(4..6) == Some(&ApiKey::Produce.key().to_be_bytes())
    }

    /// Returns whether the next request may start before the ones in flight are answered.
    fn next_may_start(&self) -> bool {
        self.in_flight.is_empty()
            || (self.begins_with_produce()
                && self.producing
                && self.in_flight.len() < IN_FLIGHT_MAX)
    }

    /// Returns whether to read the socket: while the next frame has room, or is not known yet.
    fn may_read(&self) -> Result<bool, Closed> {
        match &self.arriving {
            Some(arriving) => Ok(matches!(arriving.room, Claim::Given(_))),
            None => Ok(self.head()?.is_none()),
        }
    }

    /// Returns the next frame, if it may start and is complete. Claims room for it as soon as it
    /// may start.
    fn next_frame(&mut self) -> Result<Option<(BytesMut, Room)>, Closed> {
        if self.arriving.is_none() {
            let Some(length) = self.head()? else { return Ok(None) };
            if !self.next_may_start() {
                return Ok(None);
            }
            self.arriving = Some(self.ask_for_room(length));
        }
        let Some(mut arriving) = self.arriving.take() else { return Ok(None) };
        let whole = match &arriving.room {
            Claim::Waiting(_) => None,
            Claim::Given(_) => arriving.take_from(&mut self.input),
        };
        match (whole, arriving.room) {
            (Some(frame), Claim::Given(room)) => Ok(Some((frame, room))),
            (_, room) => {
                arriving.room = room;
                self.arriving = Some(arriving);
                Ok(None)
            }
        }
    }

    fn ask_for_room(&self, length: usize) -> Arriving {
        let memory = &self.accepted.services.request_memory;
        let is_produce = self.begins_with_produce();
        let bytes = budget::charge(length, is_produce);
        let room = self.allowance.room(bytes).or_else(|| memory.try_room(bytes, is_produce));
        let now = Instant::now();
        Arriving {
            length,
            room: room.map_or_else(
                || Claim::Waiting(memory.room(bytes, is_produce).boxed()),
                Claim::Given,
            ),
            body: None,
            since: now,
            progress: now,
        }
    }

    async fn start(&mut self, frame: BytesMut, room: Room) -> Result<(), Closed> {
        self.producing = frame.get(..2) == Some(&(ApiKey::Produce as i16).to_be_bytes());
        match api::dispatch(&self.accepted.services, &self.accepted.caller, frame, room) {
            Handled::Now(reply) if self.in_flight.is_empty() => self.push(reply).await,
            Handled::Now(reply) => {
                self.take_up(std::future::ready(reply).boxed(), 0);
                Ok(())
            }
            Handled::Later(reply) => {
                self.take_up(reply, 0);
                Ok(())
            }
            Handled::Produced { reply, bytes_max, alone } => {
                self.take_up(reply, bytes_max);
                self.producing &= !alone;
                Ok(())
            }
            Handled::Close(reason) => {
                // Earlier requests are still answered.
                while let Some(reply) = self.in_flight.next().await {
                    self.push_next(reply).await?;
                }
                self.flush().await?;
                Err(Closed::BadRequest(reason))
            }
        }
    }

    /// Queues a reply behind the earlier ones. Others may join it as long as the budget has memory
    /// for their answers.
    fn take_up(&mut self, reply: BoxFuture<'static, Reply>, bytes_max: usize) {
        let memory = &self.accepted.services.answer_memory;
        self.in_flight.push_back(match self.promised.add(bytes_max, memory) {
            Some(room) if room.is_of_the_budget() => {
                async move { Reply { room, ..reply.await } }.boxed()
            }
            Some(_) => reply,
            // No other request joins it, and it is answered once there is room. Its records are
            // appended already.
            None => {
                self.producing = false;
                let (memory, peer, wait_max) =
                    (memory.clone(), self.accepted.caller.peer.ip(), self.limits.idle_max);
                async move {
                    match memory.produced_room(peer, bytes_max, wait_max).await {
                        Some(room) => Reply { room, ..reply.await },
                        None => Reply::close(),
                    }
                }
                .boxed()
            }
        });
    }

    /// Sends all ready replies in one write.
    async fn answer_what_is_ready(&mut self) -> Result<(), Closed> {
        while let Some(Some(reply)) = self.in_flight.next().now_or_never() {
            self.push_next(reply).await?;
        }
        self.flush().await
    }

    async fn push_next(&mut self, reply: Reply) -> Result<(), Closed> {
        self.promised.take();
        self.push(reply).await
    }

    async fn flush(&mut self) -> Result<(), Closed> {
        self.output.flush(&self.stream).await.map_err(ended)
    }

    async fn push(&mut self, reply: Reply) -> Result<(), Closed> {
        let close = reply.close;
        // While a frame is arriving, a client that reads nothing gets less time.
        self.output.stall_max = match &self.arriving {
            Some(_) => STALL_MAX.min(self.limits.idle_max),
            None => self.limits.idle_max,
        };
        let sent = self
            .output
            .push(&self.stream, reply, self.promised.have_room())
            .await
            .map_err(ended)?;
        self.accepted.services.metrics.sent_bytes(sent);
        self.active = Instant::now();
        if close {
            self.flush().await?;
            return Err(Closed::Unanswerable);
        }
        Ok(())
    }

    /// Reads from the socket: into the frame that has room, or a few bytes to see the next one.
    fn read(&mut self) -> Result<(), Closed> {
        let (read, wanted) = match &mut self.arriving {
            Some(Arriving { body: Some(body), length, .. }) => {
                let wanted = (*length - body.len()).min(READ_BYTES_MAX);
                (self.stream.try_read_buf(&mut body.limit(wanted)), wanted)
            }
            arriving => {
                if self.input.is_empty() {
                    buffers::give_buffer(std::mem::replace(
                        &mut self.input,
                        buffers::take_buffer(),
                    ));
                }
                let missing =
                    arriving.as_ref().map_or(0, |arriving| 4 + arriving.length - self.input.len());
                let wanted = self.read_bytes.max(missing).min(READ_BUFFER_BYTES - self.input.len());
                self.input.reserve(wanted);
                (self.stream.try_read_buf(&mut (&mut self.input).limit(wanted)), wanted)
            }
        };
        let read = match read {
            Ok(0) => return Err(Closed::ByClient),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if self.input.is_empty() {
                    buffers::give_buffer(std::mem::take(&mut self.input));
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.read_bytes = if self.arriving.as_ref().is_some_and(|arriving| arriving.body.is_some())
        {
            // Another large frame usually follows. Little of it should be read into the shared
            // buffer.
            READ_BYTES_MIN
        } else if read >= wanted {
            (wanted * 2).min(READ_BUFFER_BYTES)
        } else {
            read.max(READ_BYTES_MIN).next_power_of_two().min(READ_BUFFER_BYTES)
        };
        self.accepted.services.metrics.received_bytes(read as u64);
        self.active = Instant::now();
        if let Some(arriving) = &mut self.arriving {
            arriving.progress = self.active;
        }
        Ok(())
    }

    fn tick(&self) -> Duration {
        STALL_MAX.min(self.limits.idle_max)
    }

    /// Checks whether the current frame may wait or arrive any longer.
    fn check_arriving(&self) -> Result<(), Closed> {
        let Some(arriving) = &self.arriving else { return Ok(()) };
        let memory = &self.accepted.services.request_memory;
        let since = arriving.since.elapsed();
        match &arriving.room {
            Claim::Waiting(_) => {
                if since >= WAIT_WORTH_TELLING {
                    memory.tell_of_waiting();
                }
                if since >= self.limits.idle_max {
                    return Err(Closed::NoRoom);
                }
                if self.is_given_up(arriving.length) {
                    return Err(Closed::ByClient);
                }
            }
            Claim::Given(_) if arriving.progress.elapsed() >= STALL_MAX => {
                return Err(Closed::Idle);
            }
            Claim::Given(room)
                if since >= STALL_MAX && room.is_of_the_budget() && memory.is_short() =>
            {
                return Err(Closed::Slow);
            }
            Claim::Given(_) => {}
        }
        Ok(())
    }

    /// Returns whether the client closed before it sent all of a frame of this length.
    fn is_given_up(&self, length: usize) -> bool {
        let ready = self.stream.ready(Interest::READABLE).now_or_never();
        let is_closed = matches!(ready, Some(Ok(ready)) if ready.is_read_closed());
        let unread = rustix::io::ioctl_fionread(&self.stream).unwrap_or(u64::MAX);
        is_closed && (self.input.len() as u64).saturating_add(unread) < 4 + length as u64
    }

    fn check_idle(&self) -> Result<(), Closed> {
        let silent = self.active.elapsed();
        let stalled = !self.input.is_empty()
            && self.arriving.is_none()
            && self.in_flight.is_empty()
            && silent >= STALL_MAX;
        if stalled
            || (silent >= self.limits.idle_max
                && self.in_flight.is_empty()
                && self.arriving.is_none())
        {
            return Err(Closed::Idle);
        }
        Ok(())
    }
}

impl Arriving {
    /// Takes the frame's bytes from `input`. Returns the frame if it is complete.
    fn take_from(&mut self, input: &mut BytesMut) -> Option<BytesMut> {
        if self.body.is_none() {
            if input.len() >= 4 + self.length {
                input.advance(4);
                return Some(input.split_to(self.length));
            }
            if 4 + self.length <= READ_BUFFER_BYTES {
                return None;
            }
            // A buffer of its own. It is as large as the frame's room, and keeps no other bytes in
            // memory.
            let mut body = BytesMut::with_capacity(self.length);
            body.extend_from_slice(input.get(4..).unwrap_or_default());
            input.clear();
            self.body = Some(body);
        }
        self.body.take_if(|body| body.len() >= self.length)
    }
}

/// The reason why a connection ends that cannot be written to.
fn ended(error: io::Error) -> Closed {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => Closed::Unread,
        _ => Closed::Io(error),
    }
}

/// Returns when the arriving frame is due for a check. Only connections with such a frame have this
/// timer.
async fn check_is_due() {
    tokio::time::sleep(CHECK_INTERVAL).await;
}

/// Returns when the waiting frame gets its room.
async fn room_given(arriving: &mut Option<Arriving>) {
    let Some(arriving) = arriving else { return };
    if let Claim::Waiting(room) = &mut arriving.room {
        let room = room.await;
        arriving.room = Claim::Given(room);
        arriving.since = Instant::now();
        arriving.progress = arriving.since;
    }
}
