//! PURE: one transactional id: its producer, its last transaction, and the next steps
//! (`TransactionMetadata` and the decisions of `TransactionCoordinator` in Apache Kafka, for
//! transactions v1 and v2, KIP-98, KIP-360 and KIP-890).
//!
//! A step returns the whole next state, or an error. It changes nothing in place, so the reply and
//! the record come from the same state. With transactions v2 the end of every transaction raises
//! the epoch, so a late request carries an old epoch.

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{ProducerEpoch, ProducerId};

/// Bytes of a transactional id besides its characters: its state, and its entries in maps and
/// queues.
const ID_BYTES: usize = 512;

/// How often its characters are in memory.
const ID_COPIES: usize = 6;

/// Bytes of a partition of a transaction, besides the name of its topic.
const PARTITION_BYTES: usize = 64;

/// The bytes of a transactional id without partitions.
pub(super) fn bytes_of_id(id: &str) -> usize {
    ID_BYTES + ID_COPIES * id.len()
}

/// The state of a transaction, with its code in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub(crate) enum State {
    /// No transaction yet.
    Empty = 0,
    /// Open.
    Ongoing = 1,
    /// Committed, and cannot be aborted any more. Its markers are being written.
    PrepareCommit = 2,
    /// Aborted; its markers are being written.
    PrepareAbort = 3,
    /// All markers of a commit are written.
    CompleteCommit = 4,
    /// All markers of an abort are written.
    CompleteAbort = 5,
}

impl State {
    /// All states.
    pub(crate) const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// Its name in ListTransactions and DescribeTransactions.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// The state with this code.
    pub(crate) fn of(code: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as i8 == code)
    }

    /// Whether markers are being written.
    pub(crate) fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

/// A topic and a partition index. The partitions of one topic in a request share its name.
pub(crate) type Partition = (Arc<str>, i32);

/// The producer that a request is from: its id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Producer {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
}

/// The state of a transactional id. Times are in milliseconds since 1970, as in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) producer: Producer,
    /// The producer id before this one.
    pub(crate) previous_id: ProducerId,
    /// The producer id that follows when the transaction is complete, because the epochs of this
    /// one are used up.
    pub(crate) next_id: ProducerId,
    /// The previous epoch, if a retried request may still carry it.
    pub(crate) last_epoch: ProducerEpoch,
    pub(crate) timeout_ms: i32,
    pub(crate) state: State,
    pub(crate) partitions: BTreeSet<Partition>,
    /// The start of the transaction, -1 without one.
    pub(crate) start_ms: i64,
    pub(crate) update_ms: i64,
    /// 2 when the end of each transaction raises the epoch for this client.
    pub(crate) client_version: i16,
}

/// The values for no producer id and no epoch.
pub(crate) const NO_ID: ProducerId = ProducerId(-1);
pub(crate) const NO_EPOCH: ProducerEpoch = ProducerEpoch(-1);

/// Why a step is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The error for the client.
    Error(ErrorCode),
    /// The step needs an unused producer id; the caller repeats the request with one.
    NeedsProducerId,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code)
    }
}

/// The outcome of InitProducerId.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Init {
    /// The producer may begin.
    Ready(Transaction),
    /// An open transaction is aborted first; the client must retry.
    Fenced(Transaction),
}

/// The outcome of EndTxn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The transaction had ended already; the client lost the answer.
    Done,
    Next(Transaction),
}

/// The largest epoch is reserved to fence a producer with the epoch below it.
const EPOCH_MAX: i16 = i16::MAX;

fn is_exhausted(epoch: ProducerEpoch) -> bool {
    epoch.0 >= EPOCH_MAX - 1
}

fn raised(epoch: ProducerEpoch) -> ProducerEpoch {
    ProducerEpoch(epoch.0.saturating_add(1))
}

impl Transaction {
    /// The bytes that it takes with its transactional id.
    pub(super) fn bytes(&self, id: &str) -> usize {
        bytes_of_id(id) + self.partition_bytes()
    }

    /// The bytes that its partitions take of those, until the transaction ends.
    pub(super) fn partition_bytes(&self) -> usize {
        self.partitions.iter().map(|(topic, _)| PARTITION_BYTES + topic.len()).sum()
    }

    /// The state of an unused transactional id.
    pub(crate) fn new(id: ProducerId, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer: Producer { id, epoch: NO_EPOCH },
            previous_id: NO_ID,
            next_id: NO_ID,
            last_epoch: NO_EPOCH,
            timeout_ms,
            state: State::Empty,
            partitions: BTreeSet::new(),
            start_ms: -1,
            update_ms: now_ms,
            client_version: 0,
        }
    }

    fn has_raised_epochs(&self) -> bool {
        self.client_version >= 2
    }

    /// InitProducerId (`prepareInitProducerIdTransit`). `expected` is the id and epoch of a
    /// producer that goes on after an error, `fresh` an unused producer id.
    pub(crate) fn init(
        &self,
        expected: Option<Producer>,
        fresh: Option<ProducerId>,
        timeout_ms: i32,
        version: i16,
        now_ms: i64,
    ) -> Result<Init, Refusal> {
        self.check_at_rest()?;
        // Either the current id, or the previous one with its last epoch, when the client lost the
        // answer with the new id.
        let is_valid = |expected: Producer| {
            self.producer.epoch == NO_EPOCH
                || expected.id == self.producer.id
                || (expected.id == self.previous_id && is_exhausted(expected.epoch))
        };
        if !expected.is_none_or(is_valid) {
            return Err(ErrorCode::ProducerFenced.into());
        }
        match self.state {
            // `check_at_rest` has refused these.
            State::PrepareCommit | State::PrepareAbort => {
                Err(ErrorCode::ConcurrentTransactions.into())
            }
            State::Ongoing => Ok(Init::Fenced(self.fenced(version, fresh, now_ms)?)),
            State::Empty | State::CompleteCommit | State::CompleteAbort => {
                let begun = Self {
                    previous_id: self.producer.id,
                    next_id: NO_ID,
                    timeout_ms,
                    state: State::Empty,
                    partitions: BTreeSet::new(),
                    start_ms: -1,
                    update_ms: now_ms,
                    ..self.clone()
                };
                let (current, last) = (self.producer.epoch, self.last_epoch);
                let (producer, last_epoch) = if is_exhausted(current)
                    && expected.is_none_or(|expected| expected.epoch == current)
                {
                    let id = fresh.ok_or(Refusal::NeedsProducerId)?;
                    let last_epoch = expected.map_or(NO_EPOCH, |_| current);
                    (Producer { id, epoch: ProducerEpoch(0) }, last_epoch)
                } else {
                    let (epoch, last_epoch) = match expected {
                        None => (raised(current), NO_EPOCH),
                        Some(expected) if current == NO_EPOCH || expected.epoch == current => {
                            (raised(current), current)
                        }
                        // A retry after a lost answer. Kafka fails here when the epoch is the last
                        // that a client may have.
                        Some(expected) if expected.epoch == last && current.0 < EPOCH_MAX => {
                            (current, last)
                        }
                        Some(_) => return Err(ErrorCode::ProducerFenced.into()),
                    };
                    let id = self.producer.id;
                    (Producer { id, epoch }, last_epoch)
                };
                Ok(Init::Ready(Self { producer, last_epoch, ..begun }))
            }
        }
    }

    /// The open transaction, aborted by a timeout or by another producer that begins with the id.
    ///
    /// With transactions v2 it ends under the next epoch, as if its producer had aborted. A
    /// producer that is still alive may send its own abort, and goes on. Before v2 it ends under an
    /// epoch that the producer does not have (`prepareFenceProducerEpoch`).
    pub(crate) fn fenced(
        &self,
        version: i16,
        fresh: Option<ProducerId>,
        now_ms: i64,
    ) -> Result<Self, Refusal> {
        if version >= 2 {
            return self.prepared_v2(false, fresh, now_ms);
        }
        let fenced = Self {
            producer: Producer { epoch: raised(self.producer.epoch), ..self.producer },
            last_epoch: NO_EPOCH,
            ..self.clone()
        };
        Ok(fenced.prepared(false, 0, NO_ID, now_ms))
    }

    /// Adds partitions to the transaction, which begins with the first. `None`: with transactions
    /// v2 they are part of it already, and the epoch identifies the transaction. Before v2 the
    /// state is written once more, which only the current coordinator can do.
    pub(crate) fn add(
        &self,
        from: Producer,
        partitions: &[Partition],
        version: i16,
        now_ms: i64,
    ) -> Result<Option<Self>, ErrorCode> {
        self.check_at_rest()?;
        self.check(from)?;
        if self.state == State::Ongoing
            && version >= 2
            && partitions.iter().all(|partition| self.partitions.contains(partition))
        {
            return Ok(None);
        }
        let mut next = Self {
            previous_id: self.producer.id,
            state: State::Ongoing,
            update_ms: now_ms,
            client_version: version,
            ..self.clone()
        };
        if self.state != State::Ongoing {
            next.start_ms = now_ms;
        }
        next.partitions.extend(partitions.iter().cloned());
        Ok(Some(next))
    }

    /// Checks that the transaction is open and, for each partition, whether it is part of it
    /// (KIP-890).
    pub(crate) fn verify<'p>(
        &self,
        from: Producer,
        partitions: &'p [Partition],
    ) -> Result<Vec<(&'p Partition, ErrorCode)>, ErrorCode> {
        self.check(from)?;
        self.check_at_rest()?;
        let verified = |partition| match self.partitions.contains(partition) {
            true => (partition, ErrorCode::None),
            false => (partition, ErrorCode::TransactionAbortable),
        };
        Ok(partitions.iter().map(verified).collect())
    }

    /// Checks that no markers are being written. The client waits until they are, under whichever
    /// id and epoch it asks: the answer to its end has given it those that hold afterwards.
    fn check_at_rest(&self) -> Result<(), ErrorCode> {
        match self.state.is_prepared() {
            true => Err(ErrorCode::ConcurrentTransactions),
            false => Ok(()),
        }
    }

    fn check(&self, from: Producer) -> Result<(), ErrorCode> {
        if from.id != self.producer.id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if from.epoch != self.producer.epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        Ok(())
    }

    /// EndTxn of a client of transactions v1 (`endTransactionWithTV1`).
    pub(crate) fn end_v1(
        &self,
        from: Producer,
        commit: bool,
        now_ms: i64,
    ) -> Result<End, ErrorCode> {
        self.check(from)?;
        self.check_at_rest()?;
        match (self.state, commit) {
            (State::Ongoing, _) => Ok(End::Next(self.prepared(commit, 0, NO_ID, now_ms))),
            (State::CompleteCommit, true) | (State::CompleteAbort, false) => Ok(End::Done),
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }

    /// EndTxn of a client of transactions v2. A repeated request carries the previous epoch.
    pub(crate) fn end_v2(
        &self,
        from: Producer,
        commit: bool,
        fresh: Option<ProducerId>,
        now_ms: i64,
    ) -> Result<End, Refusal> {
        self.check_at_rest()?;
        let (id, epoch) = (self.producer.id, self.producer.epoch);
        let after_overflow =
            self.previous_id == from.id && from.epoch.0 == EPOCH_MAX - 1 && epoch.0 == 0;
        let after_raise = i32::from(epoch.0) == i32::from(from.epoch.0) + 1;
        let is_again = after_overflow || after_raise;
        if id != from.id && !after_overflow {
            return Err(ErrorCode::InvalidProducerIdMapping.into());
        }
        let has_ended = matches!(self.state, State::CompleteCommit | State::CompleteAbort);
        if from.epoch != epoch && !(has_ended && is_again) {
            return Err(ErrorCode::ProducerFenced.into());
        }
        let prepared = |began_ms: Option<i64>| {
            let prepared = self.prepared_v2(commit, fresh, now_ms)?;
            Ok(End::Next(Self { start_ms: began_ms.unwrap_or(prepared.start_ms), ..prepared }))
        };
        match (self.state, commit) {
            (State::Ongoing, _) => prepared(None),
            (State::CompleteCommit, true) | (State::CompleteAbort, false) if is_again => {
                Ok(End::Done)
            }
            // A producer without partitions aborts in order to raise its epoch.
            (State::Empty, false) => prepared(Some(now_ms)),
            (State::CompleteCommit | State::CompleteAbort, false) if !is_again => {
                prepared(Some(now_ms))
            }
            _ => Err(ErrorCode::InvalidTxnState.into()),
        }
    }

    /// The end under transactions v2. It raises the epoch; if that uses up the epochs, the producer
    /// goes on under another id.
    fn prepared_v2(
        &self,
        commit: bool,
        fresh: Option<ProducerId>,
        now_ms: i64,
    ) -> Result<Self, Refusal> {
        let epoch = self.producer.epoch;
        // No client should have the largest epoch, because no epoch follows it. A client that has
        // it can only abort.
        if commit && epoch.0 == EPOCH_MAX {
            return Err(ErrorCode::UnknownServerError.into());
        }
        let next_id = match is_exhausted(epoch) {
            true => fresh.ok_or(Refusal::NeedsProducerId)?,
            false => NO_ID,
        };
        Ok(self.prepared(commit, 2, next_id, now_ms))
    }

    fn prepared(&self, commit: bool, version: i16, next_id: ProducerId, now_ms: i64) -> Self {
        let epoch = self.producer.epoch;
        let (raised, last_epoch) =
            if version >= 2 { (raised(epoch), epoch) } else { (epoch, self.last_epoch) };
        Self {
            producer: Producer { epoch: raised, ..self.producer },
            previous_id: self.producer.id,
            next_id,
            last_epoch,
            state: if commit { State::PrepareCommit } else { State::PrepareAbort },
            update_ms: now_ms,
            client_version: version,
            ..self.clone()
        }
    }

    /// The state when all markers are written (`prepareComplete`).
    pub(crate) fn completed(&self, now_ms: i64) -> Self {
        let producer = if self.has_raised_epochs() && self.next_id != NO_ID {
            Producer { id: self.next_id, epoch: ProducerEpoch(0) }
        } else {
            self.producer
        };
        Self {
            producer,
            previous_id: self.producer.id,
            next_id: NO_ID,
            state: if self.state == State::PrepareCommit {
                State::CompleteCommit
            } else {
                State::CompleteAbort
            },
            partitions: BTreeSet::new(),
            update_ms: now_ms,
            ..self.clone()
        }
    }

    /// The time of the next step without a request, in milliseconds since 1970. An open transaction
    /// is aborted then, and an unused transactional id is deleted.
    pub(crate) fn due_ms(&self, expiration_ms: i64) -> Option<i64> {
        match self.state {
            State::Ongoing => {
                Some(self.start_ms.saturating_add(i64::from(self.timeout_ms)).saturating_add(1))
            }
            State::PrepareCommit | State::PrepareAbort => None,
            State::Empty | State::CompleteCommit | State::CompleteAbort => {
                Some(self.update_ms.saturating_add(expiration_ms))
            }
        }
    }
}

#[cfg(test)]
mod tests;
