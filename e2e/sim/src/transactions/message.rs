//! What clients and leaders say to each other about transactions.

use std::sync::Arc;

use weir_broker::cores::{Ask, Marker, Producer};
use weir_protocol::error::ErrorCode;

/// A partition and what its leader does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// That of `__transaction_state`.
    Coordinator,
    /// That of `__consumer_offsets`.
    Offsets,
    /// One that is produced to.
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

    /// The other way round.
    pub fn of((topic, index): &(Arc<str>, i32)) -> Self {
        match &**topic {
            "t" => Self::Data(usize::try_from(*index).unwrap_or(0)),
            _ => Self::Offsets,
        }
    }
}

/// A process that leads, or believes so: the partition and the leader epoch.
pub type Leader = (Role, i32);

/// A record: who made it, of which input, in which attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    /// The chain.
    pub chain: usize,
    /// Which input it was made of.
    pub index: i64,
    /// The transaction that it belongs to.
    pub attempt: u64,
}

/// Whom an answer is for: a client's process and its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct From {
    /// The chain.
    pub chain: usize,
    /// The process.
    pub process: u64,
    /// The request.
    pub request: u64,
}

/// Who hears of what a transaction coordinator answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A client.
    Client(From),
    /// A leader that verifies: which question of its own.
    Leader(Leader, u64),
    /// The coordinator itself, about markers.
    Itself,
}

/// A request that is carried out in a transaction by the leader of a partition.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// Who asks.
    pub from: From,
    /// Its producer.
    pub producer: Producer,
    /// The version of transactions that it speaks.
    pub version: i16,
    /// What is to be written.
    pub what: What,
}

/// What is written in a transaction.
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
    /// To the group coordinator: where does the chain's group stand?
    FetchOffset(From),
    /// To a leader that verifies: what the coordinator says to a question.
    Verified(u64, ErrorCode),
    /// To the leader of a partition from a coordinator: the number names the task.
    Mark(Leader, u64, Marker),
    /// The answer to that.
    Marked(u64, Role, ErrorCode),
    /// To a client.
    Reply(From, Reply),
}

/// What a client is answered.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    /// To InitProducerId and EndTxn, and whether who says so is the coordinator still.
    Producer(Result<Producer, ErrorCode>, bool),
    /// To what is written, and to AddPartitionsToTxn.
    Code(ErrorCode),
    /// To the question for an offset.
    Offset(Result<i64, ErrorCode>),
}

/// A chain's transactional id, and its group.
pub fn id(chain: usize) -> String {
    format!("chain-{chain}")
}
