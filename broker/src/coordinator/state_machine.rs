//! The interface between the runtime and one kind of coordinator: a state machine over the records
//! of one partition, and the outcome of its decisions.
//!
//! A machine is pure: it gets the time as an argument and does no I/O. It changes its state at once
//! and returns records that describe the change. The runtime appends them, and the reply leaves
//! once they are committed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::oneshot;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{LeaderEpoch, ProducerEpoch, ProducerId};
use weir_settings::Layers;

use crate::metadata::MetadataImage;

/// The default timeout of a commit.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// Milliseconds on a monotonic clock, for timers.
    pub(crate) ms: u64,
    /// Milliseconds since 1970, for records.
    pub(crate) wall_ms: i64,
}

/// A record of a coordinator's topic. Without a value it is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
}

/// A record in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logged<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
    /// Its transaction. The record takes effect when that commits.
    pub(crate) transaction: Option<(ProducerId, ProducerEpoch)>,
}

/// The identity of a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The partition of the topic.
    pub(crate) partition: i32,
    /// The leader epoch of this broker.
    pub(crate) epoch: LeaderEpoch,
    /// Distinguishes the random choices of this process from those of all others.
    pub(crate) seed: u128,
}

/// A coordinator's state for one partition of its topic.
pub(crate) trait StateMachine: Send + Sized + 'static {
    /// The topic of its records.
    const TOPIC: &'static str;

    /// The requests. Each carries a [`ReplyTo`].
    type Request: Send + 'static;

    /// State that the machines of all partitions on this broker share: a count of memory, and
    /// nothing that lets one machine learn about another.
    type Shared: Clone + Default + Send + Sync + 'static;

    /// A machine without state.
    fn new(origin: Origin, shared: &Self::Shared) -> Self;

    /// Replays a record of the log, in order. A record that cannot be decoded is skipped alone.
    ///
    /// # Errors
    /// Why it cannot be decoded, for the log line.
    fn replay(&mut self, record: &Logged<'_>) -> Result<(), String>;

    /// Takes up the end of a transaction that this machine wrote or replayed.
    fn end_transaction(&mut self, producer: ProducerId, epoch: ProducerEpoch, committed: bool);

    /// Takes up changed metadata. Also called after loading.
    fn metadata(
        &mut self,
        image: &Arc<MetadataImage>,
        layers: &Layers<'_>,
        now: Now,
        outcome: &mut Outcome,
    );

    /// The timeout of a commit, after which the client must retry.
    fn commit_timeout(_layers: &Layers<'_>) -> Duration {
        COMMIT_TIMEOUT
    }

    /// Whether the request may need a record. If so, it is refused while nothing can be committed.
    fn writes(request: &Self::Request) -> bool;

    /// Decides a request.
    fn decide(&mut self, request: Self::Request, now: Now, outcome: &mut Outcome);

    /// Runs the timers that are due.
    fn wake(&mut self, now: Now, outcome: &mut Outcome);

    /// The time of the next timer, on the clock of [`Now::ms`].
    fn next_wake(&self) -> Option<u64>;
}

/// The outcome of a decision.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Records to append, in this order and in one batch.
    pub(crate) records: Vec<Record>,
    /// The transaction of the records.
    pub(crate) transaction: Option<(ProducerId, ProducerEpoch)>,
    /// Replies that leave once these records, and all before them, are committed.
    pub(crate) replies: Vec<Reply>,
}

/// Resolves when the records behind a reply are committed, or can never be.
pub(crate) type Commit = Shared<BoxFuture<'static, Result<(), ErrorCode>>>;

/// The reply with the commit that it must wait for.
pub(crate) type Answer<T> = (T, Option<Commit>);

/// The sender of a reply. Dropped without one, it means that the coordinator is gone.
#[derive(Debug)]
pub(crate) struct ReplyTo<T>(oneshot::Sender<Answer<T>>);

/// A reply that is ready to be sent.
pub(crate) struct Reply(Box<dyn FnOnce(Option<Commit>) + Send>);

impl<T: Send + 'static> ReplyTo<T> {
    /// A sender and the receiver of its reply.
    pub(crate) fn new() -> (Self, oneshot::Receiver<Answer<T>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Pairs the sender with its reply, for [`Outcome::replies`].
    pub(crate) fn with(self, answer: T) -> Reply {
        // The receiver may be gone because the client has disconnected.
        Reply(Box::new(move |commit| drop(self.0.send((answer, commit)))))
    }
}

impl Reply {
    /// Sends the reply. The receiver must wait for `commit` before it uses it.
    pub(crate) fn send(self, commit: Option<Commit>) {
        (self.0)(commit);
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

impl Outcome {
    /// Adds a reply.
    pub(crate) fn reply<T: Send + 'static>(&mut self, to: ReplyTo<T>, answer: T) {
        self.replies.push(to.with(answer));
    }
}

/// A commit that resolves with `done`.
pub(crate) fn commit(done: impl Future<Output = Result<(), ErrorCode>> + Send + 'static) -> Commit {
    done.boxed().shared()
}
