//! The verifications that transaction coordinators give before a transaction's first batch is
//! appended (KIP-890, Kafka's `VerificationStateEntry`).
//!
//! Without them, a batch that arrives after its transaction ended would begin a transaction that no
//! coordinator knows and that never ends. Each request to the coordinator has a [`Guard`]. Its
//! answer counts for that request only, and the end of a transaction here invalidates it.
//!
//! That holds when the producer's next transaction is open by then, too. With transactions v1 it
//! has the same epoch, and a late write would become part of it. Kafka looks at the guard only
//! where no transaction is open.

use std::collections::BTreeMap;

use weir_protocol::batch::BatchHeader;
use weir_protocol::types::{LeaderEpoch, ProducerEpoch, ProducerId};

/// Identifies one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard(u64);

/// A verification that was requested, or answered and not used yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    guard: Guard,
    /// The smallest sequence number of the requests. A batch with a larger one must not come before
    /// it.
    pub(super) lowest_sequence: i32,
    /// Whether each end of a transaction raises the producer's epoch (transactions v2).
    pub(super) raises_epoch: bool,
}

/// What an answer is worth to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Nobody had to be asked: the transaction was open.
    NotAsked,
    /// The transaction may begin here.
    Answered(&'a Verification),
    /// Another write with the same answer has begun the transaction that is open.
    Begun,
    /// The transaction of the question has ended here.
    Outdated,
}

impl Standing<'_> {
    /// Whether a write with this answer may go into a transaction. `is_open` tells whether the
    /// producer has one here.
    pub fn permits(&self, is_open: impl FnOnce() -> bool) -> bool {
        match self {
            Self::Answered(_) => true,
            Self::NotAsked | Self::Begun => is_open(),
            Self::Outdated => false,
        }
    }
}

/// The most open verifications of a partition. Beyond it, the one with the lowest producer id is
/// dropped.
const ASKED_MAX: usize = 100_000;

/// All verifications of a partition, by producer and epoch. A request with a forged epoch does not
/// affect those of the right epoch.
#[derive(Debug, Default)]
pub struct Verifications {
    asked: BTreeMap<(i64, i16), Verification>,
    /// Whose answer began the producer's open transaction, as far as this run has seen it begin.
    begun: BTreeMap<i64, Guard>,
    last: u64,
}

impl Verifications {
    /// Those of a leadership that holds them anew. An answer to a question of an earlier one is
    /// not taken for one of these.
    pub fn of(epoch: LeaderEpoch) -> Self {
        let last = u64::from(epoch.0.unsigned_abs()) << 32;
        Self { last, ..Self::default() }
    }

    /// Returns the guard of this producer's open verification, or of a new one.
    pub fn ask(
        &mut self,
        producer: ProducerId,
        epoch: ProducerEpoch,
        sequence: i32,
        raises_epoch: bool,
    ) -> Guard {
        let key = (producer.0, epoch.0);
        if let Some(known) = self.asked.get_mut(&key) {
            known.lowest_sequence = known.lowest_sequence.min(sequence);
            known.raises_epoch |= raises_epoch;
            return known.guard;
        }
        if self.asked.len() >= ASKED_MAX {
            self.asked.pop_first();
        }
        self.last += 1;
        let guard = Guard(self.last);
        let verification = Verification { guard, lowest_sequence: sequence, raises_epoch };
        self.asked.insert(key, verification);
        guard
    }

    /// What an answer is worth now.
    pub fn standing(
        &self,
        producer: ProducerId,
        epoch: ProducerEpoch,
        guard: Option<Guard>,
    ) -> Standing<'_> {
        let Some(guard) = guard else { return Standing::NotAsked };
        match self.asked.get(&(producer.0, epoch.0)) {
            Some(asked) if asked.guard == guard => Standing::Answered(asked),
            _ if self.begun.get(&producer.0) == Some(&guard) => Standing::Begun,
            _ => Standing::Outdated,
        }
    }

    /// Takes up a batch, which began or ended a transaction here if `is_change`. Once it has begun
    /// one, only the answer that permitted it still counts; after a marker none does.
    pub fn appended(&mut self, header: &BatchHeader, is_change: bool) {
        let producer = header.producer_id;
        if header.is_control() {
            self.forget(producer);
        } else if is_change {
            let asked = self.asked.get(&(producer.0, header.producer_epoch.0));
            let guard = asked.map(|asked| asked.guard);
            self.forget(producer);
            if let Some(guard) = guard {
                if self.begun.len() >= ASKED_MAX {
                    self.begun.pop_first();
                }
                self.begun.insert(producer.0, guard);
            }
        }
    }

    /// Drops all answers about a producer.
    fn forget(&mut self, producer: ProducerId) {
        let of_it = (producer.0, i16::MIN)..=(producer.0, i16::MAX);
        let keys: Vec<_> = self.asked.range(of_it).map(|(key, _)| *key).collect();
        for key in keys {
            self.asked.remove(&key);
        }
        self.begun.remove(&producer.0);
    }
}

#[cfg(test)]
mod tests {
    use weir_protocol::record::BatchBuilder;

    use super::super::marker::{Marker, marker_batch};
    use super::*;

    fn began(asked: &mut Verifications, producer: ProducerId, epoch: ProducerEpoch) {
        let mut builder = BatchBuilder::new(0).producer(producer, epoch, 0).transactional();
        builder.append(0, 1, None, None, []);
        let header = BatchHeader::parse(&builder.build(0).unwrap()).unwrap();
        asked.appended(&header, true);
    }

    /// A marker, also one of a transaction that wrote nothing here.
    fn ended(asked: &mut Verifications, producer: ProducerId) {
        let marker = Marker {
            producer,
            epoch: ProducerEpoch(3),
            coordinator_epoch: 0,
            commit: true,
            transaction_version: 0,
        };
        let header = BatchHeader::parse(&marker_batch(&marker, 1).unwrap()).unwrap();
        asked.appended(&header, false);
    }

    #[test]
    fn a_question_is_settled_by_what_ends_a_transaction_and_by_no_other_question() {
        let mut asked = Verifications::default();
        let (id, own) = (ProducerId(7), ProducerEpoch(3));
        let guard = asked.ask(id, own, 5, false);
        assert_eq!(asked.ask(id, own, 4, false), guard, "it is the same question");
        // A client with a forged epoch, and a zombie.
        for other in [ProducerEpoch(i16::MAX), ProducerEpoch(2)] {
            let others = asked.ask(id, other, 0, true);
            assert_eq!(asked.standing(id, own, Some(others)), Standing::Outdated);
            assert_eq!(asked.standing(id, other, Some(guard)), Standing::Outdated);
        }
        let Standing::Answered(known) = asked.standing(id, own, Some(guard)) else {
            panic!("it is open")
        };
        assert_eq!((known.lowest_sequence, known.raises_epoch), (4, false));
        ended(&mut asked, ProducerId(8));
        assert!(matches!(asked.standing(id, own, Some(guard)), Standing::Answered(_)));
        ended(&mut asked, id);
        assert_eq!(asked.standing(id, own, Some(guard)), Standing::Outdated);
        assert_eq!(asked.standing(id, own, None), Standing::NotAsked);
        assert_ne!(asked.ask(id, own, 0, false), guard);
        assert_eq!(asked.asked.len(), 1);
    }

    #[test]
    fn an_answer_counts_for_the_transaction_that_it_began_and_not_for_the_next() {
        let mut asked = Verifications::default();
        let (id, epoch) = (ProducerId(7), ProducerEpoch(3));
        let first = asked.ask(id, epoch, 0, false);
        began(&mut asked, id, epoch);
        assert_eq!(asked.standing(id, epoch, Some(first)), Standing::Begun);
        ended(&mut asked, id);
        let second = asked.ask(id, epoch, 0, false);
        began(&mut asked, id, epoch);
        assert_eq!(asked.standing(id, epoch, Some(second)), Standing::Begun);
        assert_eq!(asked.standing(id, epoch, Some(first)), Standing::Outdated);
        ended(&mut asked, id);
        assert!(asked.begun.is_empty() && asked.asked.is_empty());
        let mut anew = Verifications::of(LeaderEpoch(1));
        assert_ne!(anew.ask(id, epoch, 0, false), first, "of another leadership");
    }
}
