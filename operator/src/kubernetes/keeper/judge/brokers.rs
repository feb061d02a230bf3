//! PURE: how many brokers serve, start or are lost, and how many partitions lack replicas.

use weir_crds::KafkaCluster;
use weir_protocol::types::BrokerId;

use super::super::observation::Observation;
use crate::controller::state::{Partition, State};

/// Counts of the brokers that the spec wants.
pub(super) struct Brokers {
    pub(super) wanted: usize,
    pub(super) serving: usize,
    /// Brokers without replicas that are starting.
    pub(super) new: usize,
    /// Brokers that are down without a plan, or that cannot start.
    pub(super) lost: usize,
}

impl Brokers {
    pub(super) fn of(
        cluster: &KafkaCluster,
        state: Option<&State>,
        findings: &Observation,
    ) -> Self {
        let wanted = cluster.spec.brokers.replicas;
        let mut brokers = Self {
            wanted: usize::try_from(wanted).unwrap_or_default(),
            serving: 0,
            new: 0,
            lost: 0,
        };
        let all = |state: &State| -> std::collections::BTreeSet<i32> {
            let partitions = state.topics.values().flat_map(|topic| &topic.partitions);
            partitions.flat_map(|partition| &partition.replicas).map(|id| id.0).collect()
        };
        let holders = state.map(all).unwrap_or_default();
        // While the pass fails, a volume is missing or a name is taken, no broker starts.
        let is_kept_away = findings.failed.is_some()
            || findings.unbound.is_some()
            || findings.taken.as_ref().is_some_and(|taken| !taken.is_empty());
        let has_trouble = |id: i32| {
            let pod = findings.pods.iter().find(|pod| pod.id == id);
            is_kept_away || pod.map_or(!findings.troubles.is_empty(), |pod| pod.trouble.is_some())
        };
        for id in 0..wanted {
            if state.is_some_and(|state| state.is_usable(BrokerId(id))) {
                brokers.serving += 1;
            } else if findings.away.contains(&id) {
            } else if !holders.contains(&id) && !has_trouble(id) {
                brokers.new += 1;
            } else {
                brokers.lost += 1;
            }
        }
        brokers
    }
}

/// The number of partitions with a replica out of sync. It excludes replicas that a reassignment
/// adds, and those on brokers that are down as planned.
pub(super) fn missing_replicas(state: Option<&State>, findings: &Observation) -> usize {
    let lacks = |partition: &&Partition| {
        partition.replicas.iter().any(|id| {
            !partition.isr.contains(id)
                && !partition.adding.contains(id)
                && !findings.away.contains(&id.0)
        })
    };
    let partitions = state
        .into_iter()
        .flat_map(|state| state.topics.values())
        .flat_map(|topic| &topic.partitions);
    partitions.filter(lacks).count()
}
