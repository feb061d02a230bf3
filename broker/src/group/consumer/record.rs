//! PURE: the records of groups of the consumer protocol, in Kafka's formats.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use uuid::Uuid;
use weir_protocol::messages::{
    ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupMemberMetadataKey, ConsumerGroupMemberMetadataValue, ConsumerGroupMetadataKey,
    ConsumerGroupMetadataValue, ConsumerGroupRegularExpressionKey,
    ConsumerGroupRegularExpressionValue, ConsumerGroupTargetAssignmentMemberKey,
    ConsumerGroupTargetAssignmentMemberValue, ConsumerGroupTargetAssignmentMetadataKey,
    ConsumerGroupTargetAssignmentMetadataValue,
    consumer_group_current_member_assignment_value as current,
    consumer_group_target_assignment_member_value as target,
};

use super::Member;
use super::assignor::Partitions;
use super::member::Classic;
use super::reconcile::{Current, Since, State};
use crate::coordinator::Record;
use crate::group::record::record;

/// The version of all these records.
const VERSION: i16 = 0;

pub(super) fn epoch(group: &str, value: Option<(i32, i64)>) -> Record {
    let key = ConsumerGroupMetadataKey { group_id: group.to_owned() };
    let value =
        value.map(|(epoch, metadata_hash)| ConsumerGroupMetadataValue { epoch, metadata_hash });
    record(&key, value.as_ref().map(|value| (value, VERSION)))
}

pub(super) fn target_epoch(group: &str, value: Option<(i32, i64)>) -> Record {
    let key = ConsumerGroupTargetAssignmentMetadataKey { group_id: group.to_owned() };
    let value = value.map(|(assignment_epoch, assignment_timestamp)| {
        ConsumerGroupTargetAssignmentMetadataValue { assignment_epoch, assignment_timestamp }
    });
    record(&key, value.as_ref().map(|value| (value, VERSION)))
}

pub(super) fn member(group: &str, id: &str, member: Option<&Member>) -> Record {
    let key =
        ConsumerGroupMemberMetadataKey { group_id: group.to_owned(), member_id: id.to_owned() };
    let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
    let value = member.map(|member| ConsumerGroupMemberMetadataValue {
        instance_id: text(&member.instance),
        rack_id: text(&member.rack),
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
        subscribed_topic_names: member.topics.iter().map(|topic| topic.to_string()).collect(),
        subscribed_topic_regex: text(&member.regex),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        server_assignor: text(&member.assignor),
        classic_member_metadata: member.classic.as_ref().map(Classic::record),
    });
    record(&key, value.as_ref().map(|value| (value, VERSION)))
}

pub(super) fn target(group: &str, member: &str, value: Option<&Partitions>) -> Record {
    let key = ConsumerGroupTargetAssignmentMemberKey {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
    };
    let topic = |(topic_id, partitions): (&Uuid, &std::collections::BTreeSet<i32>)| {
        target::TopicPartition {
            topic_id: *topic_id,
            partitions: partitions.iter().copied().collect(),
        }
    };
    let value = value.map(|partitions| ConsumerGroupTargetAssignmentMemberValue {
        topic_partitions: partitions.iter().map(topic).collect(),
    });
    record(&key, value.as_ref().map(|value| (value, VERSION)))
}

pub(super) fn target_of(value: ConsumerGroupTargetAssignmentMemberValue) -> Partitions {
    let topics = value.topic_partitions.into_iter();
    topics.map(|topic| (topic.topic_id, topic.partitions.into_iter().collect())).collect()
}

pub(super) fn current(group: &str, member: &str, value: Option<&Current>) -> Record {
    let key = ConsumerGroupCurrentMemberAssignmentKey {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
    };
    let topics = |partitions: &Partitions, since: &Since| {
        let epoch = |topic: &Uuid, index: &i32| since.get(&(*topic, *index)).copied().unwrap_or(0);
        let topic = |(topic_id, partitions): (&Uuid, &std::collections::BTreeSet<i32>)| {
            current::TopicPartitions {
                topic_id: *topic_id,
                partitions: partitions.iter().copied().collect(),
                assignment_epochs: Some(
                    partitions.iter().map(|index| epoch(topic_id, index)).collect(),
                ),
            }
        };
        partitions.iter().map(topic).collect()
    };
    let value = value.map(|current| ConsumerGroupCurrentMemberAssignmentValue {
        member_epoch: current.epoch,
        previous_member_epoch: current.previous_epoch,
        state: current.state as i8,
        assigned_partitions: topics(&current.assigned, &current.since),
        partitions_pending_revocation: topics(&current.revoking, &current.since),
    });
    record(&key, value.as_ref().map(|value| (value, VERSION)))
}

/// A member's current assignment. A record from before KIP-1251, or a malformed one, has no
/// assignment epochs; then the member epoch counts (`Utils.assignmentFromTopicPartitions`).
pub(super) fn current_of(value: ConsumerGroupCurrentMemberAssignmentValue) -> Current {
    let mut since = Since::new();
    let mut partitions = |topics: Vec<current::TopicPartitions>| -> Partitions {
        let topic = |topic: current::TopicPartitions| {
            let epochs =
                topic.assignment_epochs.filter(|epochs| epochs.len() == topic.partitions.len());
            let epochs =
                epochs.unwrap_or_else(|| vec![value.member_epoch.max(0); topic.partitions.len()]);
            let keys = topic.partitions.iter().map(|index| (topic.topic_id, *index));
            since.extend(keys.zip(epochs));
            (topic.topic_id, topic.partitions.into_iter().collect())
        };
        topics.into_iter().map(topic).collect()
    };
    Current {
        epoch: value.member_epoch,
        previous_epoch: value.previous_member_epoch,
        state: State::from_code(value.state),
        assigned: partitions(value.assigned_partitions),
        revoking: partitions(value.partitions_pending_revocation),
        since,
    }
}

pub(super) fn regex(
    group: &str,
    pattern: &str,
    value: Option<ConsumerGroupRegularExpressionValue>,
) -> Record {
    let key = ConsumerGroupRegularExpressionKey {
        group_id: group.to_owned(),
        regular_expression: pattern.to_owned(),
    };
    record(&key, value.as_ref().map(|value| (value, VERSION)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_does_not_say_since_when_means_the_members_epoch() {
        let topic = |partitions: Vec<i32>, assignment_epochs| current::TopicPartitions {
            topic_id: Uuid::from_u128(1),
            partitions,
            assignment_epochs,
        };
        let value = |member_epoch, assigned, revoking| ConsumerGroupCurrentMemberAssignmentValue {
            member_epoch,
            assigned_partitions: vec![assigned],
            partitions_pending_revocation: vec![revoking],
            ..Default::default()
        };
        let since = |value| {
            current_of(value)
                .since
                .into_iter()
                .map(|((_, index), epoch)| (index, epoch))
                .collect::<Vec<_>>()
        };
        let said = value(7, topic(vec![0, 1], Some(vec![3, 7])), topic(vec![2], Some(vec![5])));
        assert_eq!(since(said.clone()), [(0, 3), (1, 7), (2, 5)]);
        let unsaid = value(7, topic(vec![0, 1], None), topic(vec![2], Some(vec![5, 6])));
        assert_eq!(since(unsaid), [(0, 7), (1, 7), (2, 7)]);
        assert_eq!(since(value(-2, topic(vec![0], None), topic(vec![], None))), [(0, 0)]);
        // A written record can be read.
        let known = current_of(said);
        let written = current("g", "m", Some(&known));
        let logged = crate::coordinator::Logged {
            key: &written.key,
            value: written.value.as_deref(),
            transaction: None,
        };
        let Ok(crate::group::record::Change::Current(_, Some(value))) =
            crate::group::record::read(&logged)
        else {
            panic!("another record");
        };
        assert_eq!(current_of(value), known);
    }
}
