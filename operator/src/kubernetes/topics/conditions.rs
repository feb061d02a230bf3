//! PURE: the conditions of a topic.

use crate::conditions::ConditionValue;
use crate::controller::Refusal;
use crate::controller::state::{Partition, Topic};
use crate::verdict::{NOT_ALLOWED, NOT_READABLE, Verdict};

/// Whether clients can use a topic.
pub(super) fn ready(topic: &Topic, min_isr: usize, refusal: Option<&Refusal>) -> ConditionValue {
    let total = topic.partitions.len();
    let missing = topic.partitions_wanted().saturating_sub(total);
    let offline = topic.partitions.iter().position(|partition| partition.leader.is_none());
    let read_only = topic.partitions.iter().position(|partition| partition.isr.len() < min_isr);
    if let Some(refusal) = refusal {
        return refused(refusal);
    }
    if let Some(first) = offline {
        let count = topic.partitions.iter().filter(|partition| partition.leader.is_none()).count();
        let replicas = topic
            .partitions
            .get(first)
            .map(|partition| ids(&partition.replicas))
            .unwrap_or_default();
        let message = format!(
            "{count} of {total} partitions have no leader, for instance {first}, whose replicas are on the brokers {replicas}: one that has all records must come back"
        );
        return ConditionValue::fails("PartitionsOffline", message);
    }
    if missing > 0 {
        let message = format!("{missing} partitions wait for a broker that can take them");
        return ConditionValue::fails("WaitingForBrokers", message);
    }
    if let Some(first) = read_only {
        let message = format!(
            "partition {first} has fewer than min.insync.replicas={min_isr} replicas in sync: records with acks=all are not taken until brokers are back"
        );
        return ConditionValue::fails("UnderMinIsr", message);
    }
    ConditionValue::holds("Ready", "every partition has a leader")
}

/// Whether all replicas of a topic are in sync.
pub(super) fn healthy(topic: &Topic) -> ConditionValue {
    let behind = |partition: &&Partition| partition.isr.len() < partition.replicas.len();
    let count = topic.partitions.iter().filter(behind).count();
    match topic.partitions.iter().position(|partition| behind(&partition)) {
        None => ConditionValue::holds("InSync", "all replicas are in sync"),
        Some(first) => {
            let partition = topic.partitions.get(first);
            let isr = partition.map(|partition| ids(&partition.isr)).unwrap_or_default();
            let replicas = partition.map(|partition| ids(&partition.replicas)).unwrap_or_default();
            let message = format!(
                "{count} of {} partitions lack replicas, for instance {first}: in sync are [{isr}] of [{replicas}]",
                topic.partitions.len()
            );
            ConditionValue::fails("UnderReplicated", message)
        }
    }
}

/// Whether the cluster, in another namespace, accepts the Topic. `is_served`: it was accepted
/// before.
pub(super) fn accepted(verdict: &Verdict, is_served: bool) -> ConditionValue {
    match verdict {
        Verdict::Allowed | Verdict::Pending => {
            ConditionValue::holds("Accepted", "the cluster takes Topics of this namespace")
        }
        Verdict::NotAllowed(why) if is_served => {
            let message = format!(
                "{why}. The topic stays as it is, with its records, and is retained; what is written here is not followed"
            );
            ConditionValue::fails(NOT_ALLOWED, message)
        }
        Verdict::NotAllowed(why) => ConditionValue::fails(NOT_ALLOWED, why.clone()),
        Verdict::Unknown(why) => ConditionValue::fails(NOT_READABLE, why.clone()),
    }
}

/// The condition of a refused resource.
pub(super) fn refused(refusal: &Refusal) -> ConditionValue {
    let reason = if refusal.reason.contains("already") || refusal.reason.contains("collides") {
        "Conflict"
    } else {
        "Invalid"
    };
    ConditionValue::fails(reason, format!("{}: {}", refusal.path, refusal.reason))
}

fn ids(brokers: &[weir_protocol::types::BrokerId]) -> String {
    brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use weir_protocol::types::{BrokerId, TopicId};

    use super::*;
    use crate::controller::Key;

    fn topic(partitions: Vec<Partition>) -> Topic {
        let object = serde_json::json!({
            "apiVersion": weir_crds::API_VERSION, "kind": "Topic", "metadata": {"name": "t"},
            "spec": {"clusterRef": {"name": "c"}, "partitions": 2, "replicas": 2},
        });
        Topic {
            id: TopicId(Uuid::from_u128(1)),
            key: Key::new(Some("n"), Some("t")),
            resource: serde_json::from_value(object).unwrap(),
            partitions,
        }
    }

    fn partition(isr: &[i32]) -> Partition {
        let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
        Partition::new(ids(&[0, 1]), ids(isr))
    }

    #[test]
    fn the_worst_is_said_with_an_example() {
        let cases = [
            (vec![partition(&[0, 1]), partition(&[0, 1])], "Ready", "InSync"),
            (vec![partition(&[0, 1]), partition(&[1])], "UnderMinIsr", "UnderReplicated"),
            (vec![partition(&[0, 1]), partition(&[])], "PartitionsOffline", "UnderReplicated"),
            (vec![partition(&[0, 1])], "WaitingForBrokers", "InSync"),
        ];
        for (partitions, ready_reason, healthy_reason) in cases {
            let topic = topic(partitions);
            assert_eq!(
                (ready(&topic, 2, None).reason, healthy(&topic).reason),
                (ready_reason, healthy_reason)
            );
        }
        let topic = topic(vec![partition(&[0, 1]), partition(&[1])]);
        assert_eq!(
            healthy(&topic).message,
            "1 of 2 partitions lack replicas, for instance 1: in sync are [1] of [0,1]"
        );
    }
}
