//! PURE: ListGroups and DescribeGroups.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::consumer_group_describe_response;
use weir_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use weir_protocol::messages::list_groups_response::ListedGroup;

use super::classic::{ClassicGroup, Member, Phase};
use super::embedded::CONSUMER;
use super::{Group, Groups, Kind};

/// The first version of DescribeGroups that distinguishes an unknown group from a dead one
/// (KIP-1043).
const NOT_FOUND_VERSION: i16 = 6;

impl Group {
    fn state(&self) -> &'static str {
        match &self.kind {
            Kind::Classic(group) => group.phase.name(),
            Kind::Consumer(group) => group.state(),
        }
    }

    /// Kafka's name for the group protocol.
    fn type_name(&self) -> &'static str {
        match &self.kind {
            Kind::Classic(_) => "classic",
            Kind::Consumer(_) => "consumer",
        }
    }

    fn protocol_type(&self) -> String {
        match &self.kind {
            Kind::Classic(group) => group.protocol_type.as_deref().unwrap_or_default().to_owned(),
            Kind::Consumer(_) => CONSUMER.to_owned(),
        }
    }
}

impl Groups {
    pub(super) fn list(&self, states: &[String], types: &[String]) -> Vec<ListedGroup> {
        let wanted = |names: &[String], name: &str| {
            names.is_empty() || names.iter().any(|asked| asked.eq_ignore_ascii_case(name))
        };
        self.groups
            .values()
            .filter(|group| wanted(states, group.state()) && wanted(types, group.type_name()))
            .map(|group| ListedGroup {
                group_id: group.id.to_string(),
                protocol_type: group.protocol_type(),
                group_state: group.state().to_owned(),
                group_type: group.type_name().to_owned(),
            })
            .collect()
    }

    pub(super) fn describe(&self, id: String, version: i16) -> DescribedGroup {
        match self.groups.get(&*id).map(|group| &group.kind) {
            Some(Kind::Classic(group)) => describe(group),
            kind if version >= NOT_FOUND_VERSION => DescribedGroup {
                error_code: ErrorCode::GroupIdNotFound.code(),
                error_message: Some(match kind {
                    None => format!("Group {id} not found."),
                    Some(_) => format!("Group {id} is not a classic group."),
                }),
                group_id: id,
                group_state: "Dead".to_owned(),
                ..Default::default()
            },
            _ => DescribedGroup {
                group_id: id,
                group_state: "Dead".to_owned(),
                ..Default::default()
            },
        }
    }
}

impl Groups {
    pub(super) fn describe_consumers(
        &self,
        id: String,
    ) -> consumer_group_describe_response::DescribedGroup {
        let message = match self.groups.get(&*id).map(|group| &group.kind) {
            Some(Kind::Consumer(group)) => return group.describe(&self.around.image),
            Some(Kind::Classic(_)) => format!("Group {id} is not a consumer group."),
            None => format!("Group {id} not found."),
        };
        consumer_group_describe_response::DescribedGroup {
            error_code: ErrorCode::GroupIdNotFound.code(),
            error_message: Some(message),
            group_id: id,
            ..Default::default()
        }
    }
}

fn describe(group: &ClassicGroup) -> DescribedGroup {
    // During a rebalance the protocol of the members' metadata is open. Their assignments are
    // known.
    let protocol = group.protocol.as_deref().filter(|_| group.is(Phase::Stable));
    let member = |member: &Member| DescribedGroupMember {
        member_id: member.id.to_string(),
        group_instance_id: member.instance.as_deref().map(str::to_owned),
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
        member_metadata: protocol.map_or_else(Bytes::new, |protocol| member.metadata(protocol)),
        member_assignment: member.assignment.clone(),
    };
    DescribedGroup {
        group_id: group.id.to_string(),
        group_state: group.phase.name().to_owned(),
        protocol_type: group.protocol_type.as_deref().unwrap_or_default().to_owned(),
        protocol_data: protocol.unwrap_or_default().to_owned(),
        members: group.members.values().map(member).collect(),
        ..Default::default()
    }
}
