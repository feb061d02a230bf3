//! PURE: ConsumerGroupDescribe.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member as DescribedMember, TopicPartitions,
};
use weir_protocol::types::TopicId;

use super::assignor::Partitions;
use super::{ConsumerGroup, Member};
use crate::metadata::MetadataImage;

/// The protocol of a member in the response.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

impl ConsumerGroup {
    /// State that is in records but not in the description.
    #[cfg(test)]
    pub(in crate::group) fn written(&self) -> String {
        let currents: Vec<_> = self.members.values().map(|member| &member.current).collect();
        format!("{currents:?} assigned at {}", self.assigned_at)
    }

    pub(in crate::group) fn describe(&self, image: &MetadataImage) -> DescribedGroup {
        let member = |member: &Member| DescribedMember {
            member_id: member.id.to_string(),
            instance_id: member.instance.as_deref().map(str::to_owned),
            rack_id: member.rack.as_deref().map(str::to_owned),
            member_epoch: member.current.epoch,
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            subscribed_topic_names: member.topics.iter().map(|topic| topic.to_string()).collect(),
            subscribed_topic_regex: member.regex.as_deref().map(str::to_owned),
            assignment: assignment(&member.current.assigned, image),
            target_assignment: assignment(&self.target_of(&member.id), image),
            member_type: match member.classic {
                Some(_) => CLASSIC_MEMBER,
                None => CONSUMER_MEMBER,
            },
        };
        DescribedGroup {
            group_id: self.id.to_string(),
            group_state: self.state().to_owned(),
            group_epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor_name: self.assignor().to_owned(),
            members: self.members.values().map(member).collect(),
            ..Default::default()
        }
    }
}

/// Leaves out deleted topics, which have no name.
fn assignment(partitions: &Partitions, image: &MetadataImage) -> Assignment {
    let named = partitions.iter().filter_map(|(topic_id, partitions)| {
        Some(TopicPartitions {
            topic_id: *topic_id,
            topic_name: image.topic(TopicId(*topic_id))?.name.to_string(),
            partitions: partitions.iter().copied().collect(),
        })
    });
    Assignment { topic_partitions: named.collect() }
}
