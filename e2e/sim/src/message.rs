//! The messages between the nodes of the simulated world.

use weir_broker::replica::core::{FetchAnswer, FetchFrom};
use weir_log::EpochEnd;
use weir_operator::controller::state::{Partition, State};
use weir_operator::controller::{AlterPartitions, Heartbeat, Registration};
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerEpoch, ControllerEpoch, LeaderEpoch, TopicId};

use crate::log::Record;

/// A sender or a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// An operator.
    Operator(usize),
    /// A broker's machine.
    Broker(usize),
    /// A client: a producer or a consumer.
    Client(usize),
}

/// A session's stream. It keeps the order of its messages until it breaks.
pub type Stream = u64;

/// A message.
#[derive(Clone, Debug)]
pub enum Body {
    /// A broker opens a session.
    Open(Stream, Box<Registration>),
    /// A broker's heartbeat on its stream.
    Beat(Stream, Heartbeat),
    /// The broker closed the stream.
    Ended(Stream, usize),
    /// The operator sends on a stream.
    Told(Stream, ControllerEpoch, Told),
    /// The operator closed the stream, or it is not the controller.
    Closed(Stream),
    /// A leader proposes an ISR; the first number identifies the call.
    Alter(u64, AlterPartitions),
    /// The result of that call.
    Altered(u64, Box<Result<Partition, ErrorCode>>),
    /// A follower fetches.
    Fetch(Fetch),
    /// The answer to a fetch.
    Fetched(Box<Fetched>),
    /// A follower asks for the start and the end of its leader's log.
    AskOffsets(AskOffsets),
    /// The answer: the start and the end.
    Offsets(AskOffsets, i64, i64),
    /// A producer sends a record.
    Produce(Produce),
    /// The result of a produce, with the leader epoch that the broker knows.
    Produced(u64, LeaderEpoch, Result<i64, ErrorCode>),
    /// An administrator deletes the records before an offset of a partition (DeleteRecords);
    /// `None`: all committed records.
    Delete(usize, Option<i64>),
    /// A consumer reads.
    Read(Read),
    /// The answer to a read.
    ReadAnswer(Box<ReadAnswer>),
}

/// A message of an operator on a stream.
#[derive(Clone, Debug)]
pub enum Told {
    /// The registration succeeded.
    Registered(BrokerEpoch),
    /// The registration was refused.
    Refused(ErrorCode),
    /// The answer to a heartbeat.
    Beat {
        /// The broker may not serve yet, or not any more.
        fenced: bool,
        /// The controller grants the shutdown.
        may_shut_down: bool,
    },
    /// The metadata; complete at the beginning of a stream.
    Metadata {
        /// The first update of a stream.
        full: bool,
        /// The whole state: the result of applying a delta.
        state: Box<State>,
    },
}

/// A follower's request for its leader's offsets.
#[derive(Clone, Copy, Debug)]
pub struct AskOffsets {
    /// The topic's id, because another topic may have its name by now.
    pub topic: TopicId,
    /// The follower's process.
    pub run: u64,
    /// The partition.
    pub partition: usize,
    /// The leader epoch.
    pub epoch: LeaderEpoch,
    /// Identifies the request.
    pub call: u64,
}

/// A follower's fetch.
#[derive(Clone, Copy, Debug)]
pub struct Fetch {
    /// The topic's id, because another topic may have its name by now.
    pub topic: TopicId,
    /// The follower's process.
    pub run: u64,
    /// The partition.
    pub partition: usize,
    /// The offset and the epoch to fetch from.
    pub from: FetchFrom,
    /// The epoch of the follower's registration.
    pub broker_epoch: BrokerEpoch,
}

/// The answer to a fetch.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The topic's id, because another topic may have its name by now.
    pub topic: TopicId,
    /// The follower's process.
    pub run: u64,
    /// The partition.
    pub partition: usize,
    /// The request.
    pub to: FetchFrom,
    /// The leader's answer.
    pub answer: FetchAnswer,
    /// Records with their offsets.
    pub records: Vec<(i64, Record)>,
}

/// A producer's request.
#[derive(Clone, Copy, Debug)]
pub struct Produce {
    /// The topic's id, because another topic may have its name by now.
    pub topic: TopicId,
    /// Identifies the request.
    pub request: u64,
    /// The partition.
    pub partition: usize,
    /// The producer.
    pub producer: u64,
    /// The producer's sequence number; -1 if it is not idempotent.
    pub sequence: i64,
    /// A unique value.
    pub value: u64,
    /// Whether the producer uses `acks=all`.
    pub acks_all: bool,
}

/// A consumer's request.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// The topic's id, because another topic may have its name by now.
    pub topic: TopicId,
    /// Identifies the request.
    pub request: u64,
    /// The partition.
    pub partition: usize,
    /// The offset.
    pub offset: i64,
    /// The newest leader epoch that the consumer knows.
    pub epoch: LeaderEpoch,
    /// The epoch of the last record that it read, if that is right before the offset.
    pub last_epoch: Option<LeaderEpoch>,
}

/// The answer to a consumer.
#[derive(Clone, Debug)]
pub struct ReadAnswer {
    /// The request.
    pub request: u64,
    /// The leader's epoch.
    pub epoch: LeaderEpoch,
    /// The log start offset.
    pub log_start: i64,
    /// Committed records from the offset on, with their offsets.
    pub records: Vec<(i64, Record)>,
    /// The latest offset.
    pub latest: Result<i64, ErrorCode>,
    /// The end of the newest epoch that the consumer knows (OffsetForLeaderEpoch).
    pub epoch_end: Option<EpochEnd>,
    /// The end of the epoch of the last record that it read.
    pub last_epoch_end: Option<EpochEnd>,
    /// An error instead of records.
    pub error: ErrorCode,
}
