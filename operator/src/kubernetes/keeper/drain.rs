//! PURE: whether a broker's pod may be evicted, and if not, because of which topic.
//!
//! One at a time, while every partition with several replicas can lose any one of its ISR. A broker
//! that is down for long blocks nothing that can be spared without it. A topic with one replica
//! blocks nothing either: it is unavailable while its broker is down, and waiting would never end.

use std::collections::BTreeSet;

use weir_protocol::types::BrokerId;

use super::rollout::{min_isr, partitions};
use crate::controller::state::State;

/// Whether a pod may be evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// One broker at a time may be evicted; a message with details.
    Allowed(String),
    /// None may until a planned restart is over.
    Restarting(String),
    /// None may, and that does not change by itself: a reason in one word, and a sentence.
    Blocked(&'static str, String),
}

/// `away`: the brokers that are down as planned.
pub(super) fn drain(state: &State, replicas: i32, away: &BTreeSet<i32>) -> Drain {
    if let Some(id) = away.first().filter(|_| replicas > 1) {
        return Drain::Restarting(format!(
            "no broker can be evicted until broker {id} is back and in sync"
        ));
    }
    let spare = |min_isr: usize, isr: usize, replicas: usize| replicas == 1 || isr > min_isr;
    let tight = partitions(state).find(|(topic, _, partition)| {
        !spare(min_isr(state, topic), partition.isr.len(), partition.replicas.len())
    });
    if let Some((topic, index, partition)) = tight.filter(|_| replicas > 1) {
        let (min_isr, name) = (min_isr(state, topic), topic.name());
        let (isr, of) = (partition.isr.len(), partition.replicas.len());
        if of <= min_isr {
            let message = format!(
                "no broker can be evicted: {name} has {of} replicas and min.insync.replicas={min_isr}, so none of them can be spared. Give the topic more replicas, or lower min.insync.replicas"
            );
            return Drain::Blocked("TooFewReplicas", message);
        }
        let missing: Vec<String> = partition
            .replicas
            .iter()
            .filter(|id| !partition.isr.contains(id))
            .map(ToString::to_string)
            .collect();
        let message = format!(
            "no broker can be evicted: of {name}-{index} {isr} of {of} replicas are in sync, and min.insync.replicas={min_isr}. Bring broker {} back, or move its replicas to others with kafka-reassign-partitions",
            missing.join(", ")
        );
        return Drain::Blocked("ReplicasMissing", message);
    }
    let single = partitions(state).find(|(_, _, partition)| partition.replicas.len() == 1);
    Drain::Allowed(single.map_or_else(
        || "one broker can be evicted at a time".to_owned(),
        |(topic, index, _)| {
            let name = topic.name();
            format!("one broker can be evicted at a time; {name}-{index} has one replica, and is away while its broker is")
        },
    ))
}

/// The `maxUnavailable` of the disruption budget: one more than are unavailable now. Pods that are
/// not ready count as unavailable, though they may be evicted.
pub(super) fn unavailable_max(
    state: &State,
    replicas: i32,
    away: &BTreeSet<i32>,
    ready: usize,
) -> i32 {
    match drain(state, replicas, away) {
        Drain::Allowed(_) if replicas <= 1 => 1,
        Drain::Allowed(_) => {
            let serving = (0..replicas).filter(|id| state.is_usable(BrokerId(*id))).count();
            // If Kubernetes and the brokers disagree, the larger number counts.
            let there = i32::try_from(serving.max(ready)).unwrap_or(i32::MAX);
            (replicas - there).max(0) + 1
        }
        Drain::Restarting(_) | Drain::Blocked(..) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::rollout::tests::state;
    use super::*;

    #[test]
    fn who_blocks_a_drain_is_said_and_what_can_be_spared_goes() {
        let calm = BTreeSet::new();
        let said = |state: &State, away: &BTreeSet<i32>| match drain(state, 3, away) {
            Drain::Allowed(said) => format!("allowed: {said}"),
            Drain::Restarting(said) => format!("restarting: {said}"),
            Drain::Blocked(reason, said) => format!("{reason}: {said}"),
        };
        let cases = [
            // All replicas are in sync.
            (state(2, None, &[&[0, 1, 2]]), 3, 1, "allowed: one broker can be evicted at a time"),
            // One replica: the message says so, and it blocks nothing.
            (
                state(2, None, &[&[0, 1, 2], &[1]]),
                3,
                1,
                "allowed: one broker can be evicted at a time; t-1 has one replica",
            ),
            // As many replicas as `min.insync.replicas`.
            (
                state(3, None, &[&[0, 1, 2]]),
                3,
                0,
                "TooFewReplicas: no broker can be evicted: t has 3 replicas and min.insync.replicas=3",
            ),
            // A broker is down for weeks: with a minimum of two no other may go, with a minimum of
            // one another may.
            (
                state(2, Some(2), &[&[0, 1]]),
                2,
                0,
                "ReplicasMissing: no broker can be evicted: of t-0 2 of 3 replicas are in sync, and min.insync.replicas=2. Bring broker 2 back",
            ),
            (state(1, Some(2), &[&[0, 1]]), 2, 2, "allowed: one broker can be evicted at a time"),
        ];
        for (state, ready, evictable, expected) in cases {
            let message = said(&state, &calm);
            assert!(message.starts_with(expected), "{message}");
            assert_eq!(unavailable_max(&state, 3, &calm, ready), evictable, "{expected}");
        }
        let one = state(1, None, &[&[0, 1, 2]]);
        let away = BTreeSet::from([1]);
        assert!(
            said(&one, &away)
                .starts_with("restarting: no broker can be evicted until broker 1 is back")
        );
        assert_eq!(unavailable_max(&one, 3, &away, 2), 0);
        assert_eq!(unavailable_max(&one, 1, &away, 0), 1, "one alone can always go");
    }
}
