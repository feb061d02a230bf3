//! Transactions that this broker coordinates: how many are open, since when, and how they ended.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Who ends a transaction that is not committed.
const BY: [&str; 3] = ["client", "timeout", "fencing"];

#[derive(Debug, Default)]
pub(super) struct Transactions {
    committed: Counter,
    aborted: Family<[(&'static str, &'static str); 1], Counter>,
    fenced: Counter,
    open: Gauge,
    oldest_seconds: Gauge,
}

impl Transactions {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "transactions_committed",
            "Transactions that were committed at their coordinator here",
            self.committed.clone(),
        );
        for by in BY {
            drop(self.aborted.get_or_create(&[("by", by)]));
        }
        registry.register(
            "transactions_aborted",
            "Transactions that were aborted: by their client, since they took too long, or since another producer took up the transactional id",
            self.aborted.clone(),
        );
        registry.register(
            "producers_fenced",
            "Requests of producers that were told that another one has their transactional id",
            self.fenced.clone(),
        );
        registry.register(
            "transactions_open",
            "Open transactions that this broker coordinates",
            self.open.clone(),
        );
        registry.register(
            "transaction_oldest_seconds",
            "The age of the oldest open transaction that this broker coordinates, 0 without one",
            self.oldest_seconds.clone(),
        );
    }

    pub(super) fn ended(&self, committed: u64, aborted: [u64; 3]) {
        self.committed.inc_by(committed);
        for (by, count) in BY.into_iter().zip(aborted) {
            self.aborted.get_or_create(&[("by", by)]).inc_by(count);
        }
    }

    pub(super) fn fenced(&self, count: u64) {
        self.fenced.inc_by(count);
    }

    pub(super) fn set_open(&self, open: usize, oldest_seconds: u64) {
        self.open.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.oldest_seconds.set(i64::try_from(oldest_seconds).unwrap_or(i64::MAX));
    }
}
