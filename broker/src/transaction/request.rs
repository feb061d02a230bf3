//! PURE: the requests to a transaction coordinator, and its replies.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{LeaderEpoch, ProducerId};

use super::state::{Partition, Producer, Refusal, State};
use super::tally::Tally;
use crate::coordinator::ReplyTo;

/// A request to a coordinator.
#[derive(Debug)]
pub(crate) enum Request {
    /// InitProducerId. `fresh` is an unused producer id, given after [`Refusal::NeedsProducerId`].
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
        /// The client's transaction version.
        version: i16,
        to: ReplyTo<ErrorCode>,
    },
    /// AddPartitionsToTxn that only verifies.
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
    /// Asks which transactions lack markers or producer ids, and takes the counts since the last
    /// time.
    Look { to: ReplyTo<Looked> },
    /// Reports written markers.
    Written { id: String, producer: Producer, partitions: Vec<Partition>, to: ReplyTo<()> },
    /// Aborts a transaction that timed out and whose producer has used up its epochs. The producer
    /// goes on under `fresh`, an unused id.
    TimeOut { id: String, fresh: ProducerId, to: ReplyTo<()> },
    /// DescribeTransactions.
    Describe { id: String, to: ReplyTo<Option<Described>> },
    /// ListTransactions.
    List { to: ReplyTo<Vec<(String, Described)>> },
}

/// A transaction whose markers must be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(crate) id: String,
    /// The producer id and epoch of the markers.
    pub(crate) producer: Producer,
    pub(crate) commit: bool,
    /// 2 when the end raised the epoch.
    pub(crate) version: i16,
    pub(crate) coordinator_epoch: LeaderEpoch,
    /// The partitions without a marker.
    pub(crate) partitions: Vec<Partition>,
}

/// The description of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) state: State,
    pub(crate) producer: Producer,
    pub(crate) timeout_ms: i32,
    pub(crate) start_ms: i64,
    pub(crate) partitions: Vec<Partition>,
}

/// The reply to [`Request::Look`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    /// The transactions that lack markers.
    pub(crate) prepared: Vec<Prepared>,
    /// Transactional ids whose transaction timed out and whose producer has no epoch left. They
    /// wait for an unused producer id.
    pub(crate) exhausted: Vec<String>,
    /// The counts since the last request.
    pub(crate) tally: Tally,
    /// The number of open transactions.
    pub(crate) open: usize,
    /// The start of the oldest open transaction, in milliseconds since 1970.
    pub(crate) oldest_ms: Option<i64>,
}
