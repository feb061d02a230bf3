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
    /// The conditions of the cluster, likewise, and whether they are as they should be.
    conditions: Mutex<BTreeMap<(String, String), Vec<(String, bool)>>>,
    /// Those of ConsumerGroups, likewise.
    groups: Mutex<BTreeMap<(String, String), Vec<GroupFigures>>>,
}

/// What is shown of a ConsumerGroup. There are as many as somebody declared, or has reflected up to a bound.
#[derive(Debug)]
pub(super) struct GroupFigures {
    /// The resource's name.
    pub(super) name: String,
    /// Records that it has not consumed.
    pub(super) messages: i64,
    /// The age of the oldest of them, where it is known.
    pub(super) seconds: Option<i64>,
    /// Its members.
    pub(super) members: i32,
    /// Its lag policy is broken.
    pub(super) exceeded: bool,
}

impl Figures {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn partitions(&self) -> MutexGuard<'_, BTreeMap<(String, String), PartitionSummary>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn conditions(&self) -> MutexGuard<'_, BTreeMap<(String, String), Vec<(String, bool)>>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn groups(&self) -> MutexGuard<'_, BTreeMap<(String, String), Vec<GroupFigures>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register_groups(&self, registry: &mut Registry) {
        type OfGroup = Family<Vec<(&'static str, String)>, Gauge>;
        let [messages, seconds, members, exceeded] = [OfGroup::default(), OfGroup::default(), OfGroup::default(), OfGroup::default()];
        for ((namespace, cluster), groups) in self.groups().iter() {
            for group in groups {
                let labels = vec![
                    ("namespace", namespace.clone()),
                    ("cluster", cluster.clone()),
                    ("consumer_group", group.name.clone()),
                ];
                messages.get_or_create(&labels).set(group.messages);
                members.get_or_create(&labels).set(group.members.into());
                exceeded.get_or_create(&labels).set(group.exceeded.into());
                if let Some(age) = group.seconds {
                    seconds.get_or_create(&labels).set(age);
                }
            }
        }
        for (name, help, family) in [
            (
                "weir_operator_consumer_group_lag_messages",
                "Records that a ConsumerGroup has not consumed",
                messages,
            ),
            (
                "weir_operator_consumer_group_lag_seconds",
                "The age of the oldest record that a ConsumerGroup has not consumed",
                seconds,
            ),
            ("weir_operator_consumer_group_members", "Members of a ConsumerGroup", members),
            (
                "weir_operator_consumer_group_lag_exceeded",
                "Whether a ConsumerGroup is further behind than its lagPolicy says",
                exceeded,
            ),
        ] {
            registry.register(name, help, family);
        }
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
        let conditions = Family::<Vec<(&str, String)>, Gauge>::default();
        for ((namespace, cluster), all) in self.conditions().iter() {
            for (kind, is_good) in all {
                let labels = vec![("namespace", namespace.clone()), ("cluster", cluster.clone()), ("type", kind.clone())];
                conditions.get_or_create(&labels).set((*is_good).into());
            }
        }
        registry.register(
            "weir_operator_cluster_condition",
            "Whether a condition of a KafkaCluster is as it should be",
            conditions,
        );
        self.register_groups(&mut registry);
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
        let group = GroupFigures {
            name: "g".to_owned(),
            messages: 12,
            seconds: None,
            members: 3,
            exceeded: true,
        };
        figures.groups().insert(("n".to_owned(), "c".to_owned()), vec![group]);
        figures.conditions().insert(
            ("n".to_owned(), "c".to_owned()),
            vec![("Ready".to_owned(), true), ("Degraded".to_owned(), false)],
        );
        let text = figures.text();
        assert!(!text.contains("lag_seconds{"), "what is not known is not shown: {text}");
        for line in [
            "weir_operator_consumer_group_lag_messages{namespace=\"n\",cluster=\"c\",consumer_group=\"g\"} 12\n",
            "weir_operator_consumer_group_lag_exceeded{namespace=\"n\",cluster=\"c\",consumer_group=\"g\"} 1\n",
            "weir_operator_api_writes_total 1\n",
            "weir_operator_leader 0\n",
            "weir_operator_cluster_condition{namespace=\"n\",cluster=\"c\",type=\"Ready\"} 1\n",
            "weir_operator_cluster_condition{namespace=\"n\",cluster=\"c\",type=\"Degraded\"} 0\n",
            "weir_operator_partitions{namespace=\"n\",cluster=\"c\",state=\"total\"} 7\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
