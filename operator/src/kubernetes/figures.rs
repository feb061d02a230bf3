//! What the operator counts, and how Prometheus reads it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use weir_crds::PartitionSummary;

/// What `/metrics` shows.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) leader: AtomicU64,
    pub(super) clusters: AtomicU64,
    pub(super) reconciles: AtomicU64,
    pub(super) reconcile_errors: AtomicU64,
    pub(super) writes: AtomicU64,
    /// By namespace and name of the cluster.
    partitions: Mutex<BTreeMap<(String, String), PartitionSummary>>,
}

impl Figures {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn partitions(&self) -> MutexGuard<'_, BTreeMap<(String, String), PartitionSummary>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it, in the OpenMetrics text format.
    pub(super) fn text(&self) -> String {
        let mut registry = Registry::default();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register("weir_operator_leader", "Whether this replica leads", gauge(read(&self.leader)));
        registry.register(
            "weir_operator_clusters",
            "Clusters that this replica is the controller of",
            gauge(read(&self.clusters)),
        );
        registry.register(
            "weir_operator_reconciles",
            "Looks at a KafkaCluster",
            ConstCounter::new(read(&self.reconciles)),
        );
        registry.register(
            "weir_operator_reconcile_errors",
            "Looks at a KafkaCluster that failed",
            ConstCounter::new(read(&self.reconcile_errors)),
        );
        registry.register(
            "weir_operator_api_writes",
            "Writes to the Kubernetes API, but for leases and partition tables",
            ConstCounter::new(read(&self.writes)),
        );
        let partitions = Family::<Vec<(&str, String)>, Gauge>::default();
        for ((namespace, cluster), summary) in self.partitions().iter() {
            for (state, count) in [
                ("total", summary.total),
                ("offline", summary.offline),
                ("under_replicated", summary.under_replicated),
            ] {
                let labels = vec![
                    ("namespace", namespace.clone()),
                    ("cluster", cluster.clone()),
                    ("state", state.to_owned()),
                ];
                partitions.get_or_create(&labels).set(count);
            }
        }
        registry.register(
            "weir_operator_partitions",
            "Partitions of the clusters that this replica is the controller of",
            partitions,
        );
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_partitions_are_shown() {
        let figures = Figures::default();
        Figures::count(&figures.writes);
        let summary = PartitionSummary {
            total: 7,
            ..Default::default()
        };
        figures.partitions().insert(("n".to_owned(), "c".to_owned()), summary);
        let text = figures.text();
        for line in [
            "weir_operator_api_writes_total 1\n",
            "weir_operator_leader 0\n",
            "weir_operator_partitions{namespace=\"n\",cluster=\"c\",state=\"total\"} 7\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
