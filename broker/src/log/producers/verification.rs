//! What was asked of transaction coordinators before the first batch of a transaction is appended (KIP-890, `VerificationStateEntry` in Apache Kafka).
//!
//! Without it a batch that comes late, when its transaction has ended, would begin one that nobody knows of and that never ends. An answer of the coordinator counts for the
//! question that was asked: each question has a [`Guard`], and whatever ends a transaction here in the meantime makes it worthless.

use std::collections::BTreeMap;

use weir_protocol::types::{ProducerEpoch, ProducerId};

/// Stands for one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard(u64);

/// A question that is asked, or answered and not made use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    guard: Guard,
    epoch: ProducerEpoch,
    /// The smallest sequence number that was asked for: what comes behind it is not to come before it.
    pub(super) lowest_sequence: i32,
    /// The producer's epoch is raised at the end of each transaction (transactions v2).
    pub(super) raises_epoch: bool,
}

/// Producers of which more is asked at a time; then a question of one that did not come back goes.
const ASKED_MAX: usize = 100_000;

/// All questions of a partition, by producer.
#[derive(Debug, Default)]
pub(crate) struct Verifications {
    asked: BTreeMap<i64, Verification>,
    last: u64,
}

impl Verifications {
    /// The question about this producer: the one that is asked already, or a new one. `None` when a newer epoch was asked for.
    pub(crate) fn ask(&mut self, producer: ProducerId, epoch: ProducerEpoch, sequence: i32, raises_epoch: bool) -> Option<Guard> {
        let known = self.asked.get_mut(&producer.0).filter(|known| known.epoch >= epoch);
        if let Some(known) = known {
            if known.epoch > epoch {
                return None;
            }
            known.lowest_sequence = known.lowest_sequence.min(sequence);
            known.raises_epoch |= raises_epoch;
            return Some(known.guard);
        }
        if self.asked.len() >= ASKED_MAX {
            self.asked.pop_first();
        }
        self.last += 1;
        let guard = Guard(self.last);
        self.asked.insert(
            producer.0,
            Verification {
                guard,
                epoch,
                lowest_sequence: sequence,
                raises_epoch,
            },
        );
        Some(guard)
    }

    /// What an answer is worth now.
    pub(crate) fn answered(&self, producer: ProducerId, guard: Guard) -> Option<&Verification> {
        self.asked.get(&producer.0).filter(|asked| asked.guard == guard)
    }

    /// A transaction of the producer began or ended here: what was asked about it is answered by that.
    pub(crate) fn settle(&mut self, producer: ProducerId) {
        self.asked.remove(&producer.0);
    }
}
