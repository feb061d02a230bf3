//! The messages of clients and leaders about transactions.

use std::sync::Arc;

use weir_broker::sim_api::{Ask, Marker, Producer};
use weir_protocol::error::ErrorCode;

/// A partition, by the role of its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The partition of `__transaction_state`.
    Coordinator,
    /// The partition of `__consumer_offsets`.
    Offsets,
    /// A data partition.
    Data(usize),
}

impl Role {
    /// The partition, as transactions name it.
    pub fn partition(self) -> (Arc<str>, i32) {
        match self {
            Self::Coordinator => ("__transaction_state".into(), 0),
            Self::Offsets => ("__consumer_offsets".into(), 0),
            Self::Data(index) => ("t".into(), index as i32),
        }
    }

    /// The reverse of `partition`.
    pub fn of((topic, index): &(Arc<str>, i32)) -> Self {
        match &**topic {
            "t" => Self::Data(usize::try_from(*index).unwrap_or(0)),
            _ => Self::Offsets,
        }
    }
}

/// A leader, or a process that believes it is one: the partition and the leader epoch.
pub type Leader = (Role, i32);

/// A record: its chain, its input and its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    /// The chain.
    pub chain: usize,
    /// The index of its input.
    pub index: i64,
    /// Its transaction.
    pub attempt: u64,
}

/// The receiver of an answer: a client's process and its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct From {
    /// The chain.
    pub chain: usize,
    /// The process.
    pub process: u64,
    /// The request.
    pub request: u64,
}

/// The receiver of a transaction coordinator's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A client.
    Client(From),
    /// A leader that verifies a transaction, and the number of its question.
    Leader(Leader, u64),
    /// The coordinator itself, about markers.
    Itself,
}

/// A request that a partition's leader carries out in a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// The sender.
    pub from: From,
    /// Its producer.
    pub producer: Producer,
    /// The version of transactions that the client uses.
    pub version: i16,
    /// The content.
    pub what: What,
}

/// The content of a write in a transaction.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// A record, with its sequence number.
    Record(Value, i32),
    /// The offset of the chain's group.
    Offset(i64),
}

/// A message.
#[derive(Clone, Debug)]
pub enum Body {
    /// To a transaction coordinator, about a chain's transactional id.
    Ask(Asker, usize, Ask),
    /// To the leader of a partition.
    Write(Write),
    /// To the group coordinator: a request for the chain's committed offset.
    FetchOffset(From),
    /// To a leader that verifies: the coordinator's answer to a question.
    Verified(u64, ErrorCode),
    /// From a coordinator to a partition's leader; the number identifies the task.
    Mark(Leader, u64, Marker),
    /// The answer to that.
    Marked(u64, Role, ErrorCode),
    /// To a client.
    Reply(From, Reply),
}

/// An answer to a client.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    /// To InitProducerId and EndTxn, and whether the sender is still the coordinator.
    Producer(Result<Producer, ErrorCode>, bool),
    /// To a write, and to AddPartitionsToTxn.
    Code(ErrorCode),
    /// To a request for an offset.
    Offset(Result<i64, ErrorCode>),
}

/// A chain's transactional id, which is also its group.
pub fn id(chain: usize) -> String {
    format!("chain-{chain}")
}
