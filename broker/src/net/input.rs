//! The receive half of a connection: bytes of the socket become frames, each within its room.
//!
//! A frame asks for room as soon as its length and API are known and its turn has come. Its body is
//! read once it has room. Checks end the connection of a frame that comes too slowly, or waits for
//! too long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::Interest;
use tokio::time::Instant;
use weir_protocol::api::ApiKey;
use weir_protocol::frame;

use super::buffers::{self, READ_BUFFER_BYTES};
use super::closed::Closed;
use super::transport::Transport;
use crate::api::{Caller, Received, Services};
use crate::budget::{self, Allowance, Room};

/// The longest pause within a frame that has begun. Also the longest time for a whole frame while
/// others wait for its room.
pub(super) const STALL_MAX: Duration = Duration::from_secs(30);

/// How late a frame may be while others wait for its room: it has to come as steadily as is needed
/// to be whole in time. Otherwise one that was only announced would hold its room all that time.
const LATE_MAX: Duration = Duration::from_secs(3);

/// How often a waiting or arriving frame is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A frame that waits longer than this for room is logged.
const WAIT_WORTH_TELLING: Duration = Duration::from_secs(5);

/// The least and the most bytes of one read.
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 256 * 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    frame_bytes_max: usize,
    /// For requests other than Produce, which are decoded and then take more memory than their
    /// bytes.
    decoded_frame_bytes_max: usize,
    pub(super) idle_max: Duration,
}

impl Limits {
    pub(super) fn of(services: &Services) -> Self {
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

/// A frame that may start once it is complete, and its room.
struct Arriving {
    /// Its length without the length prefix.
    length: usize,
    room: Claim,
    /// A buffer of its own, once it has room, if it does not fit into the shared input buffer.
    body: Option<BytesMut>,
    /// When it began to wait, or got its room.
    since: Instant,
    /// How long it waited for its room.
    waited: Duration,
    /// When its last bytes came.
    progress: Instant,
}

/// A frame's claim on the request memory.
enum Claim {
    Waiting(BoxFuture<'static, Room>),
    Given(Room),
}

/// The receive half of a connection.
pub(super) struct Input {
    services: Arc<Services>,
    caller: Arc<Caller>,
    limits: Limits,
    /// Bytes that have arrived and are no request yet. They are few until the first frame has room.
    bytes: BytesMut,
    arriving: Option<Arriving>,
    /// Whether no frame has asked for room yet.
    is_first: bool,
    allowance: Allowance,
    /// The size of the next read; grows while the socket keeps up.
    read_bytes: usize,
}

impl Input {
    pub(super) fn new(services: Arc<Services>, caller: Arc<Caller>, limits: Limits) -> Self {
        Self {
            services,
            caller,
            limits,
            bytes: BytesMut::new(),
            arriving: None,
            is_first: true,
            allowance: Allowance::default(),
            read_bytes: READ_BYTES_MIN,
        }
    }

    /// Whether a frame waits for room, or arrives.
    pub(super) fn is_busy(&self) -> bool {
        self.arriving.is_some()
    }

    /// Whether there are bytes of a frame that has not asked for room yet.
    pub(super) fn has_begun(&self) -> bool {
        !self.bytes.is_empty() && self.arriving.is_none()
    }

    /// Returns the length of the next frame's body, once its length and API are known.
    pub(super) fn head(&self) -> Result<Option<usize>, Closed> {
        let Some(prefix) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        if self.is_first && matches!(prefix, [22, 3, 0..=4, _]) {
            return Err(Closed::TlsOnPlain);
        }
        let is_known = self.bytes.len() >= 6;
        let limit = if !is_known || self.begins_with_produce() {
            self.limits.frame_bytes_max
        } else {
            self.limits.decoded_frame_bytes_max
        };
        let length = frame::request_length(*prefix, limit)
            .map_err(|error| Closed::BadRequest(error.to_string(), self.caller.span()))?;
        Ok(is_known.then_some(length))
    }

    pub(super) fn begins_with_produce(&self) -> bool {
        self.bytes.get(4..6) == Some(&ApiKey::Produce.key().to_be_bytes())
    }

    /// Returns whether to read the socket: while the next frame has room, or is not known yet.
    pub(super) fn may_read(&self) -> Result<bool, Closed> {
        match &self.arriving {
            Some(arriving) => Ok(matches!(arriving.room, Claim::Given(_))),
            None => Ok(self.head()?.is_none()),
        }
    }

    /// Returns the next frame, if it is complete and `may_start`. Claims room for it as soon as it
    /// may start.
    pub(super) fn next_frame(&mut self, may_start: bool) -> Result<Option<Received>, Closed> {
        if self.arriving.is_none() {
            let Some(length) = self.head()? else { return Ok(None) };
            if !may_start {
                return Ok(None);
            }
            self.is_first = false;
            self.arriving = Some(self.ask_for_room(length));
        }
        let Some(mut arriving) = self.arriving.take() else { return Ok(None) };
        let whole = match &arriving.room {
            Claim::Waiting(_) => None,
            Claim::Given(_) => arriving.take_from(&mut self.bytes),
        };
        match (whole, arriving.room) {
            (Some(frame), Claim::Given(room)) => Ok(Some(Received {
                frame,
                room,
                waited: arriving.waited,
                whole_at: arriving.progress.into_std(),
            })),
            (_, room) => {
                arriving.room = room;
                self.arriving = Some(arriving);
                Ok(None)
            }
        }
    }

    fn ask_for_room(&self, length: usize) -> Arriving {
        let memory = &self.services.request_memory;
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
            waited: Duration::ZERO,
            progress: now,
        }
    }

    /// Returns when the waiting frame gets its room.
    pub(super) async fn room_given(&mut self) {
        let Some(arriving) = &mut self.arriving else { return };
        if let Claim::Waiting(room) = &mut arriving.room {
            let room = room.await;
            arriving.room = Claim::Given(room);
            let now = Instant::now();
            arriving.waited = now - arriving.since;
            (arriving.since, arriving.progress) = (now, now);
        }
    }

    /// Reads from the socket: into the frame that has room, or a few bytes to see the next one.
    /// Returns when bytes came, if any did.
    pub(super) fn read(&mut self, stream: &mut Transport) -> Result<Option<Instant>, Closed> {
        let (read, wanted) = match &mut self.arriving {
            Some(Arriving { body: Some(body), length, .. }) => {
                let wanted = (*length - body.len()).min(READ_BYTES_MAX);
                (stream.try_read_buf(&mut body.limit(wanted)), wanted)
            }
            arriving => {
                if self.bytes.is_empty() {
                    buffers::give_buffer(std::mem::replace(
                        &mut self.bytes,
                        buffers::take_buffer(),
                    ));
                }
                let missing =
                    arriving.as_ref().map_or(0, |arriving| 4 + arriving.length - self.bytes.len());
                let wanted = self.read_bytes.max(missing).min(READ_BUFFER_BYTES - self.bytes.len());
                self.bytes.reserve(wanted);
                (stream.try_read_buf(&mut (&mut self.bytes).limit(wanted)), wanted)
            }
        };
        let read = match read {
            Ok(0) => return Err(Closed::ByClient),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if self.bytes.is_empty() {
                    buffers::give_buffer(std::mem::take(&mut self.bytes));
                }
                return Ok(None);
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
        self.services.metrics.received_bytes(read as u64);
        let now = Instant::now();
        if let Some(arriving) = &mut self.arriving {
            arriving.progress = now;
        }
        Ok(Some(now))
    }

    /// Checks whether the current frame may wait or arrive any longer.
    pub(super) fn check(&self, stream: &Transport) -> Result<(), Closed> {
        let Some(arriving) = &self.arriving else { return Ok(()) };
        let memory = &self.services.request_memory;
        let since = arriving.since.elapsed();
        match &arriving.room {
            Claim::Waiting(_) => {
                if since >= WAIT_WORTH_TELLING {
                    memory.tell_of_waiting();
                }
                if since >= self.limits.idle_max {
                    return Err(Closed::NoRoom);
                }
                if self.is_given_up(stream, arriving.length) {
                    return Err(Closed::ByClient);
                }
            }
            Claim::Given(_) if arriving.progress.elapsed() >= STALL_MAX => {
                return Err(Closed::Idle);
            }
            Claim::Given(room) if room.is_of_the_budget() && memory.is_short() => {
                let here = arriving.body.as_ref().map_or(self.bytes.len(), BytesMut::len);
                let here = (here as u64).saturating_add(stream.unread_bytes());
                if since >= STALL_MAX || here < due(arriving.length, since) {
                    return Err(Closed::Slow);
                }
            }
            Claim::Given(_) => {}
        }
        Ok(())
    }

    /// Returns whether the client closed before it sent all of a frame of this length.
    fn is_given_up(&self, stream: &Transport, length: usize) -> bool {
        let ready = stream.socket().ready(Interest::READABLE).now_or_never();
        let is_closed = matches!(ready, Some(Ok(ready)) if ready.is_read_closed());
        let unread = stream.unread_bytes();
        is_closed && (self.bytes.len() as u64).saturating_add(unread) < 4 + length as u64
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

/// Returns when the arriving frame is due for a check. Only connections with such a frame have this
/// timer.
pub(super) async fn check_is_due() {
    tokio::time::sleep(CHECK_INTERVAL).await;
}

/// How many bytes of a frame must be here so long after it got its room, while others wait for it.
fn due(length: usize, since: Duration) -> u64 {
    let late = since.saturating_sub(LATE_MAX).as_millis();
    let due = (length as u128).saturating_mul(late) / (STALL_MAX - LATE_MAX).as_millis();
    u64::try_from(due).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_keeps_its_room_while_it_comes_in_time() {
        let due = |seconds| due(27_000, Duration::from_secs(seconds));
        assert_eq!([0, 3, 4, 16, 30].map(due), [0, 0, 1_000, 13_000, 27_000]);
        assert_eq!(super::due(usize::MAX, Duration::MAX), u64::MAX);
    }
}
