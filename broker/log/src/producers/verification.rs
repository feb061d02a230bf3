//! The verifications that transaction coordinators give before a transaction's first batch is
//! appended (KIP-890, Kafka's `VerificationStateEntry`).
//!
//! Without them, a batch that arrives after its transaction ended would begin a transaction that no
//! coordinator knows and that never ends. Each request to the coordinator has a [`Guard`]. Its
//! answer counts for that request only, and the end of a transaction here invalidates it.

use std::collections::BTreeMap;

use weir_protocol::types::{ProducerEpoch, ProducerId};

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

/// The most open verifications of a partition. Beyond it, the one with the lowest producer id is
/// dropped.
const ASKED_MAX: usize = 100_000;

/// All verifications of a partition, by producer and epoch. A request with a forged epoch does not
/// affect those of the right epoch.
#[derive(Debug, Default)]
pub struct Verifications {
    asked: BTreeMap<(i64, i16), Verification>,
    last: u64,
}

impl Verifications {
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

    /// Returns the verification if the answer's guard is still valid.
    pub fn answered(
        &self,
        producer: ProducerId,
        epoch: ProducerEpoch,
        guard: Guard,
    ) -> Option<&Verification> {
        self.asked.get(&(producer.0, epoch.0)).filter(|asked| asked.guard == guard)
    }

    /// Drops a producer's verifications, because a transaction of it began or ended here.
    pub fn forget(&mut self, producer: ProducerId) {
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
        // A client with a forged epoch, and a zombie.
        for other in [ProducerEpoch(i16::MAX), ProducerEpoch(2)] {
            let others = asked.ask(id, other, 0, true);
            assert!(
                asked.answered(id, own, others).is_none()
                    && asked.answered(id, other, guard).is_none()
            );
        }
        let known = asked.answered(id, own, guard).unwrap();
        assert_eq!((known.lowest_sequence, known.raises_epoch), (4, false));
        asked.forget(ProducerId(8));
        assert!(asked.answered(id, own, guard).is_some());
        asked.forget(id);
        assert!(asked.answered(id, own, guard).is_none());
        assert_ne!(asked.ask(id, own, 0, false), guard);
        assert_eq!(asked.asked.len(), 1);
    }
}
