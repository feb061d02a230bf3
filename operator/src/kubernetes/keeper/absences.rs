//! PURE: which brokers are away as planned: the operator restarts them, or they said that they
//! stop. Nothing is wrong with a cluster for that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use weir_protocol::types::BrokerId;

use super::pods::PodView;
use crate::controller::state::State;

/// How long a restart is one that was planned. A broker that stopped in order scans nothing when it
/// starts: one that takes longer has another reason. As long as Kubernetes waits for a Deployment's
/// progress.
const PLANNED_MAX: Duration = Duration::from_secs(600);

/// The planned absences, as far as this process knows: a successor knows of those only that the
/// partition tables tell of.
#[derive(Debug, Default)]
pub(super) struct Absences {
    of: BTreeMap<i32, Absence>,
}

#[derive(Debug)]
struct Absence {
    since: Instant,
    /// It has stopped to serve: from then on it may come back.
    left: bool,
}

impl Absences {
    /// The operator restarts this broker.
    pub(super) fn restarts(&mut self, broker: i32, now: Instant) {
        self.of.entry(broker).or_insert(Absence { since: now, left: false });
    }

    /// The brokers that are away as planned, those included whose replicas still catch up. One with
    /// a trouble is not, nor are those beyond `replicas`, which go for good.
    pub(super) fn look(
        &mut self,
        pods: &[PodView],
        state: &State,
        replicas: i32,
        now: Instant,
    ) -> BTreeSet<i32> {
        for broker in state.brokers.values().filter(|broker| broker.shutting_down) {
            self.restarts(broker.id.0, now);
        }
        self.of.retain(|id, absence| {
            let usable = state.is_usable(BrokerId(*id));
            absence.left |= !usable;
            let is_back = usable && absence.left && is_in_sync(state, BrokerId(*id));
            // One that never left was not restarted after all.
            let is_over =
                usable && !absence.left && now.duration_since(absence.since) > PLANNED_MAX;
            *id < replicas && !is_back && !is_over
        });
        let has_trouble = |id: i32| pods.iter().any(|pod| pod.id == id && pod.trouble.is_some());
        let planned = self.of.iter().filter(|(id, absence)| {
            now.duration_since(absence.since) <= PLANNED_MAX && !has_trouble(**id)
        });
        planned.map(|(id, _)| *id).collect()
    }
}

fn is_in_sync(state: &State, broker: BrokerId) -> bool {
    let mut partitions = state.topics.values().flat_map(|topic| &topic.partitions);
    partitions.all(|partition| {
        !partition.replicas.contains(&broker)
            || partition.adding.contains(&broker)
            || partition.isr.contains(&broker)
    })
}

#[cfg(test)]
mod tests {
    use super::super::rollout::tests::state;
    use super::*;

    #[test]
    fn who_goes_for_good_is_not_waited_for() {
        let mut absences = Absences::default();
        let state = state(2, None, &[&[0, 1, 2]]);
        let now = Instant::now();
        absences.restarts(1, now);
        absences.restarts(3, now);
        assert_eq!(absences.look(&[], &state, 4, now), BTreeSet::from([1, 3]));
        assert_eq!(absences.look(&[], &state, 3, now), BTreeSet::from([1]));
        // Nor when there is one of its number again.
        assert_eq!(absences.look(&[], &state, 4, now), BTreeSet::from([1]));
    }
}
