//! PURE: which brokers' pods may be evicted, and which not, because of which topic.
//!
//! One at a time, of those brokers that every partition can spare: each of its partitions with
//! several replicas has more of them in sync than `min.insync.replicas`. A broker that is down for
//! long blocks nothing that can be spared without it. A topic with one replica blocks nothing
//! either: it is unavailable while its broker is down, and waiting would never end.

use std::collections::BTreeSet;

use weir_protocol::types::BrokerId;

use super::super::objects::Evictions;
use super::rollout::{min_isr, partitions};
use crate::controller::state::{Partition, State, Topic};

/// Whether pods may be evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// One broker at a time may be evicted; a message with details.
    Allowed(String),
    /// None may until a planned restart is over.
    Restarting(String),
    /// Some or all may not, and that does not change by itself.
    Blocked {
        /// One word for programs.
        reason: &'static str,
        /// A sentence for people.
        message: String,
        /// Those that may not. One at a time of the others may.
        held: BTreeSet<i32>,
    },
}

/// `away`: the brokers that are down as planned.
pub(super) fn drain(state: &State, replicas: i32, away: &BTreeSet<i32>) -> Drain {
    if let Some(id) = away.first().filter(|_| replicas > 1) {
        return Drain::Restarting(format!(
            "no broker can be evicted until broker {id} is back and in sync"
        ));
    }
    let is_tight = |(topic, _, partition): &(&Topic, usize, &Partition)| {
        partition.replicas.len() > 1 && partition.isr.len() <= min_isr(state, topic)
    };
    let held: BTreeSet<i32> = partitions(state)
        .filter(is_tight)
        .flat_map(|(_, _, partition)| partition.isr.iter().map(|id| id.0))
        .collect();
    if let Some((topic, index, partition)) =
        partitions(state).find(is_tight).filter(|_| replicas > 1)
    {
        let (min_isr, name) = (min_isr(state, topic), topic.name());
        let (isr, of) = (partition.isr.len(), partition.replicas.len());
        let who = who(&held, replicas);
        if of <= min_isr {
            let message = format!(
                "{who}: {name} has {of} replicas and min.insync.replicas={min_isr}, so none of them can be spared. Give the topic more replicas, or lower min.insync.replicas"
            );
            return Drain::Blocked { reason: "TooFewReplicas", message, held };
        }
        let missing: Vec<String> = partition
            .replicas
            .iter()
            .filter(|id| !partition.isr.contains(id))
            .map(ToString::to_string)
            .collect();
        let message = format!(
            "{who}: of {name}-{index} {isr} of {of} replicas are in sync, and min.insync.replicas={min_isr}. Bring broker {} back, or move its replicas to others with kafka-reassign-partitions",
            missing.join(", ")
        );
        return Drain::Blocked { reason: "ReplicasMissing", message, held };
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

/// How many brokers a message names. A cluster may have hundreds.
const NAMED_MAX: usize = 10;

/// Who cannot be evicted, for a message.
fn who(held: &BTreeSet<i32>, replicas: i32) -> String {
    if (0..replicas).all(|id| held.contains(&id)) {
        return "no broker can be evicted".to_owned();
    }
    let mut named: Vec<String> = held.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    if held.len() > NAMED_MAX {
        named.push(format!("{} more", held.len() - NAMED_MAX));
    }
    format!(
        "brokers that cannot be evicted: {} (one of the others can, at a time)",
        named.join(", ")
    )
}

/// What the disruption budgets allow. Of the brokers that may go, all but one of those that are
/// there stay. Pods that are not ready count as absent, and may be evicted.
pub(super) fn evictions(
    state: &State,
    replicas: i32,
    away: &BTreeSet<i32>,
    ready: &BTreeSet<i32>,
) -> Evictions {
    let none = Evictions { held: BTreeSet::new(), available_min: replicas };
    let held = match drain(state, replicas, away) {
        Drain::Restarting(_) => return none,
        Drain::Allowed(_) => BTreeSet::new(),
        Drain::Blocked { held, .. } => held,
    };
    let free = || (0..replicas).filter(|id| !held.contains(id));
    if free().next().is_none() {
        return none;
    }
    let serving = free().filter(|id| state.is_usable(BrokerId(*id))).count();
    // If Kubernetes and the brokers disagree, the larger number counts.
    let there = serving.max(free().filter(|id| ready.contains(id)).count());
    // One alone can always go.
    let there = if replicas > 1 { i32::try_from(there).unwrap_or(i32::MAX) } else { 0 };
    Evictions { available_min: (there - 1).max(0), held }
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
            Drain::Blocked { reason, message, .. } => format!("{reason}: {message}"),
        };
        let cases = [
            // All replicas are in sync.
            (
                state(2, None, &[&[0, 1, 2]]),
                (&[][..], 2),
                "allowed: one broker can be evicted at a time",
            ),
            // One replica: the message says so, and it blocks nothing.
            (
                state(2, None, &[&[0, 1, 2], &[1]]),
                (&[], 2),
                "allowed: one broker can be evicted at a time; t-1 has one replica",
            ),
            // As many replicas as `min.insync.replicas`.
            (
                state(3, None, &[&[0, 1, 2]]),
                (&[], 3),
                "TooFewReplicas: no broker can be evicted: t has 3 replicas and min.insync.replicas=3",
            ),
            // A broker that is there and not in sync can go, and no other.
            (
                state(2, None, &[&[0, 2]]),
                (&[0, 2], 0),
                "ReplicasMissing: brokers that cannot be evicted: 0, 2 (one of the others can, at a time): of t-0 2 of 3 replicas are in sync, and min.insync.replicas=2. Bring broker 1 back",
            ),
            // A broker is down for weeks: with a minimum of two no other may go, with a minimum of
            // one another may. Its own pod may: it serves nobody.
            (
                state(2, Some(2), &[&[0, 1]]),
                (&[0, 1], 0),
                "ReplicasMissing: brokers that cannot be evicted: 0, 1 (one of the others can, at a time): of t-0 2 of 3 replicas are in sync, and min.insync.replicas=2. Bring broker 2 back",
            ),
            (
                state(1, Some(2), &[&[0, 1]]),
                (&[], 1),
                "allowed: one broker can be evicted at a time",
            ),
        ];
        for (state, (held, available_min), expected) in cases {
            let message = said(&state, &calm);
            assert!(message.starts_with(expected), "{message}");
            let ready = (0..3).filter(|id| state.is_usable(BrokerId(*id))).collect();
            let wanted = Evictions { held: held.iter().copied().collect(), available_min };
            assert_eq!(evictions(&state, 3, &calm, &ready), wanted, "{expected}");
        }
        let one = state(1, None, &[&[0, 1, 2]]);
        let away = BTreeSet::from([1]);
        assert!(
            said(&one, &away)
                .starts_with("restarting: no broker can be evicted until broker 1 is back")
        );
        assert_eq!(evictions(&one, 3, &away, &[0, 2].into()).available_min, 3);
        assert_eq!(
            evictions(&one, 1, &away, &BTreeSet::new()).available_min,
            0,
            "one alone can always go"
        );
    }

    #[test]
    fn of_many_brokers_some_are_named() {
        assert!(who(&(0..40).collect(), 41).contains("8, 9, 30 more (one"));
        assert_eq!(who(&(0..40).collect(), 40), "no broker can be evicted");
    }
}
