//! The operator's metrics for Prometheus.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use weir_crds::PartitionSummary;
use weir_telemetry::process;

use crate::shell::Counted;

/// The values behind `/metrics`.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) leader: AtomicU64,
    pub(super) clusters: AtomicU64,
    pub(super) reconciles: AtomicU64,
    pub(super) reconcile_errors: AtomicU64,
    pub(super) writes: AtomicU64,
    /// Partitions by namespace and name of the cluster.
    partitions: Mutex<BTreeMap<(String, String), PartitionSummary>>,
    /// What the controllers count, by namespace and name of the cluster.
    counted: Mutex<BTreeMap<(String, String), Counted>>,
    /// Conditions by namespace and name of the cluster.
    conditions: Mutex<BTreeMap<(String, String), Vec<ConditionFigure>>>,
    /// Brokers by namespace and name of the cluster.
    brokers: Mutex<BTreeMap<(String, String), BrokerFigures>>,
    /// When a kind of resource was last reconciled without an error, by kind and cluster, in
    /// seconds since 1970.
    successes: Mutex<BTreeMap<(&'static str, (String, String)), u64>>,
    /// ConsumerGroups by namespace and name of the cluster.
    groups: Mutex<BTreeMap<(String, String), Vec<GroupFigures>>>,
}

/// The metric of a condition.
#[derive(Debug)]
pub(super) struct ConditionFigure {
    pub(super) kind: String,
    pub(super) reason: String,
    /// The condition is as it should be.
    pub(super) is_good: bool,
}

/// The numbers of a cluster's brokers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BrokerFigures {
    /// Brokers that the spec asks for.
    pub(super) wanted: i32,
    /// Brokers that serve.
    pub(super) serving: i32,
    /// Brokers to be restarted, because their pods differ from the spec.
    pub(super) outdated: i32,
}

/// The metrics of a ConsumerGroup. Their number is bounded by the declared resources, and by the
/// limit on reflected ones.
#[derive(Debug)]
pub(super) struct GroupFigures {
    /// The resource's namespace.
    pub(super) namespace: String,
    /// The resource's name.
    pub(super) name: String,
    /// The number of records not yet consumed.
    pub(super) messages: i64,
    /// The age of the oldest of them in seconds, if known.
    pub(super) seconds: Option<i64>,
    /// The number of its members.
    pub(super) members: i32,
    /// It exceeds its lag policy.
    pub(super) exceeded: bool,
}

impl Metrics {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn partitions(
        &self,
    ) -> MutexGuard<'_, BTreeMap<(String, String), PartitionSummary>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counted(&self) -> MutexGuard<'_, BTreeMap<(String, String), Counted>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn conditions(
        &self,
    ) -> MutexGuard<'_, BTreeMap<(String, String), Vec<ConditionFigure>>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn brokers(&self) -> MutexGuard<'_, BTreeMap<(String, String), BrokerFigures>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a reconciliation of this kind in a cluster without an error.
    pub(super) fn succeeded(&self, kind: &'static str, cluster: (String, String)) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.successes.lock().unwrap_or_else(PoisonError::into_inner).insert((kind, cluster), now);
    }

    /// Removes a cluster that this replica no longer reconciles.
    pub(super) fn forget_successes(&self, cluster: &(String, String)) {
        self.successes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(_, of), _| of != cluster);
    }

    pub(super) fn groups(&self) -> MutexGuard<'_, BTreeMap<(String, String), Vec<GroupFigures>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register_groups(&self, registry: &mut Registry) {
        type OfGroup = Family<Vec<(&'static str, String)>, Gauge>;
        let [messages, seconds, members, exceeded] =
            [OfGroup::default(), OfGroup::default(), OfGroup::default(), OfGroup::default()];
        for ((_, cluster), groups) in self.groups().iter() {
            for group in groups {
                let labels = vec![
                    ("namespace", group.namespace.clone()),
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

    fn register_clusters(&self, registry: &mut Registry) {
        type OfCluster = Family<Vec<(&'static str, String)>, Gauge>;
        let labels = |(namespace, cluster): &(String, String), more: &[(&'static str, &str)]| {
            let mut labels = vec![("namespace", namespace.clone()), ("cluster", cluster.clone())];
            labels.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
            labels
        };
        let [conditions, reasons, brokers, successes] = [
            OfCluster::default(),
            OfCluster::default(),
            OfCluster::default(),
            OfCluster::default(),
        ];
        for (key, all) in self.conditions().iter() {
            for of in all {
                conditions
                    .get_or_create(&labels(key, &[("type", of.kind.as_str())]))
                    .set(of.is_good.into());
                reasons
                    .get_or_create(&labels(
                        key,
                        &[("type", of.kind.as_str()), ("reason", of.reason.as_str())],
                    ))
                    .set(1);
            }
        }
        for (key, of) in self.brokers().iter() {
            for (state, count) in
                [("wanted", of.wanted), ("serving", of.serving), ("outdated", of.outdated)]
            {
                brokers.get_or_create(&labels(key, &[("state", state)])).set(count.into());
            }
        }
        for ((kind, key), at) in
            self.successes.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            let at = i64::try_from(*at).unwrap_or(i64::MAX);
            successes.get_or_create(&labels(key, &[("kind", *kind)])).set(at);
        }
        for (name, help, family) in [
            (
                "weir_operator_cluster_condition",
                "Whether a condition of a KafkaCluster is as it should be",
                conditions,
            ),
            (
                "weir_operator_cluster_condition_reason",
                "The reason of a condition of a KafkaCluster, as a label",
                reasons,
            ),
            ("weir_operator_brokers", "Brokers of a KafkaCluster", brokers),
            (
                "weir_operator_last_success_timestamp_seconds",
                "When the resources of a kind in a cluster were last looked after without an error",
                successes,
            ),
        ] {
            registry.register(name, help, family);
        }
    }

    /// All metrics in the OpenMetrics text format.
    pub(super) fn text(&self) -> String {
        let mut registry = Registry::default();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(
            "weir_operator_leader",
            "Whether this replica leads",
            gauge(read(&self.leader)),
        );
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
        let unclean = Family::<Vec<(&str, String)>, Counter>::default();
        for ((namespace, cluster), counted) in self.counted().iter() {
            let labels = vec![("namespace", namespace.clone()), ("cluster", cluster.clone())];
            unclean.get_or_create(&labels).inc_by(counted.unclean_elections());
        }
        registry.register(
            "weir_operator_unclean_leader_elections",
            "Leaders that were elected though they may lack committed records",
            unclean,
        );
        self.register_clusters(&mut registry);
        self.register_groups(&mut registry);
        let mut text = String::new();
        for registry in [&registry, &process::registry(env!("CARGO_PKG_VERSION"))] {
            // Writing to a String cannot fail.
            let _ = encode_registry(&mut text, registry);
        }
        let _ = encode_eof(&mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_partitions_are_shown() {
        let figures = Metrics::default();
        Metrics::count(&figures.writes);
        let summary = PartitionSummary { total: 7, ..Default::default() };
        figures.partitions().insert(("n".to_owned(), "c".to_owned()), summary);
        figures.counted().insert(("n".to_owned(), "c".to_owned()), Counted::default());
        let group = GroupFigures {
            namespace: "n".to_owned(),
            name: "g".to_owned(),
            messages: 12,
            seconds: None,
            members: 3,
            exceeded: true,
        };
        figures.groups().insert(("n".to_owned(), "c".to_owned()), vec![group]);
        let cluster = || ("n".to_owned(), "c".to_owned());
        let condition = |kind: &str, reason: &str, is_good| ConditionFigure {
            kind: kind.to_owned(),
            reason: reason.to_owned(),
            is_good,
        };
        let conditions = vec![
            condition("Ready", "Ready", true),
            condition("UpToDate", "ScaleDownBlocked", false),
        ];
        figures.conditions().insert(cluster(), conditions);
        let brokers = BrokerFigures { wanted: 3, serving: 2, outdated: 1 };
        figures.brokers().insert(cluster(), brokers);
        figures.succeeded("KafkaCluster", cluster());
        figures.succeeded("Topic", ("n".to_owned(), "gone".to_owned()));
        figures.forget_successes(&("n".to_owned(), "gone".to_owned()));
        let text = figures.text();
        let success = text
            .lines()
            .filter_map(|line| line.strip_prefix("weir_operator_last_success_timestamp_seconds{"));
        let success: Vec<&str> = success.collect();
        assert_eq!(success.len(), 1, "{text}");
        let at = success[0]
            .strip_prefix("namespace=\"n\",cluster=\"c\",kind=\"KafkaCluster\"} ")
            .unwrap();
        assert!(at.parse::<u64>().unwrap() > 1_700_000_000, "{at}");
        assert!(!text.contains("lag_seconds{"), "what is not known is not shown: {text}");
        for line in [
            "weir_operator_consumer_group_lag_messages{namespace=\"n\",cluster=\"c\",consumer_group=\"g\"} 12\n",
            "weir_operator_consumer_group_lag_exceeded{namespace=\"n\",cluster=\"c\",consumer_group=\"g\"} 1\n",
            "weir_operator_api_writes_total 1\n",
            "weir_operator_leader 0\n",
            "weir_operator_cluster_condition{namespace=\"n\",cluster=\"c\",type=\"Ready\"} 1\n",
            "weir_operator_cluster_condition{namespace=\"n\",cluster=\"c\",type=\"UpToDate\"} 0\n",
            "weir_operator_cluster_condition_reason{namespace=\"n\",cluster=\"c\",type=\"UpToDate\",reason=\"ScaleDownBlocked\"} 1\n",
            "weir_operator_brokers{namespace=\"n\",cluster=\"c\",state=\"outdated\"} 1\n",
            "weir_operator_partitions{namespace=\"n\",cluster=\"c\",state=\"total\"} 7\n",
            "weir_operator_unclean_leader_elections_total{namespace=\"n\",cluster=\"c\"} 0\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        let listed = include_str!("../../../docs/metrics.md");
        for metric in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = metric.strip_suffix(" counter").map(|name| format!("{name}_total"));
            let name = name.or_else(|| Some(metric.split_once(' ')?.0.to_owned())).unwrap();
            assert!(listed.contains(&format!("`{name}`")), "docs/metrics.md does not list {name}");
        }
    }
}
