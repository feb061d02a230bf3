//! PURE: what is asked of a transaction coordinator, and what it tells.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{LeaderEpoch, ProducerId};

use super::state::{Partition, Producer, Refusal, State};
use super::tally::Tally;
use crate::coordinator::ReplyTo;

/// What is asked of a coordinator.
#[derive(Debug)]
pub(crate) enum Request {
    /// InitProducerId. `fresh` is a producer id that nobody has, if one was needed before.
    Init {
        id: String,
        timeout_ms: i32,
        expected: Option<Producer>,
        fresh: Option<ProducerId>,
        to: ReplyTo<Result<Producer, Refusal>>,
    },
    /// AddPartitionsToTxn and AddOffsetsToTxn.
    Add {
        id: String,
        from: Producer,
        partitions: Vec<Partition>,
        /// The client's version of transactions.
        version: i16,
        to: ReplyTo<ErrorCode>,
    },
    /// AddPartitionsToTxn that only asks.
    Verify {
        id: String,
        from: Producer,
        partitions: Vec<Partition>,
        to: ReplyTo<Result<Vec<(Partition, ErrorCode)>, ErrorCode>>,
    },
    /// EndTxn.
    End {
        id: String,
        from: Producer,
        commit: bool,
        version: i16,
        fresh: Option<ProducerId>,
        to: ReplyTo<Result<Producer, Refusal>>,
    },
    /// Which transactions wait for markers, and what happened since this was asked last.
    Look { to: ReplyTo<Looked> },
    /// Markers are written.
    Written { id: String, producer: Producer, partitions: Vec<Partition>, to: ReplyTo<()> },
    /// A transaction that took too long is aborted, whose producer goes on under an id that nobody
    /// has: its own is used up.
    TimeOut { id: String, fresh: ProducerId, to: ReplyTo<()> },
    /// DescribeTransactions.
    Describe { id: String, to: ReplyTo<Option<Described>> },
    /// ListTransactions.
    List { to: ReplyTo<Vec<(String, Described)>> },
}

/// A transaction whose markers are to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(crate) id: String,
    /// Under whom.
    pub(crate) producer: Producer,
    pub(crate) commit: bool,
    /// 2 where the epoch was raised.
    pub(crate) version: i16,
    pub(crate) coordinator_epoch: LeaderEpoch,
    /// Those that lack theirs.
    pub(crate) partitions: Vec<Partition>,
}

/// What is told of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) state: State,
    pub(crate) producer: Producer,
    pub(crate) timeout_ms: i32,
    pub(crate) start_ms: i64,
    pub(crate) partitions: Vec<Partition>,
}

/// What who looks from time to time is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Those that wait for markers.
    pub(crate) prepared: Vec<Prepared>,
    /// Transactional ids whose transaction took too long and whose producer has no epoch left: they
    /// wait for a producer id that nobody has.
    pub(crate) exhausted: Vec<String>,
    /// What happened since the last time.
    pub(crate) tally: Tally,
    /// How many are open.
    pub(crate) open: usize,
    /// When the oldest of them began, in milliseconds since 1970.
    pub(crate) oldest_ms: Option<i64>,
}
