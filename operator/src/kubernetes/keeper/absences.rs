//! PURE: the brokers that are down as planned, because the operator restarts them or they asked for
//! a controlled shutdown. They are no fault of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use weir_protocol::types::BrokerId;

use super::pods::Pods;
use crate::controller::state::State;

/// The most time that a restart counts as planned. After a clean stop a broker scans no log at its
/// start, so a longer absence has another cause. The value is that of a Deployment's progress
/// deadline.
const PLANNED_MAX: Duration = Duration::from_secs(600);

/// The planned absences that this process knows of. A successor knows only those in the partition
/// tables.
#[derive(Debug, Default)]
pub(super) struct Absences {
    of: BTreeMap<i32, Absence>,
}

#[derive(Debug)]
struct Absence {
    since: Instant,
    /// It has stopped serving; from then on it can return.
    left: bool,
    /// A former cluster of the name had it: it stopped with that, or runs on.
    of_former: bool,
}

impl Absences {
    /// Records that the operator restarts this broker.
    pub(super) fn restarts(&mut self, broker: i32, now: Instant) {
        self.record(broker, Absence { since: now, left: false, of_former: false });
    }

    /// Records that a former cluster of the name had this broker, which then stopped, unless its
    /// pod was left behind.
    pub(super) fn was_left(&mut self, broker: i32, now: Instant) {
        self.record(broker, Absence { since: now, left: false, of_former: true });
    }

    fn record(&mut self, broker: i32, absence: Absence) {
        self.of.entry(broker).or_insert(absence);
    }

    /// Forgets the brokers of a former cluster that have come to this controller without a
    /// restart.
    pub(super) fn came(&mut self, pods: &Pods, state: &State) {
        let is_here = |id: i32| {
            let mut pods = pods.iter().filter(|pod| pod.id == id);
            pods.any(|pod| !pod.unheard && !pod.terminating && state.is_usable(BrokerId(id)))
        };
        self.of.retain(|id, absence| !absence.of_former || absence.left || !is_here(*id));
    }

    /// The brokers that are down as planned, including those whose replicas still catch up. It
    /// excludes brokers with a trouble, brokers without a pod while Kubernetes refuses pods, and
    /// brokers beyond `replicas`, which are removed for good.
    pub(super) fn observe(
        &mut self,
        pods: &Pods,
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
            // A broker that never stopped was not restarted after all.
            let is_over =
                usable && !absence.left && now.duration_since(absence.since) > PLANNED_MAX;
            *id < replicas && !is_back && !is_over
        });
        let has_trouble = |id: i32| {
            let pod = pods.iter().find(|pod| pod.id == id);
            pod.map_or(pods.refused.is_some(), |pod| pod.trouble.is_some())
        };
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
    use super::super::pods::PodView;
    use super::super::rollout::tests::state;
    use super::*;

    #[test]
    fn a_broker_that_a_former_cluster_left_running_is_not_being_restarted() {
        let (state, now) = (state(2, None, &[&[0, 1, 2]]), Instant::now());
        let pod = |id, unheard| PodView { id, unheard, ..PodView::default() };
        let mut absences = Absences::default();
        (0..3).for_each(|id| absences.was_left(id, now));
        absences.restarts(3, now);
        // Nobody knows yet whether it runs, or it has no pod.
        let pods: Pods = [pod(0, false), pod(1, true), pod(3, false)].into_iter().collect();
        assert_eq!(absences.observe(&pods, &state, 4, now), BTreeSet::from([0, 1, 2, 3]));
        absences.came(&pods, &state);
        assert_eq!(absences.observe(&pods, &state, 4, now), BTreeSet::from([1, 2, 3]));
    }

    #[test]
    fn who_goes_for_good_is_not_waited_for() {
        let mut absences = Absences::default();
        let state = state(2, None, &[&[0, 1, 2]]);
        let now = Instant::now();
        absences.restarts(1, now);
        absences.restarts(3, now);
        let (none, refused) =
            (Pods::default(), Pods { refused: Some("quota".to_owned()), ..Pods::default() });
        assert_eq!(absences.observe(&none, &state, 4, now), BTreeSet::from([1, 3]));
        assert_eq!(absences.observe(&none, &state, 3, now), BTreeSet::from([1]));
        assert_eq!(absences.observe(&refused, &state, 3, now), BTreeSet::new(), "no pod is made");
        // Nor when a broker with its id exists again.
        assert_eq!(absences.observe(&none, &state, 4, now), BTreeSet::from([1]));
    }
}
