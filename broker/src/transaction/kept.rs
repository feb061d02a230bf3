//! Keeps transactional ids, sorts them by what they wait for, and counts their bytes.

use super::state::{State, Transaction, bytes_of_id};
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
        self.bytes += transaction.bytes(&id);
        if let Some(before) = self.ids.insert(id.clone(), transaction) {
            self.bytes -= before.bytes(&id);
            self.open.remove(&(before.start_ms, id.clone()));
        }
        if is_open {
            self.open.insert((start_ms, id));
        }
        self.held.set(self.bytes);
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
            self.bytes -= before.bytes(id);
            self.held.set(self.bytes);
            self.open.remove(&(before.start_ms, id.to_owned()));
        }
    }
}
