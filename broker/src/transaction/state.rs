//! PURE: one transactional id: who produces under it, what became of its last transaction, and
//! which steps come next (`TransactionMetadata` and the decisions of `TransactionCoordinator` in
//! Apache Kafka, for transactions v1 and v2, KIP-98, KIP-360 and KIP-890).
//!
//! A step gives the whole next state or the reason against it; nothing changes in place, so that
//! what is answered and what is written down are the same thing. With transactions v2 the epoch is
//! raised at the end of every transaction: what comes late belongs to an epoch that is over.

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{ProducerEpoch, ProducerId};

/// Where a transaction stands, with its code in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub(crate) enum State {
    /// There was none yet.
    Empty = 0,
    /// Open.
    Ongoing = 1,
    /// Committed: from here on it can only be completed. Its markers are being written.
    PrepareCommit = 2,
    /// Aborted; its markers are being written.
    PrepareAbort = 3,
    /// All markers of a commit are written.
    CompleteCommit = 4,
    /// All markers of an abort are written.
    CompleteAbort = 5,
}

impl State {
    /// All of them.
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

/// A partition, as transactions name it. A request names a topic once for many partitions, and so
/// do these share its name.
pub(crate) type Partition = (Arc<str>, i32);

/// The producer that a request is from: its id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Producer {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
}

/// A transactional id. Times are in milliseconds since 1970, as the log has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) producer: Producer,
    /// The producer id before this one.
    pub(crate) previous_id: ProducerId,
    /// The id that takes the place of this one, whose epochs are used up, when the transaction is
    /// complete.
    pub(crate) next_id: ProducerId,
    /// The epoch before this one, as far as who asks again may name it.
    pub(crate) last_epoch: ProducerEpoch,
    pub(crate) timeout_ms: i32,
    pub(crate) state: State,
    pub(crate) partitions: BTreeSet<Partition>,
    /// When it began, -1 for none.
    pub(crate) start_ms: i64,
    pub(crate) update_ms: i64,
    /// 2 where the client has the epoch raised at the end of each transaction.
    pub(crate) client_version: i16,
}

/// No producer id, and no epoch.
pub(crate) const NO_ID: ProducerId = ProducerId(-1);
pub(crate) const NO_EPOCH: ProducerEpoch = ProducerEpoch(-1);

/// Why a step is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// What the client is told.
    Error(ErrorCode),
    /// It needs a producer id that nobody has: ask again with one.
    NeedsProducerId,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code)
    }
}

/// What InitProducerId leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Init {
    /// The producer may begin.
    Ready(Transaction),
    /// A transaction of the producer before it is aborted first: ask again.
    Fenced(Transaction),
}

/// What EndTxn leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was done before: the answer was lost.
    Done,
    Next(Transaction),
}

/// The largest epoch is kept, so that whoever has the one before it can be fenced.
const EPOCH_MAX: i16 = i16::MAX;

fn is_exhausted(epoch: ProducerEpoch) -> bool {
    epoch.0 >= EPOCH_MAX - 1
}

fn raised(epoch: ProducerEpoch) -> ProducerEpoch {
    ProducerEpoch(epoch.0.saturating_add(1))
}

impl Transaction {
    /// A transactional id that nobody has used.
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

    /// InitProducerId (`prepareInitProducerIdTransit`). `expected` is what a producer has that goes
    /// on after an error, `fresh` an id that nobody has.
    pub(crate) fn init(
        &self,
        expected: Option<Producer>,
        fresh: Option<ProducerId>,
        timeout_ms: i32,
        version: i16,
        now_ms: i64,
    ) -> Result<Init, Refusal> {
        self.check_at_rest()?;
        // Its own id, or the one before it with the last epoch: then the answer that named the new
        // one was lost.
        let is_valid = |expected: Producer| {
            self.producer.epoch == NO_EPOCH
                || expected.id == self.producer.id
                || (expected.id == self.previous_id && is_exhausted(expected.epoch))
        };
        if !expected.is_none_or(is_valid) {
            return Err(ErrorCode::ProducerFenced.into());
        }
        match self.state {
            // They are refused above.
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
                        // Asked again: the answer was lost. Kafka fails here when the epoch is the
                        // last that a client may have.
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

    /// The open transaction aborted by another than its producer: by time, or by who begins under
    /// the id.
    ///
    /// With transactions v2 it ends as by its producer's own word: under the next epoch, so that a
    /// producer that is still there may say that it aborts, and goes on. Before, it ends under an
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

    /// Partitions become part of the transaction, which begins with the first. `None`: they are
    /// already, and the epoch says of which transaction. Before transactions v2 it does not: then
    /// it is written down once more, since only a coordinator that still is one can do that.
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

    /// Whether the transaction is open and the partitions are part of it, each on its own
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

    /// While markers are being written the producer may be told to wait by whatever name it calls
    /// itself: it has been given the id and the epoch that it has when all are written.
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

    /// EndTxn of a client of transactions v2. That a request comes again is told by its epoch,
    /// which is over.
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
            // A producer that added nothing aborts to have its epoch raised.
            (State::Empty, false) => prepared(Some(now_ms)),
            (State::CompleteCommit | State::CompleteAbort, false) if !is_again => {
                prepared(Some(now_ms))
            }
            _ => Err(ErrorCode::InvalidTxnState.into()),
        }
    }

    /// The end under transactions v2: the epoch is raised, and where that uses up the epochs, the
    /// producer goes on under another id.
    fn prepared_v2(
        &self,
        commit: bool,
        fresh: Option<ProducerId>,
        now_ms: i64,
    ) -> Result<Self, Refusal> {
        let epoch = self.producer.epoch;
        // No client should have this one, since nothing is above it. Who has it all the same can
        // only abort.
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

    /// All markers are written: the transaction is over (`prepareComplete`).
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

    /// When something is to be done about it though nobody asks, in milliseconds since 1970: an
    /// open transaction is aborted, a transactional id that is not used forgotten.
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
