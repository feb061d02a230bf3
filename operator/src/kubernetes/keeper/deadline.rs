//! PURE: since when a cluster has come no nearer to its spec. After a deadline it no longer counts
//! as being changed: it waits for a person, as a Deployment does (`progressDeadlineSeconds`).
//!
//! Only what is further than ever before counts, so a container that starts and ends again and
//! again does not put the deadline off. A new generation begins anew, and so does the next change
//! after everything was as wanted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weir_crds::KafkaCluster;
use weir_protocol::types::BrokerId;

use super::judge::{DEADLINE_EXCEEDED, is_as_wanted, is_under_way};
use super::observation::Observation;
use super::rollout::partitions;
use super::table_recovery::Stage;
use crate::controller::state::State;

/// The deadline of a cluster that names none; Deployments have the same.
const DEFAULT: Duration = Duration::from_secs(600);

/// The deadline of a cluster.
pub(super) fn deadline_of(cluster: &KafkaCluster) -> Duration {
    let seconds = cluster.spec.brokers.progress_deadline_seconds;
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(DEFAULT, Duration::from_secs)
}

/// How far a cluster is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Mark {
    generation: Option<i64>,
    /// Brokers as the spec wants them.
    done: usize,
    /// Pods of the current template.
    updated: usize,
    /// Pods.
    there: usize,
    /// Brokers that serve.
    serving: usize,
    /// Replicas in sync, of all partitions.
    in_sync: usize,
    /// Volumes that have the size that is wanted, while others grow.
    grown: u64,
    /// The progress of each log recovery.
    recovered: BTreeMap<i32, u64>,
    /// What the recovery of the tables waits for.
    waits_for: Option<String>,
}

impl Mark {
    fn of(cluster: &KafkaCluster, state: Option<&State>, findings: &Observation) -> Self {
        let count = |is: &dyn Fn(i32) -> bool| (0..findings.replicas).filter(|id| is(*id)).count();
        let recovered = findings
            .pods
            .iter()
            .filter_map(|pod| Some((pod.id, numbers(pod.recovers.as_ref()?).step_by(2).sum())));
        Self {
            generation: cluster.metadata.generation,
            done: count(&|id| is_as_wanted(id, state, findings)),
            updated: findings.pods.iter().filter(|pod| pod.outdated == Some(false)).count(),
            there: findings.pods.len(),
            serving: count(&|id| state.is_some_and(|state| state.is_usable(BrokerId(id)))),
            in_sync: state.map_or(0, |state| {
                partitions(state).map(|(_, _, partition)| partition.isr.len()).sum()
            }),
            grown: findings.growing.as_deref().and_then(|said| numbers(said).next()).unwrap_or(0),
            recovered: recovered.collect(),
            waits_for: match &findings.recovering {
                Some(Stage::Waits(reason)) => Some(reason.clone()),
                _ => None,
            },
        }
    }

    /// Takes over what `now` has more of than ever; returns whether there is such a thing.
    fn advance(&mut self, now: Self) -> bool {
        // A restarted broker has to catch up again, which is progress again.
        if now.generation != self.generation
            || now.done > self.done
            || now.updated > self.updated
            || now.waits_for != self.waits_for
        {
            *self = now;
            return true;
        }
        let is_new = |(id, far): (&i32, &u64)| self.recovered.get(id).is_none_or(|best| far > best);
        let is_further = now.there > self.there
            || now.serving > self.serving
            || now.in_sync > self.in_sync
            || now.grown > self.grown
            || now.recovered.iter().any(is_new);
        self.there = self.there.max(now.there);
        self.serving = self.serving.max(now.serving);
        self.in_sync = self.in_sync.max(now.in_sync);
        self.grown = self.grown.max(now.grown);
        for (id, far) in now.recovered {
            let best = self.recovered.entry(id).or_default();
            *best = (*best).max(far);
        }
        is_further
    }
}

/// The numbers in a text, in their order.
fn numbers(text: &str) -> impl Iterator<Item = u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok())
}

/// When a cluster last came nearer to its spec.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    best: Option<Mark>,
    since: Option<Instant>,
    /// An earlier operator has found the deadline exceeded, and nothing has advanced since.
    exceeded_before: bool,
}

impl Deadline {
    /// Goes on with what the resource's status says of this generation.
    pub(super) fn of(cluster: &KafkaCluster) -> Self {
        let mut conditions = cluster.status.iter().flat_map(|status| &status.conditions);
        let is_exceeded = conditions.any(|condition| {
            condition.type_ == "Stalled"
                && condition.status == "True"
                && condition.reason == DEADLINE_EXCEEDED
                && condition.observed_generation == cluster.metadata.generation
        });
        Self { exceeded_before: is_exceeded, ..Self::default() }
    }

    /// Sets in the findings whether the deadline is exceeded. Returns the time until it is, while
    /// something is under way.
    pub(super) fn observe(
        &mut self,
        cluster: &KafkaCluster,
        state: Option<&State>,
        findings: &mut Observation,
        now: Instant,
    ) -> Option<Duration> {
        findings.overdue = None;
        if !is_under_way(cluster, state, findings) {
            *self = Self::default();
            return None;
        }
        let limit = deadline_of(cluster);
        // A failed pass did not see how far the cluster is.
        if findings.failed.is_none() {
            let mark = Mark::of(cluster, state, findings);
            let has_advanced = match &mut self.best {
                Some(best) => best.advance(mark),
                None => {
                    self.best = Some(mark);
                    false
                }
            };
            if has_advanced {
                (self.since, self.exceeded_before) = (Some(now), false);
            }
        }
        let passed = now.saturating_duration_since(*self.since.get_or_insert(now));
        let is_over = self.exceeded_before || passed >= limit;
        findings.overdue = is_over.then_some(limit);
        (!is_over).then(|| limit.saturating_sub(passed))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::pods::{PodView, Pods};
    use super::super::rollout::tests::state;
    use super::*;

    fn cluster(brokers: Value, generation: i64, stalled: Option<i64>) -> KafkaCluster {
        let conditions = stalled.map(|generation| {
            json!([{"type": "Stalled", "status": "True", "reason": DEADLINE_EXCEEDED, "message": "", "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        });
        serde_json::from_value(json!({
            "apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "c", "generation": generation},
            "spec": {"brokers": brokers}, "status": {"conditions": conditions.unwrap_or(json!([]))},
        }))
        .unwrap()
    }

    /// The first `done` of three pods are as wanted; the others do not become ready.
    fn findings(done: i32, recovers: Option<&str>) -> Observation {
        let pod = |id| PodView {
            id,
            ready: id < done,
            outdated: Some(false),
            recovers: recovers.filter(|_| id >= done).map(str::to_owned),
            ..PodView::default()
        };
        Observation {
            pods: (0..3).map(pod).collect(),
            replicas: 3,
            taken_up: true,
            ..Observation::default()
        }
    }

    #[test]
    fn what_has_not_advanced_until_the_deadline_waits_for_a_person() {
        let of = |generation| cluster(json!({"replicas": 3}), generation, None);
        let (state, began) = (state(1, None, &[&[0, 1, 2]]), Instant::now());
        let mut deadline = Deadline::default();
        let mut is_over = |cluster: &KafkaCluster, mut findings: Observation, seconds: u64| {
            let at = began + Duration::from_secs(seconds);
            let left = deadline.observe(cluster, Some(&state), &mut findings, at);
            assert!(left.is_none() || findings.overdue.is_none());
            findings.overdue.is_some()
        };
        assert!(!is_over(&of(1), findings(1, None), 0));
        assert!(!is_over(&of(1), findings(1, None), 599));
        assert!(is_over(&of(1), findings(1, None), 600));
        // One more is done: it goes on. What was done before and is done again is no progress.
        assert!(!is_over(&of(1), findings(2, None), 700));
        assert!(!is_over(&of(1), findings(1, None), 800));
        assert!(!is_over(&of(1), findings(2, None), 1_299));
        assert!(is_over(&of(1), findings(2, None), 1_300));
        // Another spec begins anew.
        assert!(!is_over(&of(2), findings(2, None), 1_301));
        // A pass that failed has seen no progress.
        let failed =
            || Observation { failed: Some("no answer".to_owned()), ..Observation::default() };
        assert!(!is_over(&of(2), failed(), 1_900));
        assert!(is_over(&of(2), failed(), 1_901));
        // A recovery that gets on; one that begins again and again does not.
        let far = |done: u32| format!("recovers its logs: {done} of 90, 1 of 2 MiB");
        assert!(!is_over(&of(2), findings(2, Some(&far(5))), 2_000));
        assert!(!is_over(&of(2), findings(2, Some(&far(6))), 2_500));
        assert!(!is_over(&of(2), findings(2, Some(&far(1))), 2_600));
        assert!(is_over(&of(2), findings(2, Some(&far(6))), 3_100));
        // Once everything is as wanted, the next change has its own time.
        assert!(!is_over(&of(2), findings(3, None), 3_200));
        assert!(!is_over(&of(2), findings(2, None), 9_000));
        assert!(!is_over(&of(2), findings(2, None), 9_599));
        assert!(is_over(&of(2), findings(2, None), 9_600));
    }

    #[test]
    fn the_deadline_is_that_of_the_spec_and_outlives_the_operator() {
        let (state, now) = (state(1, None, &[&[0, 1, 2]]), Instant::now());
        let short = cluster(json!({"replicas": 3, "progressDeadlineSeconds": 30}), 1, None);
        let mut deadline = Deadline::of(&short);
        let left = deadline.observe(&short, Some(&state), &mut findings(2, None), now);
        assert_eq!(left, Some(Duration::from_secs(30)));
        for (stalled, expected) in [(Some(7), true), (Some(6), false), (None, false)] {
            let cluster = cluster(json!({"replicas": 3}), 7, stalled);
            let (mut deadline, mut found) = (Deadline::of(&cluster), findings(1, None));
            deadline.observe(&cluster, Some(&state), &mut found, now);
            assert_eq!(found.overdue.is_some(), expected, "{stalled:?}");
            let mut found = findings(2, None);
            deadline.observe(&cluster, Some(&state), &mut found, now);
            assert_eq!(found.overdue, None, "it goes on");
        }
    }

    #[test]
    fn a_cluster_without_pods_is_measured_too() {
        let cluster = cluster(json!({"replicas": 3}), 1, None);
        let mut found = Observation {
            pods: Pods { refused: Some("exceeded quota".to_owned()), ..Pods::default() },
            replicas: 3,
            taken_up: true,
            ..Observation::default()
        };
        let (mut deadline, now) = (Deadline::default(), Instant::now());
        assert_eq!(deadline.observe(&cluster, None, &mut found, now), Some(DEFAULT));
        deadline.observe(&cluster, None, &mut found, now + DEFAULT);
        assert_eq!(found.overdue, Some(DEFAULT));
    }
}
