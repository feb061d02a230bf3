//! Keeps transactional ids, sorts them by what they wait for, and counts their bytes.

use super::state::{Partition, State, Transaction, bytes_of_id};
use super::{Now, Transactions};

impl Transactions {
    pub(super) fn keep(&mut self, id: String, transaction: Transaction) {
        if transaction.state.is_prepared() {
            self.prepared.insert(id.clone());
        } else {
            self.prepared.remove(&id);
        }
        self.exhausted.remove(&id);
        let (is_open, start_ms) = (transaction.state == State::Ongoing, transaction.start_ms);
        self.count(&id, &transaction);
        if let Some(before) = self.ids.insert(id.clone(), transaction) {
            self.discount(&id, &before);
            self.open.remove(&(before.start_ms, id.clone()));
        }
        if is_open {
            self.open.insert((start_ms, id));
        }
        self.hold();
    }

    fn count(&mut self, id: &str, transaction: &Transaction) {
        self.bytes += transaction.bytes(id);
        self.partition_bytes += transaction.partition_bytes();
    }

    fn discount(&mut self, id: &str, transaction: &Transaction) {
        self.bytes -= transaction.bytes(id);
        self.partition_bytes -= transaction.partition_bytes();
    }

    fn hold(&mut self) {
        self.held.set_with_passing(self.bytes, self.partition_bytes);
    }

    /// Takes the partitions from a transaction, and returns whether none is left.
    pub(super) fn take_partitions(&mut self, id: &str, partitions: &[Partition]) -> bool {
        let Some(transaction) = self.ids.get_mut(id) else { return false };
        let before = transaction.partition_bytes();
        for partition in partitions {
            transaction.partitions.remove(partition);
        }
        let gone = before - transaction.partition_bytes();
        let is_done = transaction.partitions.is_empty();
        self.bytes -= gone;
        self.partition_bytes -= gone;
        self.hold();
        is_done
    }

    /// Whether there is memory for another transactional id.
    pub(super) fn has_room_for(&self, id: &str, now: Now) -> bool {
        self.memory.has_room_for(bytes_of_id(id), now)
    }

    /// The bytes of all transactional ids, computed anew.
    #[cfg(test)]
    pub(super) fn counted(&self) -> usize {
        self.ids.iter().map(|(id, transaction)| transaction.bytes(id)).sum()
    }

    pub(super) fn forget(&mut self, id: &str) {
        self.prepared.remove(id);
        self.exhausted.remove(id);
        if let Some(before) = self.ids.remove(id) {
            self.discount(id, &before);
            self.hold();
            self.open.remove(&(before.start_ms, id.to_owned()));
        }
    }
}
