//! What a coordinator of one kind is to the runtime: a state machine over the records of one
//! partition, and what comes of asking it.
//!
//! A machine is pure: it is told the time, and does nothing itself. It changes at once and says
//! which records say so; the runtime appends them, and whoever was answered hears of it once they
//! are committed.

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

/// How long a commit may take where nothing else is set.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time, as a machine is told it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// Milliseconds on a clock that never goes back: for everything that is due.
    pub(crate) ms: u64,
    /// Milliseconds since 1970: for what is written down.
    pub(crate) wall_ms: i64,
}

/// A record of a coordinator's topic. Without a value it is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
}

/// A record as it is found in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logged<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
    /// The transaction that it belongs to: it counts once that is committed.
    pub(crate) transaction: Option<(ProducerId, ProducerEpoch)>,
}

/// Where and when a machine begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The partition of the topic.
    pub(crate) partition: i32,
    /// The epoch in which this broker leads it.
    pub(crate) epoch: LeaderEpoch,
    /// What sets this process's random choices apart from all others.
    pub(crate) seed: u128,
}

/// A coordinator's state for one partition of its topic.
pub(crate) trait Machine: Send + Sized + 'static {
    /// The topic that it is kept in.
    const TOPIC: &'static str;

    /// What is asked of it. Each request carries the [`ReplyTo`] of whoever asks.
    type Request: Send + 'static;

    /// What the machines of all partitions on this broker share: a count of what they take, and
    /// nothing that one of them could learn from another.
    type Shared: Clone + Default + Send + Sync + 'static;

    /// Nothing yet.
    fn new(origin: Origin, shared: &Self::Shared) -> Self;

    /// Takes up a record of the log, in its order. What a record says that cannot be understood
    /// costs that record alone.
    ///
    /// # Errors
    /// What is wrong with it, for the log line.
    fn replay(&mut self, record: &Logged<'_>) -> Result<(), String>;

    /// Takes up the end of a transaction whose records it has written, or replayed.
    fn end_transaction(&mut self, producer: ProducerId, epoch: ProducerEpoch, committed: bool);

    /// The metadata changed, or the machine has just been loaded.
    fn metadata(
        &mut self,
        image: &Arc<MetadataImage>,
        layers: &Layers<'_>,
        now: Now,
        outcome: &mut Outcome,
    );

    /// How long a commit may take before the asker is told to ask again.
    fn commit_timeout(_layers: &Layers<'_>) -> Duration {
        COMMIT_TIMEOUT
    }

    /// Whether carrying it out may need a record: then it is refused while none can be committed.
    fn writes(request: &Self::Request) -> bool;

    /// Carries out a request.
    fn decide(&mut self, request: Self::Request, now: Now, outcome: &mut Outcome);

    /// Does what is due.
    fn wake(&mut self, now: Now, outcome: &mut Outcome);

    /// When something will be due, on the clock of [`Now::ms`].
    fn next_wake(&self) -> Option<u64>;
}

/// What comes of a decision.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Records that are to be appended, in this order and in one batch.
    pub(crate) records: Vec<Record>,
    /// The transaction that they belong to.
    pub(crate) transaction: Option<(ProducerId, ProducerEpoch)>,
    /// What is said once they, and all before them, are committed.
    pub(crate) replies: Vec<Reply>,
}

/// Resolves when what was said is committed, or cannot be any more.
pub(crate) type Commit = Shared<BoxFuture<'static, Result<(), ErrorCode>>>;

/// What an asker is given: the answer, and what it has to wait for before it believes it.
pub(crate) type Answer<T> = (T, Option<Commit>);

/// Whom an answer is for. Dropped, it says that the coordinator is gone.
#[derive(Debug)]
pub(crate) struct ReplyTo<T>(oneshot::Sender<Answer<T>>);

/// An answer on its way.
pub(crate) struct Reply(Box<dyn FnOnce(Option<Commit>) + Send>);

impl<T: Send + 'static> ReplyTo<T> {
    /// Somebody who can be answered, and where the answer arrives.
    pub(crate) fn new() -> (Self, oneshot::Receiver<Answer<T>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// The answer, for [`Outcome::replies`].
    pub(crate) fn with(self, answer: T) -> Reply {
        // Nobody waits any more: the client is gone.
        Reply(Box::new(move |commit| drop(self.0.send((answer, commit)))))
    }
}

impl Reply {
    /// Hands it over; it is believed after `commit`.
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
    /// Answers somebody.
    pub(crate) fn reply<T: Send + 'static>(&mut self, to: ReplyTo<T>, answer: T) {
        self.replies.push(to.with(answer));
    }
}

/// A commit that waits for `done`.
pub(crate) fn commit(done: impl Future<Output = Result<(), ErrorCode>> + Send + 'static) -> Commit {
    done.boxed().shared()
}
