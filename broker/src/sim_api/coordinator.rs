//! A transaction coordinator.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{LeaderEpoch, ProducerId};
use weir_settings::Layers;

use super::{Marker, Producer, Record, answered, now, records};
use crate::coordinator::{Logged, Memory, Origin, Outcome, ReplyTo, StateMachine};
use crate::metadata::MetadataImage;
use crate::transaction::{Producer as OwnProducer, Refusal, Request, Transactions};

/// A request to a coordinator about one transactional id.
#[derive(Clone, Debug)]
pub enum Ask {
    /// InitProducerId. `expected` is set for a producer that continues; `fresh` is an unused id.
    Init {
        /// The producer that continues.
        expected: Option<Producer>,
        /// The id for a new transactional id.
        fresh: ProducerId,
        /// `transaction.timeout.ms`
        timeout_ms: i32,
    },
    /// Adds partitions to the transaction, for a client with this version of transactions.
    Add {
        /// The producer.
        from: Producer,
        /// Topic and index of each.
        partitions: Vec<(Arc<str>, i32)>,
        /// 0 or 2.
        version: i16,
    },
    /// Asks whether a partition is in the transaction.
    Verify {
        /// The producer that writes.
        from: Producer,
        /// Topic and index.
        partition: (Arc<str>, i32),
    },
    /// EndTxn.
    End {
        /// The producer.
        from: Producer,
        /// Whether to commit; otherwise to abort.
        commit: bool,
        /// 0 or 2.
        version: i16,
        /// An id for a producer whose epochs are exhausted.
        fresh: ProducerId,
    },
    /// Asks for the transactions of all transactional ids that wait for markers or for a producer
    /// id.
    Prepared,
    /// The transaction has timed out and its producer's epochs are exhausted: provides another id.
    TimeOut {
        /// An unused id.
        fresh: ProducerId,
    },
    /// Reports that markers are written.
    Written(Prepared),
}

/// A coordinator's answer. It counts once all earlier records of the coordinator are committed.
#[derive(Clone, Debug)]
pub enum Answer {
    /// For InitProducerId and EndTxn: the producer from now on.
    Producer(Result<Producer, ErrorCode>),
    /// For all other requests except [`Ask::Prepared`].
    Code(ErrorCode),
    /// The transactions that wait for markers, and the transactional ids of timed-out transactions
    /// that wait for a producer id.
    Prepared(Vec<Prepared>, Vec<String>),
}

/// A transaction that waits for markers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The transactional id.
    pub id: String,
    /// The marker to write.
    pub marker: Marker,
    /// The partitions to write it to.
    pub partitions: Vec<(Arc<str>, i32)>,
}

/// Returns the log record of a transactional id whose producer has reached this epoch and has no
/// open transaction.
pub fn at_rest(id: &str, producer: Producer, timeout_ms: i32) -> Record {
    let record = crate::transaction::at_rest(id, own(producer), timeout_ms, 0);
    (record.key, record.value)
}

/// A transaction coordinator, in one leader epoch.
pub struct Coordinator(Transactions);

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Coordinator")
    }
}

impl Coordinator {
    /// Creates a coordinator that has read no log.
    pub fn new(epoch: i32) -> Self {
        let origin = Origin { partition: 0, epoch: LeaderEpoch(epoch), seed: 1 };
        Self(Transactions::new(origin, &Memory::default()))
    }

    /// Replays a record of the log. As in the broker, it skips an unreadable record.
    pub fn replay(&mut self, (key, value): &Record) {
        let _ = self.0.replay(&Logged { key, value: value.as_deref(), transaction: None });
    }

    /// Ends the replay of the log.
    pub fn loaded(&mut self, ms: u64) -> Vec<Record> {
        let mut image = MetadataImage::default();
        image.features.insert("transaction.version".to_owned(), 2);
        let mut outcome = Outcome::default();
        self.0.metadata(&Arc::new(image), &Layers::default(), now(ms), &mut outcome);
        records(outcome.records)
    }

    /// Handles a request. Returns the records to append and the answer.
    pub fn ask(&mut self, id: &str, ask: Ask, ms: u64) -> (Vec<Record>, Answer) {
        let id = id.to_owned();
        match ask {
            Ask::Init { expected, fresh, timeout_ms } => {
                let (written, answer) = self.decide(ms, |to| Request::Init {
                    id,
                    timeout_ms,
                    expected: expected.map(own),
                    fresh: Some(fresh),
                    to,
                });
                (written, Answer::Producer(producer(answer)))
            }
            Ask::Add { from, partitions, version } => {
                let (written, answer) = self.decide(ms, |to| Request::Add {
                    id,
                    from: own(from),
                    partitions,
                    version,
                    to,
                });
                (written, Answer::Code(answer.unwrap_or(ErrorCode::UnknownServerError)))
            }
            Ask::Verify { from, partition } => {
                let partitions = vec![partition];
                let (written, answer) =
                    self.decide(ms, |to| Request::Verify { id, from: own(from), partitions, to });
                let said = answer.unwrap_or(Err(ErrorCode::UnknownServerError));
                let code = said.map_or_else(
                    |code| code,
                    |said| said.first().map_or(ErrorCode::UnknownServerError, |(_, code)| *code),
                );
                (written, Answer::Code(code))
            }
            Ask::End { from, commit, version, fresh } => {
                let (written, answer) = self.decide(ms, |to| Request::End {
                    id,
                    from: own(from),
                    commit,
                    version,
                    fresh: Some(fresh),
                    to,
                });
                (written, Answer::Producer(producer(answer)))
            }
            Ask::Prepared => {
                let (written, answer) = self.decide(ms, |to| Request::Look { to });
                let looked = answer.unwrap_or_default();
                let prepared = looked.prepared.into_iter().map(told);
                (written, Answer::Prepared(prepared.collect(), looked.exhausted))
            }
            Ask::TimeOut { fresh } => {
                let (written, _) = self.decide(ms, |to| Request::TimeOut { id, fresh, to });
                (written, Answer::Code(ErrorCode::None))
            }
            Ask::Written(prepared) => {
                let (written, _) = self.decide(ms, |to| Request::Written {
                    id: prepared.id,
                    producer: own((prepared.marker.producer, prepared.marker.epoch)),
                    partitions: prepared.partitions,
                    to,
                });
                (written, Answer::Code(ErrorCode::None))
            }
        }
    }

    /// Handles what is due.
    pub fn wake(&mut self, ms: u64) -> Vec<Record> {
        let mut outcome = Outcome::default();
        self.0.wake(now(ms), &mut outcome);
        records(outcome.records)
    }

    /// The time at which something is next due.
    pub fn next_wake(&self) -> Option<u64> {
        self.0.next_wake()
    }

    fn decide<T: Send + 'static>(
        &mut self,
        ms: u64,
        make: impl FnOnce(ReplyTo<T>) -> Request,
    ) -> (Vec<Record>, Option<T>) {
        let (to, receiver) = ReplyTo::new();
        let mut outcome = Outcome::default();
        self.0.decide(make(to), now(ms), &mut outcome);
        answered(receiver, outcome)
    }
}

fn own((id, epoch): Producer) -> OwnProducer {
    OwnProducer { id, epoch }
}

fn producer(answer: Option<Result<OwnProducer, Refusal>>) -> Result<Producer, ErrorCode> {
    match answer {
        Some(Ok(producer)) => Ok((producer.id, producer.epoch)),
        Some(Err(Refusal::Error(code))) => Err(code),
        Some(Err(Refusal::NeedsProducerId)) | None => Err(ErrorCode::CoordinatorNotAvailable),
    }
}

fn told(prepared: crate::transaction::Prepared) -> Prepared {
    Prepared {
        marker: Marker {
            producer: prepared.producer.id,
            epoch: prepared.producer.epoch,
            coordinator_epoch: prepared.coordinator_epoch.0,
            commit: prepared.commit,
            transaction_version: i8::try_from(prepared.version).unwrap_or(0),
        },
        id: prepared.id,
        partitions: prepared.partitions,
    }
}
