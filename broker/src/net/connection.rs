//! One client's connection: bytes in, frames to the APIs, replies out in the order of the requests.
//!
//! Produces are taken up one after the other while earlier ones still wait to be committed, so one
//! connection fills a group commit. Everything else begins when what came before it is answered, as
//! in Kafka. Beyond a bounded number of requests, or of bytes, the socket is not read from.

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

/// Produces of one connection that may wait at a time. The Java client allows itself 5, librdkafka
/// 1,000,000; what is beyond stays in the socket.
const IN_FLIGHT_MAX: usize = 64;

/// A frame that has begun must go on arriving at least this often, and be there after this time
/// where others wait for its room.
const STALL_MAX: Duration = Duration::from_secs(30);

/// While a frame waits or arrives, it is looked this often whether that is still right.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Frames that wait longer than this for room are worth a line in the log.
const WAIT_WORTH_TELLING: Duration = Duration::from_secs(5);

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
    /// A frame came so slowly that others waited for its room.
    #[error("a request came too slowly, and others waited for its memory")]
    Slow,
    /// An answer was read so slowly that others waited for its room.
    #[error("an answer was read too slowly, and others waited for its memory")]
    Unread,
    /// There was no room for a frame for `connections.max.idle.ms`.
    #[error("there was no memory for a request for too long")]
    NoRoom,
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
    pub(crate) services: Arc<Services>,
    /// Who is at the other end.
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
    /// Of a request that is not a Produce: it is decoded, which takes more memory than its bytes.
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

/// A frame that may begin once it is there, and its room.
struct Arriving {
    /// Of what follows the length itself.
    length: usize,
    room: Claim,
    /// Its own buffer, once it has room, if it does not fit the one that all is read into.
    body: Option<BytesMut>,
    /// When it began to wait, or got its room.
    since: Instant,
    /// When bytes of it last came.
    progress: Instant,
}

/// What a frame has of the memory for requests.
enum Claim {
    Waiting(BoxFuture<'static, Room>),
    Given(Room),
}

struct Connection {
    accepted: Accepted,
    stream: TcpStream,
    limits: Limits,
    /// What has arrived and is not yet a request: little, until there is room for the frame that it
    /// begins with.
    input: BytesMut,
    arriving: Option<Arriving>,
    allowance: Allowance,
    /// How much to ask for next: grows while the socket keeps up.
    read_bytes: usize,
    /// Requests that are taken up and not answered, in order.
    in_flight: FuturesOrdered<BoxFuture<'static, Reply>>,
    /// What their answers take, of each of them.
    promised: Promised,
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

    /// The length of the next frame's body, once it is known and what it is.
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

    /// Whether the next request need not wait for the ones before it.
    fn next_may_start(&self) -> bool {
        self.in_flight.is_empty()
            || (self.begins_with_produce()
                && self.producing
                && self.in_flight.len() < IN_FLIGHT_MAX)
    }

    /// What comes is read while the next frame has room, or is not known yet.
    fn may_read(&self) -> Result<bool, Closed> {
        match &self.arriving {
            Some(arriving) => Ok(matches!(arriving.room, Claim::Given(_))),
            None => Ok(self.head()?.is_none()),
        }
    }

    /// The next frame, if it may begin and all of it is there. If it may begin, it is seen to that
    /// there is room for it.
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
                // What was asked before is still answered.
                while let Some(reply) = self.in_flight.next().await {
                    self.push_next(reply).await?;
                }
                self.flush().await?;
                Err(Closed::BadRequest(reason))
            }
        }
    }

    /// Waits for a reply behind those before it, which others may wait behind as long as there is
    /// memory for what they become.
    fn take_up(&mut self, reply: BoxFuture<'static, Reply>, bytes_max: usize) {
        let memory = &self.accepted.services.answer_memory;
        self.in_flight.push_back(match self.promised.add(bytes_max, memory) {
            Some(room) if room.is_of_the_budget() => {
                async move { Reply { room, ..reply.await } }.boxed()
            }
            Some(_) => reply,
            // Nothing joins it, and it is answered once there is room. What it brought is appended
            // already.
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

    /// Sends what is answered by now: many replies, one write.
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
        // Who has a frame under way is not waited for as long as others.
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

    /// Takes what the socket has: into the frame that has room, or a little to see what comes.
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
            // After a large frame comes another one, of which little should be read into the wrong
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

    /// Whether the frame that waits or arrives may go on doing so.
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

    /// Whether the client has closed before it sent all of a frame of this length.
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
    /// Takes what is the frame's, and the frame itself if that is all of it.
    fn take_from(&mut self, input: &mut BytesMut) -> Option<BytesMut> {
        if self.body.is_none() {
            if input.len() >= 4 + self.length {
                input.advance(4);
                return Some(input.split_to(self.length));
            }
            if 4 + self.length <= READ_BUFFER_BYTES {
                return None;
            }
            // A buffer of its own, so that what is read into is as large as the room, and nothing
            // else is kept in memory with the frame.
            let mut body = BytesMut::with_capacity(self.length);
            body.extend_from_slice(input.get(4..).unwrap_or_default());
            input.clear();
            self.body = Some(body);
        }
        self.body.take_if(|body| body.len() >= self.length)
    }
}

/// Why a connection ends that cannot be written to.
fn ended(error: io::Error) -> Closed {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => Closed::Unread,
        _ => Closed::Io(error),
    }
}

/// Returns when it is time to look at the frame that arrives: only where it is waited for is there
/// a timer.
async fn check_is_due() {
    tokio::time::sleep(CHECK_INTERVAL).await;
}

/// Returns when the frame that waits has its room.
async fn room_given(arriving: &mut Option<Arriving>) {
    let Some(arriving) = arriving else { return };
    if let Claim::Waiting(room) = &mut arriving.room {
        let room = room.await;
        arriving.room = Claim::Given(room);
        arriving.since = Instant::now();
        arriving.progress = arriving.since;
    }
}
