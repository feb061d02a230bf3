//! What was asked of transaction coordinators before the first batch of a transaction is appended
//! (KIP-890, `VerificationStateEntry` in Apache Kafka).
//!
//! Without it a batch that comes late, when its transaction has ended, would begin one that nobody
//! knows of and that never ends. An answer of the coordinator counts for the question that was
//! asked: each question has a [`Guard`], and whatever ends a transaction here in the meantime makes
//! it worthless.

use std::collections::BTreeMap;

use weir_protocol::types::{ProducerEpoch, ProducerId};

/// Stands for one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard(u64);

/// A question that is asked, or answered and not made use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    guard: Guard,
    /// The smallest sequence number that was asked for: what comes behind it is not to come before
    /// it.
    pub(super) lowest_sequence: i32,
    /// The producer's epoch is raised at the end of each transaction (transactions v2).
    pub(super) raises_epoch: bool,
}

/// Producers of which more is asked at a time; then a question of one that did not come back goes.
const ASKED_MAX: usize = 100_000;

/// All questions of a partition, by producer and epoch: what somebody claims to ask in another
/// epoch takes nothing from who has this one.
#[derive(Debug, Default)]
pub(crate) struct Verifications {
    asked: BTreeMap<(i64, i16), Verification>,
    last: u64,
}

impl Verifications {
    /// The question about this producer: the one that is asked already, or a new one.
    pub(crate) fn ask(
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
    pub(crate) fn answered(
        &self,
        producer: ProducerId,
        epoch: ProducerEpoch,
        guard: Guard,
    ) -> Option<&Verification> {
        self.asked.get(&(producer.0, epoch.0)).filter(|asked| asked.guard == guard)
    }

    /// A transaction of the producer began or ended here: what was asked about it is answered by
    /// that.
    pub(crate) fn settle(&mut self, producer: ProducerId) {
        let of_it = (producer.0, i16::MIN)..=(producer.0, i16::MAX);
        let keys: Vec<_> = self.asked.range(of_it).map(|(key, _)| *key).collect();
        for key in keys {
            self.asked.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_settled_by_what_ends_a_transaction_and_by_no_other_question() {
        let mut asked = Verifications::default();
        let (id, own) = (ProducerId(7), ProducerEpoch(3));
        let guard = asked.ask(id, own, 5, false);
        assert_eq!(asked.ask(id, own, 4, false), guard, "it is the same question");
        // Who lies about the epoch, or is a zombie.
        for other in [ProducerEpoch(i16::MAX), ProducerEpoch(2)] {
            let others = asked.ask(id, other, 0, true);
            assert!(
                asked.answered(id, own, others).is_none()
                    && asked.answered(id, other, guard).is_none()
            );
        }
        let known = asked.answered(id, own, guard).unwrap();
        assert_eq!((known.lowest_sequence, known.raises_epoch), (4, false));
        asked.settle(ProducerId(8));
        assert!(asked.answered(id, own, guard).is_some());
        asked.settle(id);
        assert!(asked.answered(id, own, guard).is_none());
        assert_ne!(asked.ask(id, own, 0, false), guard);
        assert_eq!(asked.asked.len(), 1);
    }
}
