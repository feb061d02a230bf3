//! What the nodes of the simulated world say to each other.

use weir_broker::log::EpochEnd;
use weir_broker::replica::core::{FetchAnswer, FetchFrom};
use weir_operator::controller::state::{Partition, State};
use weir_operator::controller::{AlterPartitions, Heartbeat, Registration};
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerEpoch, ControllerEpoch, LeaderEpoch, TopicId};

use crate::log::Record;

/// Who speaks or listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// An operator.
    Operator(usize),
    /// A broker's machine.
    Broker(usize),
    /// A client: a producer or a consumer.
    Client(usize),
}

/// A session's stream. It keeps the order of what is said on it, until it breaks.
pub type Stream = u64;

/// A message.
#[derive(Clone, Debug)]
pub enum Body {
    /// A broker opens a session.
    Open(Stream, Box<Registration>),
    /// A broker's heartbeat on its stream.
    Beat(Stream, Heartbeat),
    /// The stream ended at the broker's side.
    Ended(Stream, usize),
    /// The operator says something on a stream.
    Told(Stream, ControllerEpoch, Told),
    /// The stream ended at the operator's side, or there is no controller here.
    Closed(Stream),
    /// A leader asks for another ISR; the first number names the call.
    Alter(u64, AlterPartitions),
    /// The answer to that.
    Altered(u64, Box<Result<Partition, ErrorCode>>),
    /// A follower fetches.
    Fetch(Fetch),
    /// The answer to that.
    Fetched(Box<Fetched>),
    /// A follower asks where its leader's log starts and ends.
    AskOffsets(AskOffsets),
    /// The answer to that: the start and the end.
    Offsets(AskOffsets, i64, i64),
    /// A producer sends a record.
    Produce(Produce),
    /// The answer to that, with the leader epoch that the broker knows.
    Produced(u64, LeaderEpoch, Result<i64, ErrorCode>),
    /// An administrator deletes what lies before an offset of a partition; `None`: all that is
    /// committed (DeleteRecords).
    Delete(usize, Option<i64>),
    /// A consumer reads.
    Read(Read),
    /// The answer to that.
    ReadAnswer(Box<ReadAnswer>),
}

/// What an operator says on a stream.
#[derive(Clone, Debug)]
pub enum Told {
    /// The broker is registered.
    Registered(BrokerEpoch),
    /// It is not.
    Refused(ErrorCode),
    /// The answer to a heartbeat.
    Beat {
        /// The broker may not serve yet, or no more.
        fenced: bool,
        /// The controlled shutdown is granted.
        may_shut_down: bool,
    },
    /// The metadata; whole, at the beginning of a stream.
    Metadata {
        /// The beginning of a stream.
        full: bool,
        /// All of it: what a delta would lead to.
        state: Box<State>,
    },
}

/// A follower's question for its leader's offsets.
#[derive(Clone, Copy, Debug)]
pub struct AskOffsets {
    /// The topic: what bears its name may be another one by now.
    pub topic: TopicId,
    /// The follower's process.
    pub run: u64,
    /// Of what.
    pub partition: usize,
    /// In which leader epoch.
    pub epoch: LeaderEpoch,
    /// Names the question.
    pub call: u64,
}

/// A follower's fetch.
#[derive(Clone, Copy, Debug)]
pub struct Fetch {
    /// The topic: what bears its name may be another one by now.
    pub topic: TopicId,
    /// The follower's process.
    pub run: u64,
    /// Of what.
    pub partition: usize,
    /// From where.
    pub from: FetchFrom,
    /// The epoch of the follower's registration.
    pub broker_epoch: BrokerEpoch,
}

/// The answer to a fetch.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The topic: what bears its name may be another one by now.
    pub topic: TopicId,
    /// The follower's process.
    pub run: u64,
    /// Of what.
    pub partition: usize,
    /// To what it is the answer.
    pub to: FetchFrom,
    /// What the leader says.
    pub answer: FetchAnswer,
    /// Records with their offsets.
    pub records: Vec<(i64, Record)>,
}

/// A producer's request.
#[derive(Clone, Copy, Debug)]
pub struct Produce {
    /// The topic: what bears its name may be another one by now.
    pub topic: TopicId,
    /// Names the request.
    pub request: u64,
    /// To what.
    pub partition: usize,
    /// Who sends it.
    pub producer: u64,
    /// Its place among what the producer sends; -1: it is not idempotent.
    pub sequence: i64,
    /// What tells it from others.
    pub value: u64,
    /// Whether all replicas must have it.
    pub acks_all: bool,
}

/// A consumer's request.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// The topic: what bears its name may be another one by now.
    pub topic: TopicId,
    /// Names the request.
    pub request: u64,
    /// Of what.
    pub partition: usize,
    /// From where.
    pub offset: i64,
    /// The newest leader epoch that the consumer has heard of.
    pub epoch: LeaderEpoch,
    /// The epoch of the last record that it read, if the offset is behind that.
    pub last_epoch: Option<LeaderEpoch>,
}

/// What a consumer gets.
#[derive(Clone, Debug)]
pub struct ReadAnswer {
    /// The request.
    pub request: u64,
    /// The leader's epoch.
    pub epoch: LeaderEpoch,
    /// Where the log starts.
    pub log_start: i64,
    /// Committed records from the offset on, each with its own.
    pub records: Vec<(i64, Record)>,
    /// The latest offset.
    pub latest: Result<i64, ErrorCode>,
    /// Where the newest epoch ends that the consumer has heard of (OffsetForLeaderEpoch).
    pub epoch_end: Option<EpochEnd>,
    /// The same of that of the last record that it read.
    pub last_epoch_end: Option<EpochEnd>,
    /// An error instead of records.
    pub error: ErrorCode,
}
