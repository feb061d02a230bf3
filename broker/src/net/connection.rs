//! One client's connection: reads frames, hands them to the APIs, and sends replies in the order of
//! the requests.
//!
//! Produces start while earlier ones still wait for their commit, so one connection can fill a
//! group commit. As in Kafka, every other request starts when all earlier ones are answered. Beyond
//! a bounded number of requests or bytes, the connection does not read its socket.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Span, debug_span};
use weir_protocol::api::ApiKey;

use super::answers::Promised;
use super::closed::Closed;
use super::input::{Input, Limits, STALL_MAX, check_is_due};
use super::login::Validity;
use super::output::Output;
use super::transport::Transport;
use crate::api::{self, Caller, Dispatch, Received, Reply, Services};
use crate::budget::no_room;

/// The most produces of one connection in flight. The Java client sends up to 5, librdkafka up to
/// 1,000,000; the rest stays in the socket.
const IN_FLIGHT_MAX: usize = 64;

/// The parameters of an accepted connection.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The parts of the broker.
    pub(crate) services: Arc<Services>,
    /// The client.
    pub(crate) caller: Arc<Caller>,
    /// How long the client's login is good, if it has logged in.
    pub(super) validity: Option<Validity>,
    /// Turns true when the broker stops.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Serves one connection to its end.
pub(super) async fn serve(accepted: Accepted, stream: Transport) -> Closed {
    let limits = Limits::of(&accepted.services);
    let answers = accepted.services.answer_memory.clone();
    let metrics = Arc::clone(&accepted.services.metrics);
    let mut connection = Connection {
        input: Input::new(Arc::clone(&accepted.services), Arc::clone(&accepted.caller), limits),
        accepted,
        stream,
        limits,
        in_flight: FuturesOrdered::new(),
        promised: Promised::default(),
        producing: false,
        output: Output::new(limits.idle_max, answers, metrics),
        active: Instant::now(),
    };
    let closed = match connection.run().await {
        Ok(never) => match never {},
        Err(closed) => closed,
    };
    connection.stream.close();
    closed
}

/// Returns when the broker stops; its sender lives as long as the server.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}

/// Returns once the client's login is no longer good.
async fn ended(validity: &mut Option<Validity>) {
    match validity {
        Some(validity) => validity.ended().await,
        None => std::future::pending().await,
    }
}

struct Connection {
    accepted: Accepted,
    stream: Transport,
    limits: Limits,
    input: Input,
    /// Requests in progress, in order.
    in_flight: FuturesOrdered<InFlight>,
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
        let mut validity = self.accepted.validity.take();
        loop {
            while let Some(received) = self.input.next_frame(self.next_may_start())? {
                self.start(received).await?;
            }
            self.answer_what_is_ready().await?;
            if !self.input.is_busy() && self.input.head()?.is_some() && self.next_may_start() {
                continue;
            }
            let may_read = self.input.may_read()?;
            if !may_read && !self.input.is_busy() {
                self.accepted.caller.next_is_here.notify_one();
            }
            tokio::select! {
                biased;
                // A client that always has something to read must not stay for that.
                () = ended(&mut validity) => return Err(Closed::Revoked),
                Some(reply) = self.in_flight.next(), if !self.in_flight.is_empty() => self.push_next(reply).await?,
                () = self.input.room_given(), if !may_read && self.input.is_busy() => {}
                readable = self.stream.readable(), if may_read => {
                    readable?;
                    if let Some(now) = self.input.read(&mut self.stream)? {
                        self.active = now;
                    }
                }
                () = stopped(&mut stop), if self.in_flight.is_empty() => return Err(Closed::Stopping),
                () = check_is_due(), if self.input.is_busy() => self.input.check(&self.stream)?,
                () = tick.as_mut() => {
                    self.input.check(&self.stream)?;
                    self.check_idle()?;
                    tick.as_mut().reset(Instant::now() + self.tick());
                }
            }
        }
    }

    /// Returns whether the next request may start before the ones in flight are answered.
    fn next_may_start(&self) -> bool {
        self.in_flight.is_empty()
            || (self.input.begins_with_produce()
                && self.producing
                && self.in_flight.len() < IN_FLIGHT_MAX)
    }

    async fn start(&mut self, received: Received) -> Result<(), Closed> {
        self.producing = received.frame.get(..2) == Some(&ApiKey::Produce.key().to_be_bytes());
        // Without debug lines this is nothing. Other lines bring what they need (`Caller::span`).
        let span = debug_span!("request", api = Empty, correlation_id = Empty, client_id = Empty);
        let (services, caller) = (&self.accepted.services, &self.accepted.caller);
        match span.in_scope(|| api::dispatch(services, caller, received, &span)) {
            Dispatch::Now(reply) if self.in_flight.is_empty() => self.push(reply).await,
            Dispatch::Now(reply) => {
                self.enqueue(std::future::ready(reply).boxed(), 0, None, span);
                Ok(())
            }
            Dispatch::Later(reply) => {
                self.enqueue(reply, 0, None, span);
                Ok(())
            }
            Dispatch::Produced { reply, bytes_max, alone } => {
                // Its records are appended, or queued for that. The requests behind it start before
                // this one is looked at again.
                self.enqueue(reply, bytes_max, Some(std::time::Instant::now()), span);
                self.producing &= !alone;
                Ok(())
            }
            Dispatch::Close(reason, about) => {
                // Earlier requests are still answered.
                while let Some(reply) = self.in_flight.next().await {
                    self.push_next(reply).await?;
                }
                self.flush().await?;
                Err(Closed::BadRequest(reason, about))
            }
        }
    }

    /// Queues a reply behind the earlier ones. Others may join it as long as the budget has memory
    /// for their answers. The request waits for others from `waits_since` on, or once its reply
    /// does.
    fn enqueue(
        &mut self,
        reply: BoxFuture<'static, Reply>,
        bytes_max: usize,
        waits_since: Option<std::time::Instant>,
        span: Span,
    ) {
        let memory = &self.accepted.services.answer_memory;
        let reply = match self.promised.add(bytes_max, memory) {
            Some(room) if room.is_of_the_budget() => {
                async move { Reply { room, ..reply.await } }.boxed()
            }
            Some(_) => reply,
            // No other request joins it, and it is answered once there is room. Its records are
            // appended already.
            None => {
                self.producing = false;
                let (memory, caller, wait_max) =
                    (memory.clone(), Arc::clone(&self.accepted.caller), self.limits.idle_max);
                async move {
                    match memory.produced_room(caller.peer.ip(), bytes_max, wait_max).await {
                        Some(room) => Reply { room, ..reply.await },
                        None => {
                            caller.span().in_scope(|| no_room(bytes_max, wait_max));
                            Reply::close()
                        }
                    }
                }
                .boxed()
            }
        };
        self.in_flight.push_back(InFlight { reply, waits_since, span });
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
        self.output.flush(&mut self.stream).await.map_err(Closed::by_output)
    }

    async fn push(&mut self, reply: Reply) -> Result<(), Closed> {
        let close = reply.close;
        // While a frame is arriving, a client that reads nothing gets less time.
        self.output.stall_max = match self.input.is_busy() {
            true => STALL_MAX.min(self.limits.idle_max),
            false => self.limits.idle_max,
        };
        let sent = self
            .output
            .push(&mut self.stream, reply, self.promised.have_room())
            .await
            .map_err(Closed::by_output)?;
        self.accepted.services.metrics.sent_bytes(sent);
        self.active = Instant::now();
        if close {
            self.flush().await?;
            return Err(Closed::Unanswerable);
        }
        Ok(())
    }

    fn tick(&self) -> Duration {
        STALL_MAX.min(self.limits.idle_max)
    }

    fn check_idle(&self) -> Result<(), Closed> {
        let silent = self.active.elapsed();
        let stalled = self.input.has_begun() && self.in_flight.is_empty() && silent >= STALL_MAX;
        if stalled
            || (silent >= self.limits.idle_max
                && self.in_flight.is_empty()
                && !self.input.is_busy())
        {
            return Err(Closed::Idle);
        }
        Ok(())
    }
}

/// A request in progress.
struct InFlight {
    reply: BoxFuture<'static, Reply>,
    /// Since when it waits for others.
    waits_since: Option<std::time::Instant>,
    span: Span,
}

impl Future for InFlight {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let Self { reply, span, .. } = &mut *self;
        match span.in_scope(|| reply.as_mut().poll(cx)) {
            Poll::Pending => {
                self.waits_since.get_or_insert_with(std::time::Instant::now);
                Poll::Pending
            }
            Poll::Ready(mut reply) => {
                if let (Some(timing), Some(since)) = (&mut reply.timing, self.waits_since) {
                    timing.waited_since(since);
                }
                Poll::Ready(reply)
            }
        }
    }
}
