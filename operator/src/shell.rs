//! The shell around the controller core: a mailbox, and for each batch of calls: decide, apply,
//! commit, tell.
//!
//! The RPC server and the local service send calls. Replies, metadata and log lines leave only
//! after the commit of the state that they report. After a failed commit the shell discards the
//! state, loads it again and closes every stream; callers without an answer have to ask again. If
//! the store refuses a resource, only the request for it fails (`requests`). The shell never
//! decides anything itself.

mod committed;
mod door;
mod journal;
mod replies;
mod requests;
mod takeover;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tonic::Status;
use tracing::{Instrument as _, error, info, warn};
use weir_protocol::controller as rpc;
use weir_protocol::types::BrokerId;

use self::committed::Committed;
pub use self::door::moment;
use self::door::{Clock, Door};
pub use self::journal::Counted;
use self::takeover::take_over_from;
use crate::controller::sessions::{SESSION_TIMEOUT_MS, Sessions, StreamId, Timestamp};
use crate::controller::state::{Change, State};
use crate::controller::{
    Event, Heartbeat, Moment, RECORDS_PER_REQUEST_MAX, Registration, Reply, balance_interval_ms,
    decide,
};
use crate::probe;
use crate::store::{Store, StoreError};

/// The most waiting calls. With more, callers wait to send theirs.
const MAILBOX: usize = 1024;

/// The most calls that are decided and committed together.
const BATCH_MAX: usize = 256;

/// A controller that wakes more than this late, in milliseconds, counts as paused.
const PAUSE_MS_MAX: u64 = 250;

/// The most messages that wait for a broker. Beyond that the shell closes the stream, and the
/// broker starts again with the whole metadata.
pub const STREAM_MESSAGES_MAX: usize = 256;

/// The sender of a stream's messages.
pub type Outbound = mpsc::Sender<Result<rpc::ControllerMessage, Status>>;

/// A read of the committed state.
type Query = Box<dyn FnOnce(&State) + Send>;

enum Command {
    Ask(Event, oneshot::Sender<Answer>),
    Open(Registration, StreamId, Outbound),
    Heartbeat(Heartbeat, StreamId),
    Broke(BrokerId, StreamId),
    Gone(BrokerId, StreamId),
    Query(Query),
    Unheard(oneshot::Sender<Vec<BrokerId>>),
}

/// A committed reply.
#[derive(Debug)]
pub struct Answer {
    /// The reply.
    pub reply: Reply,
    /// The metadata version that contains the result.
    pub version: u64,
}

/// There is no controller here, or not at the moment; try again.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the controller is not available")]
pub struct Unavailable;

/// A handle of a running controller.
#[derive(Clone, Debug)]
pub struct Controller {
    calls: mpsc::Sender<Command>,
    committed: watch::Receiver<State>,
    door: Arc<Door>,
    counted: Counted,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Call")
    }
}

impl Controller {
    /// Takes over the state in the store and starts. The task ends when the last `Controller` is
    /// dropped, or when the store can no longer be read.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn start<S: Store>(
        store: S,
    ) -> Result<(Self, JoinHandle<Result<(), StoreError>>), StoreError> {
        Self::start_elsewhere(store, Duration::ZERO).await
    }

    /// As [`Self::start`], for a controller at a new address. Brokers learn of it within `excused`,
    /// and no broker is fenced for its silence until then.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn start_elsewhere<S: Store>(
        mut store: S,
        excused: Duration,
    ) -> Result<(Self, JoinHandle<Result<(), StoreError>>), StoreError> {
        let clock = Clock::start();
        let excused_until =
            clock.now().plus(u64::try_from(excused.as_millis()).unwrap_or(u64::MAX));
        let (state, sessions) = take_over_from(&mut store, &clock, excused_until).await?;
        let (calls, mailbox) = mpsc::channel(MAILBOX);
        let (publish, committed) = watch::channel(state.clone());
        let (door, counted) = (Arc::new(Door::new(clock)), Counted::default());
        let shell = ControllerRuntime {
            publish,
            store,
            state,
            sessions,
            streams: BTreeMap::new(),
            balanced_at: clock.now(),
            excused_at: None,
            excused_until,
            clock,
            calls: calls.downgrade(),
            door: Arc::clone(&door),
            counted: counted.clone(),
        };
        let controller = Self { calls, committed, door, counted };
        Ok((controller, tokio::spawn(shell.run(mailbox).in_current_span())))
    }

    /// What it has committed and counted.
    pub fn counted(&self) -> Counted {
        self.counted.clone()
    }

    /// Sends an event and waits for the commit of its result.
    ///
    /// # Errors
    /// When it could not be committed; it may have happened or not.
    pub async fn ask(&self, event: Event) -> Result<Answer, Unavailable> {
        self.submit(event).await?.await.map_err(|_| Unavailable)
    }

    /// Sends an event; the caller can await the answer. Events of one caller are decided in their
    /// order.
    ///
    /// # Errors
    /// When the controller has ended.
    pub async fn submit(&self, event: Event) -> Result<oneshot::Receiver<Answer>, Unavailable> {
        let (tell, told) = oneshot::channel();
        self.calls.send(Command::Ask(event, tell)).await.map_err(|_| Unavailable)?;
        Ok(told)
    }

    /// The committed state as it changes. A reader may miss versions in between.
    pub fn committed(&self) -> watch::Receiver<State> {
        self.committed.clone()
    }

    /// Reads the committed state.
    ///
    /// # Errors
    /// When the controller has ended.
    pub async fn query<T: Send + 'static>(
        &self,
        at: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (tell, told) = oneshot::channel();
        let look = Box::new(move |state: &State| drop(tell.send(at(state))));
        self.calls.send(Command::Query(look)).await.map_err(|_| Unavailable)?;
        told.await.map_err(|_| Unavailable)
    }

    /// The brokers that were unfenced when this controller took over and have not connected since.
    /// Brokers whose session expired meanwhile are fenced, and not among them.
    ///
    /// # Errors
    /// When the controller has ended.
    pub async fn unheard(&self) -> Result<Vec<BrokerId>, Unavailable> {
        let (tell, told) = oneshot::channel();
        self.calls.send(Command::Unheard(tell)).await.map_err(|_| Unavailable)?;
        told.await.map_err(|_| Unavailable)
    }

    pub(crate) async fn open(
        &self,
        registration: Registration,
        stream: StreamId,
        out: Outbound,
    ) -> Result<(), Unavailable> {
        self.calls.send(Command::Open(registration, stream, out)).await.map_err(|_| Unavailable)
    }

    pub(crate) async fn heartbeat(
        &self,
        heartbeat: Heartbeat,
        stream: StreamId,
    ) -> Result<(), Unavailable> {
        self.door.note(heartbeat.broker, stream);
        self.calls.send(Command::Heartbeat(heartbeat, stream)).await.map_err(|_| Unavailable)
    }

    /// Reports the end of a stream. A full mailbox drops the report; then the session times out.
    pub(crate) fn broke(&self, broker: BrokerId, stream: StreamId) {
        let _ = self.calls.try_send(Command::Broke(broker, stream));
    }
}

struct Stream {
    id: StreamId,
    out: Outbound,
}

struct ControllerRuntime<S> {
    store: S,
    state: State,
    sessions: Sessions,
    streams: BTreeMap<BrokerId, Stream>,
    clock: Clock,
    /// Publishes the committed state to watchers, without waiting for them.
    publish: watch::Sender<State>,
    /// When the leaders were last balanced; the next round comes one interval later.
    balanced_at: Timestamp,
    /// When brokers last got extra time because the controller was paused.
    excused_at: Option<Timestamp>,
    /// Until this time a broker that has not connected is not fenced.
    excused_until: Timestamp,
    /// Sends the results of probes to this mailbox.
    calls: mpsc::WeakSender<Command>,
    /// The brokers whose calls have arrived but may still wait.
    door: Arc<Door>,
    counted: Counted,
}

/// A message to send once the batch is committed.
enum PendingReply {
    Answer(oneshot::Sender<Answer>, Reply),
    Opened(BrokerId, Stream, Reply),
    Heartbeat(BrokerId, Reply),
    Query(Query),
}

impl<S: Store> ControllerRuntime<S> {
    async fn run(mut self, mut mailbox: mpsc::Receiver<Command>) -> Result<(), StoreError> {
        let mut calls = Vec::with_capacity(BATCH_MAX);
        let mut woke_at = self.clock.now();
        loop {
            let deadline =
                [self.sessions.next_deadline(), self.balance_due()].into_iter().flatten().min();
            // Calls that one batch left are the start of the next.
            if calls.is_empty() {
                tokio::select! {
                    // Calls that have arrived come before any session expires.
                    biased;
                    received = mailbox.recv_many(&mut calls, BATCH_MAX) => if received == 0 { return Ok(()) },
                    () = self.clock.sleep_until(deadline) => {}
                }
            } else {
                // New calls join the batch: a heartbeat does not wait for all requests of clients.
                while calls.len() < 2 * BATCH_MAX
                    && let Ok(call) = mailbox.try_recv()
                {
                    calls.push(call);
                }
            }
            let now = self.clock.now();
            self.extend_sessions_after_stall(
                deadline.map_or(now, |deadline| deadline.max(woke_at)),
                now,
            );
            woke_at = now;
            calls = self.batch(std::mem::take(&mut calls), now).await?;
        }
    }

    /// Gives brokers extra time if the controller itself was paused beyond its planned wake-up.
    fn extend_sessions_after_stall(&mut self, meant: Timestamp, now: Timestamp) {
        // Once per session timeout: a controller that is always late must still find dead brokers.
        let may_excuse = self.excused_at.is_none_or(|at| now >= at.plus(SESSION_TIMEOUT_MS.into()));
        if may_excuse && now > meant.plus(PAUSE_MS_MAX) {
            let late_ms = now.0.saturating_sub(meant.0);
            warn!(late_ms, "the controller stood still: brokers get time to be heard");
            self.sessions.slept_until(now);
            self.excused_at = Some(now);
        }
    }

    /// Decides and commits calls; `awake` is when the controller woke. Returns the calls for the
    /// next batch, once this one has become large.
    ///
    /// Requests that may write resources are committed separately, after the others, because the
    /// store may refuse them.
    async fn batch(
        &mut self,
        calls: Vec<Command>,
        awake: Timestamp,
    ) -> Result<Vec<Command>, StoreError> {
        let (requests, others): (Vec<Command>, Vec<Command>) =
            calls.into_iter().partition(Command::may_write_resources);
        let mut left = self.others(others, awake).await?;
        left.extend(self.requests(requests).await?);
        Ok(left)
    }

    async fn others(
        &mut self,
        calls: Vec<Command>,
        awake: Timestamp,
    ) -> Result<Vec<Command>, StoreError> {
        let before = self.state.clone();
        let mut changes = Vec::new();
        let mut tellings = Vec::new();
        let mut calls = calls.into_iter();
        while changes.len() <= RECORDS_PER_REQUEST_MAX
            && let Some(call) = calls.next()
        {
            tellings.extend(self.carry_out(call, &mut changes));
        }
        self.end_sessions(awake, &mut changes);
        self.balance(&mut changes);
        match self.commit(&before, &changes).await? {
            Committed::Done => tellings.into_iter().for_each(|telling| self.reply(telling)),
            Committed::Lost => {}
            Committed::Refused(refused) => {
                // None of these changes writes a resource.
                error!(?refused, "cannot commit the cluster's state: it is read anew");
                self.read_anew().await?;
            }
        }
        Ok(calls.collect())
    }

    fn carry_out(&mut self, call: Command, changes: &mut Vec<Change>) -> Option<PendingReply> {
        match call {
            Command::Ask(event, tell) => {
                Some(PendingReply::Answer(tell, self.decide(event, changes)))
            }
            Command::Query(look) => Some(PendingReply::Query(look)),
            Command::Unheard(tell) => {
                let _ = tell.send(self.sessions.unheard());
                None
            }
            Command::Broke(broker, stream) => {
                self.sessions.broke(broker, stream, self.clock.now());
                if self.streams.get(&broker).is_some_and(|open| open.id == stream) {
                    self.streams.remove(&broker);
                    self.probe_process(broker, stream);
                }
                None
            }
            Command::Gone(broker, stream) => {
                self.sessions.gone(broker, stream);
                None
            }
            Command::Open(registration, id, out) => {
                let (broker, is_certified) = (registration.broker, registration.is_certified);
                let reply = self.decide(Event::Register(registration), changes);
                if matches!(reply, Reply::Registered(_)) {
                    self.sessions.opened(broker, id, self.clock.now(), self.state.version);
                    if is_certified {
                        self.sessions.certified(broker);
                    }
                    // The old stream gets no more messages, so that nothing of the new registration
                    // reaches an old process.
                    self.streams.remove(&broker);
                }
                Some(PendingReply::Opened(broker, Stream { id, out }, reply))
            }
            Command::Heartbeat(heartbeat, stream) => {
                let broker = heartbeat.broker;
                if !self.sessions.belongs_to(broker, stream) {
                    return None;
                }
                self.sessions.heard(broker, heartbeat.applied_version, self.clock.now());
                Some(PendingReply::Heartbeat(
                    broker,
                    self.decide(Event::Heartbeat(heartbeat), changes),
                ))
            }
        }
    }

    /// Probes in the background whether a broker's process still exists.
    fn probe_process(&self, broker: BrokerId, stream: StreamId) {
        let endpoint = self.state.brokers.get(&broker).and_then(|broker| broker.endpoints.first());
        let Some((host, port)) = endpoint.map(|endpoint| (endpoint.host.clone(), endpoint.port))
        else {
            return;
        };
        let calls = self.calls.clone();
        let look = async move {
            if probe::nobody_listens(&host, port).await
                && let Some(calls) = calls.upgrade()
            {
                info!(%broker, host, port, "the broker's process is gone");
                // A full mailbox drops it; then the broker has the grace period of any broken
                // stream.
                let _ = calls.try_send(Command::Gone(broker, stream));
            }
        };
        tokio::spawn(look.in_current_span());
    }

    fn decide(&mut self, event: Event, changes: &mut Vec<Change>) -> Reply {
        let moment = self.clock.moment();
        self.decide_at(event, &moment, changes)
    }

    fn decide_at(&mut self, event: Event, moment: &Moment, changes: &mut Vec<Change>) -> Reply {
        let outcome = decide(&self.state, &self.sessions, event, moment);
        for change in &outcome.changes {
            self.state.apply(change);
        }
        changes.extend(outcome.changes);
        outcome.reply
    }

    /// Fences brokers whose session had expired when the controller woke; the time of its own
    /// decisions does not count. Their streams end, so a live broker registers again.
    fn end_sessions(&mut self, awake: Timestamp, changes: &mut Vec<Change>) {
        for (broker, (stream, at)) in self.door.take() {
            self.sessions.came(broker, stream, at);
        }
        let expired = self.sessions.expired(awake);
        if expired.is_empty() {
            return;
        }
        let moment = Moment { now: awake, ..self.clock.moment() };
        self.decide_at(Event::Tick, &moment, changes);
        for broker in expired {
            self.sessions.ended(broker);
            self.streams.remove(&broker);
        }
    }

    /// When the next round of balancing is due; `None`: never.
    fn balance_due(&self) -> Option<Timestamp> {
        balance_interval_ms(&self.state).map(|interval| self.balanced_at.plus(interval))
    }

    fn balance(&mut self, changes: &mut Vec<Change>) {
        let now = self.clock.now();
        if self.balance_due().is_none_or(|due| due > now) {
            return;
        }
        // If there are more leaders to move, another round is due as soon as this one is committed.
        if !matches!(self.decide(Event::Balance, changes), Reply::Balanced { more: true }) {
            self.balanced_at = now;
        }
    }
}
