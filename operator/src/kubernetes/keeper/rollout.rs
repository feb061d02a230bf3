//! PURE: which broker may be restarted next, and why brokers to be removed still exist.
//!
//! One at a time, when every replica is in sync: a restart takes one replica of each of its
//! partitions away for a while. It never takes so many that writes with `acks=all` are refused.
//! Leaders move before the broker stops, since it asks for a controlled shutdown.

use weir_protocol::types::BrokerId;

use super::pods::{PodView, Pods};
use crate::controller::state::{Partition, State, Topic};

/// The most topics that a message names; it counts the others.
const NAMED_MAX: usize = 5;

/// The next step of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Every pod matches the spec.
    Done,
    /// Something must happen first.
    Wait(String),
    /// No pod may be restarted, and that does not change by itself.
    Blocked(String),
    /// Delete this pod; its successor matches the spec.
    Restart { id: i32, name: String, uid: String, reason: &'static str },
}

/// Chooses the next step of a rollout.
pub(super) fn next(pods: &Pods, state: &State, replicas: i32) -> Step {
    let outdated: Vec<&PodView> = pods
        .iter()
        .filter(|pod| pod.outdated == Some(true) && !pod.terminating && pod.id < replicas)
        .collect();
    if outdated.is_empty() {
        return Step::Done;
    }
    // A pod that cannot run loses nothing by a restart, and may be repaired by it.
    if let Some(stuck) = outdated
        .iter()
        .find(|pod| !pod.ready && pod.trouble.is_some() && !state.is_usable(BrokerId(pod.id)))
    {
        return restart(stuck, "its pod cannot run as it is");
    }
    if let Some(waiting) = what_first(pods, state, replicas) {
        return Step::Wait(waiting);
    }
    // The pods whose brokers serve beside a container that does not run are the first to be
    // replaced: what is wrong may be what was corrected. The others wait for them.
    let beside: Vec<&PodView> = outdated.iter().copied().filter(|pod| is_broken(pod)).collect();
    let mut reasons = Vec::new();
    for pod in if beside.is_empty() { &outdated } else { &beside } {
        match blocked(state, BrokerId(pod.id)) {
            None => return restart(pod, "its pod is not as the spec wants it"),
            Some(reason) => reasons.push(reason),
        }
    }
    Step::Blocked(reasons.into_iter().next().unwrap_or_default())
}

fn restart(pod: &PodView, reason: &'static str) -> Step {
    Step::Restart { id: pod.id, name: pod.name.clone(), uid: pod.uid.clone(), reason }
}

/// Whether a pod does not become ready, and a new one would be another: it is not waited for.
fn is_broken(pod: &PodView) -> bool {
    !pod.ready && pod.trouble.is_some() && pod.outdated == Some(true)
}

/// What must be over before any broker restarts.
fn what_first(pods: &Pods, state: &State, replicas: i32) -> Option<String> {
    for id in 0..replicas {
        let pod = pods.iter().find(|pod| pod.id == id);
        let Some(pod) = pod else {
            return Some(because(format!("broker {id} has no pod"), pods.refused.as_ref()));
        };
        if pod.terminating || (!pod.ready && !is_broken(pod)) {
            let recovers = pod.recovers.as_ref().map(|far| format!("it {far}"));
            let why = pod.trouble.clone().or(recovers).filter(|_| !pod.terminating);
            return Some(because(format!("broker {id} is not ready"), why.as_ref()));
        }
        // It is unknown whether the broker runs, and it would not learn the new leaders.
        if pod.unheard {
            let reason = pod.trouble.clone();
            return Some(
                reason.unwrap_or_else(|| format!("broker {id} has not come to this operator yet")),
            );
        }
        if !state.is_usable(BrokerId(id)) {
            return Some(because(format!("broker {id} does not serve yet"), pod.trouble.as_ref()));
        }
    }
    let (topic, index, partition) = partitions(state)
        .find(|(_, _, partition)| partition.isr.len() < partition.replicas.len())?;
    let (isr, replicas) = (partition.isr.len(), partition.replicas.len());
    Some(format!("of {}-{index} only {isr} of {replicas} replicas are in sync", topic.name()))
}

fn because(what: String, why: Option<&String>) -> String {
    match why {
        Some(why) => format!("{what}: {why}"),
        None => what,
    }
}

/// Why a broker may not restart although all replicas are in sync: a topic has too few for its
/// `min.insync.replicas`.
fn blocked(state: &State, id: BrokerId) -> Option<String> {
    partitions(state).find_map(|(topic, index, partition)| {
        if !partition.isr.contains(&id) || partition.replicas.len() == 1 {
            return None;
        }
        let min_isr = min_isr(state, topic);
        (partition.isr.len() <= min_isr).then(|| {
            format!(
                "without broker {id}, {}-{index} would have fewer than min.insync.replicas={min_isr} replicas in sync: give the topic more replicas, or lower min.insync.replicas",
                topic.name()
            )
        })
    })
}

/// Why brokers to be removed still exist, and whether their replicas are being moved. `held`: one
/// more than the highest id of a broker with replicas.
pub(super) fn held_back(state: &State, wanted: i32, held: i32) -> (Option<String>, bool) {
    let of = |id: i32| {
        partitions(state)
            .filter(move |(_, _, partition)| partition.replicas.contains(&BrokerId(id)))
    };
    let holders: Vec<(i32, usize)> =
        (wanted..held).map(|id| (id, of(id).count())).filter(|(_, count)| *count > 0).collect();
    let Some((topic, index, _)) = holders.first().and_then(|(id, _)| of(*id).next()) else {
        return (None, false);
    };
    let moving = partitions(state)
        .any(|(_, _, partition)| partition.removing.iter().any(|id| id.0 >= wanted));
    let named: Vec<String> = holders
        .iter()
        .map(|(id, count)| {
            format!("broker {id} holds replicas of {}", counted(*count, "partition"))
        })
        .collect();
    let (named, topic) = (named.join(", "), topic.name());
    let (they, get) = if holders.len() == 1 { ("it", "gets") } else { ("they", "get") };
    let message = if moving {
        format!(
            "{named}, for instance of {topic}-{index}: they are being moved, and no new ones come"
        )
    } else {
        let what = what_empties(state, wanted);
        format!(
            "{named}, for instance of {topic}-{index}; {they} {get} no new ones: {what}, or raise brokers.replicas to {held} again"
        )
    };
    (Some(message), moving)
}

/// What a person does to empty the brokers beyond `wanted`. Replicas of a topic that has more than
/// there will be brokers have nowhere to move to.
fn what_empties(state: &State, wanted: i32) -> String {
    let most = usize::try_from(wanted).unwrap_or_default();
    let mut wide = Vec::new();
    let mut can_move = false;
    for topic in state.topics_by_name() {
        let on_them = |partition: &&Partition| partition.replicas.iter().any(|id| id.0 >= wanted);
        let held = topic.partitions.iter().filter(on_them);
        let (large, others): (Vec<&Partition>, Vec<&Partition>) =
            held.partition(|partition| partition.replicas_wanted() > most);
        can_move |= !others.is_empty();
        if !large.is_empty() {
            wide.push(shown(state, topic));
        }
    }
    let mut steps = Vec::new();
    if let Some(more) = wide.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        wide.truncate(NAMED_MAX);
        wide.push(format!("{} more", counted(more, "Topic")));
    }
    if let Some((last, first)) = wide.split_last() {
        let (kind, names) = match first {
            [] => ("Topic", last.clone()),
            first => ("Topics", format!("{} and {last}", first.join(", "))),
        };
        steps.push(format!(
            "lower spec.replicas of the {kind} {names} to {wanted}, as there will be no more brokers"
        ));
    }
    if can_move {
        let them = if steps.is_empty() { "them" } else { "the replicas of the others" };
        steps.push(format!("move {them} to other brokers with kafka-reassign-partitions"));
    }
    steps.join(", and ")
}

/// The name of a topic's resource, as `kubectl` takes it.
fn shown(state: &State, topic: &Topic) -> String {
    let key = &topic.key;
    let is_here = key.namespace == state.cluster.namespace();
    if is_here { key.name.clone() } else { format!("{}/{}", key.namespace, key.name) }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

pub(super) fn partitions(state: &State) -> impl Iterator<Item = (&Topic, usize, &Partition)> {
    state.topics.values().flat_map(|topic| {
        let topic = topic.as_ref();
        topic.partitions.iter().enumerate().map(move |(index, partition)| (topic, index, partition))
    })
}

pub(super) fn min_isr(state: &State, topic: &Topic) -> usize {
    state
        .topic_setting(topic, "min.insync.replicas")
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;
    use uuid::Uuid;
    use weir_protocol::types::{BrokerEpoch, TopicId};

    use super::*;
    use crate::controller::state::{Broker, Change, Cluster};

    /// Three brokers, and a topic with one partition for each of these ISRs.
    pub(in super::super) fn state(min_isr: u32, fenced: Option<i32>, isrs: &[&[i32]]) -> State {
        let cluster = json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "c"}, "spec": {}});
        let mut state =
            State::new(Cluster::new("id".into(), serde_json::from_value(cluster).unwrap()));
        state.apply(&Change::NextBrokerEpoch(BrokerEpoch(9)));
        for id in 0..3 {
            state.apply(&Change::Broker(Broker {
                id: BrokerId(id),
                epoch: BrokerEpoch(i64::from(id)),
                incarnation: Uuid::from_u128(1),
                log_dir: Uuid::from_u128(2),
                endpoints: Vec::new(),
                rack: None,
                fenced: fenced == Some(id),
                shutting_down: false,
            }));
        }
        let topic = json!({
            "apiVersion": weir_crds::API_VERSION, "kind": "Topic", "metadata": {"name": "t"},
            "spec": {"clusterRef": {"name": "c"}, "config": {"min.insync.replicas": min_isr}},
        });
        let id = TopicId(Uuid::from_u128(1));
        state.apply(&Change::Topic(id, Box::new(serde_json::from_value(topic).unwrap())));
        let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
        for (index, isr) in (0..).zip(isrs) {
            let replicas = if *isr == [1] { vec![1] } else { vec![0, 1, 2] };
            state.apply(&Change::Partition(id, index, Partition::new(ids(&replicas), ids(isr))));
        }
        state
    }

    fn pods(outdated: &[i32], not_ready: &[i32]) -> Pods {
        (0..3)
            .map(|id| PodView {
                id,
                name: format!("c-{id}"),
                ready: !not_ready.contains(&id),
                outdated: Some(outdated.contains(&id)),
                ..PodView::default()
            })
            .collect()
    }

    fn said(step: &Step) -> String {
        match step {
            Step::Done => "done".to_owned(),
            Step::Wait(reason) | Step::Blocked(reason) => reason.clone(),
            Step::Restart { id, .. } => format!("restart {id}"),
        }
    }

    #[test]
    fn brokers_are_restarted_when_the_partitions_allow_it() {
        let all: &[&[i32]] = &[&[0, 1, 2], &[1]];
        let cases = [
            (pods(&[], &[]), state(2, None, all), "done"),
            (pods(&[1, 2], &[]), state(2, None, all), "restart 1"),
            (pods(&[1, 2], &[0]), state(2, None, all), "broker 0 is not ready"),
            (pods(&[1, 2], &[]), state(2, Some(0), all), "broker 0 does not serve yet"),
            (
                pods(&[1], &[]),
                state(2, None, &[&[0, 1]]),
                "of t-0 only 2 of 3 replicas are in sync",
            ),
        ];
        for (pods, state, expected) in cases {
            assert_eq!(said(&next(&pods, &state, 3)), expected);
        }
        let blocked = said(&next(&pods(&[1], &[]), &state(3, None, all), 3));
        assert!(
            blocked
                .starts_with("without broker 1, t-0 would have fewer than min.insync.replicas=3"),
            "{blocked}"
        );
    }

    #[test]
    fn nobody_is_restarted_before_all_have_come_to_the_controller() {
        let (mut pods, state) = (pods(&[1], &[]), state(2, None, &[&[0, 1, 2]]));
        pods[2].unheard = true;
        assert_eq!(said(&next(&pods, &state, 3)), "broker 2 has not come to this operator yet");
        pods[2].trouble = Some("broker 2 looks elsewhere".to_owned());
        assert_eq!(said(&next(&pods, &state, 3)), "broker 2 looks elsewhere");
        pods[2].unheard = false;
        assert_eq!(said(&next(&pods, &state, 3)), "restart 1");
    }

    #[test]
    fn what_the_next_restart_waits_for_is_said_with_its_trouble() {
        let state = state(2, Some(2), &[&[0, 1]]);
        let said = |pods: &Pods| said(&next(pods, &state, 3));
        let mut waits = pods(&[0, 1], &[2]);
        waits[2].trouble = Some("pod c-2: ImagePullBackOff: not found".to_owned());
        assert_eq!(said(&waits), "broker 2 is not ready: pod c-2: ImagePullBackOff: not found");
        waits[2].trouble = None;
        waits[2].recovers = Some("recovers its logs: 1 of 2".to_owned());
        assert_eq!(said(&waits), "broker 2 is not ready: it recovers its logs: 1 of 2");
        waits.pop();
        assert_eq!(said(&waits), "broker 2 has no pod");
        waits.refused = Some("pods are refused: exceeded quota".to_owned());
        assert_eq!(said(&waits), "broker 2 has no pod: pods are refused: exceeded quota");
    }

    #[test]
    fn a_pod_that_cannot_run_is_replaced_whatever_waits() {
        let mut broken = pods(&[0, 2], &[2]);
        broken[2].trouble = Some("no such image".to_owned());
        assert_eq!(said(&next(&broken, &state(2, Some(2), &[&[0, 1]]), 3)), "restart 2");
        broken[2].terminating = true;
        assert_eq!(
            said(&next(&broken, &state(2, Some(2), &[&[0, 1]]), 3)),
            "broker 2 is not ready"
        );
    }

    #[test]
    fn a_broker_that_serves_beside_a_broken_container_is_replaced_first_and_with_care() {
        let all: &[&[i32]] = &[&[0, 1, 2], &[1]];
        let broken = |outdated: &[i32], not_ready: &[i32]| {
            let mut pods = pods(outdated, not_ready);
            pods[2].trouble = Some("container proxy is restarted again and again".to_owned());
            pods
        };
        let cases = [
            (broken(&[0, 1, 2], &[2]), state(2, None, all), "restart 2"),
            (broken(&[0, 1, 2], &[1, 2]), state(2, None, all), "broker 1 is not ready"),
            (
                broken(&[0, 1], &[2]),
                state(2, None, all),
                "broker 2 is not ready: container proxy is restarted again and again",
            ),
            (
                broken(&[0, 2], &[2]),
                state(2, None, &[&[1, 2]]),
                "of t-0 only 2 of 3 replicas are in sync",
            ),
        ];
        for (pods, state, expected) in cases {
            assert_eq!(said(&next(&pods, &state, 3)), expected);
        }
        let blocked = said(&next(&broken(&[0, 2], &[2]), &state(3, None, all), 3));
        assert!(blocked.starts_with("without broker 2, t-0 would have fewer"), "{blocked}");
    }

    #[test]
    fn who_holds_back_a_scale_down_is_said() {
        let state = state(1, None, &[&[0, 1, 2], &[1]]);
        assert_eq!(held_back(&state, 3, 3), (None, false));
        let (said, moving) = held_back(&state, 1, 3);
        let said = said.unwrap();
        assert!(!moving);
        assert_eq!(
            said,
            "broker 1 holds replicas of 2 partitions, broker 2 holds replicas of 1 partition, for instance of t-0; they get no new ones: lower spec.replicas of the Topic t to 1, as there will be no more brokers, and move the replicas of the others to other brokers with kafka-reassign-partitions, or raise brokers.replicas to 3 again"
        );
        // There is room for all replicas, or for none of them.
        let (narrow, _) = held_back(&self::state(1, None, &[&[1]]), 1, 2);
        assert_eq!(
            narrow.unwrap(),
            "broker 1 holds replicas of 1 partition, for instance of t-0; it gets no new ones: move them to other brokers with kafka-reassign-partitions, or raise brokers.replicas to 2 again"
        );
        let (wide, _) = held_back(&self::state(1, None, &[&[0, 1, 2]]), 2, 3);
        assert_eq!(
            wide.unwrap(),
            "broker 2 holds replicas of 1 partition, for instance of t-0; it gets no new ones: lower spec.replicas of the Topic t to 2, as there will be no more brokers, or raise brokers.replicas to 3 again"
        );
        let (id, topic) = state.topics.iter().next().unwrap();
        let mut moved = state.clone();
        moved.apply(&Change::Partition(
            *id,
            1,
            Partition {
                removing: vec![BrokerId(1)],
                replicas: vec![BrokerId(0), BrokerId(1)],
                adding: vec![BrokerId(0)],
                partition_epoch: weir_protocol::types::PartitionEpoch(
                    topic.partitions[1].partition_epoch.0 + 1,
                ),
                ..topic.partitions[1].clone()
            },
        ));
        assert!(held_back(&moved, 1, 3).1);
    }
}
