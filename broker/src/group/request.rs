//! The requests to a group coordinator.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::consumer_group_describe_response::DescribedGroup as DescribedConsumers;
use weir_protocol::messages::describe_groups_response::DescribedGroup;
use weir_protocol::messages::leave_group_request::MemberIdentity;
use weir_protocol::messages::list_groups_response::ListedGroup;
use weir_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use weir_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use weir_protocol::messages::{
    HeartbeatRequest, LeaveGroupResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, SyncGroupRequest, SyncGroupResponse,
};

use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::classic::Join;
use super::consumer::Heartbeat;
use crate::coordinator::ReplyTo;

/// A request, without the topics that the caller may not use or that do not exist.
#[derive(Debug)]
pub(crate) enum Request {
    Commit {
        request: OffsetCommitRequest,
        version: i16,
        to: ReplyTo<OffsetCommitResponse>,
    },
    /// TxnOffsetCommit: the offsets take effect when the producer's transaction commits.
    CommitInTransaction {
        request: OffsetCommitRequest,
        producer: (ProducerId, ProducerEpoch),
        to: ReplyTo<OffsetCommitResponse>,
    },
    Fetch {
        request: OffsetFetchRequestGroup,
        require_stable: bool,
        to: ReplyTo<OffsetFetchResponseGroup>,
    },
    DeleteOffsets {
        request: OffsetDeleteRequest,
        to: ReplyTo<OffsetDeleteResponse>,
    },
    Join(Join),
    ConsumerHeartbeat(Heartbeat),
    DescribeConsumers {
        group: String,
        to: ReplyTo<DescribedConsumers>,
    },
    Sync {
        request: SyncGroupRequest,
        to: ReplyTo<SyncGroupResponse>,
    },
    Heartbeat {
        request: HeartbeatRequest,
        to: ReplyTo<ErrorCode>,
    },
    Leave {
        group: String,
        members: Vec<MemberIdentity>,
        to: ReplyTo<LeaveGroupResponse>,
    },
    List {
        /// Names of states, in lower case; empty for all.
        states: Vec<String>,
        /// Names of types, in lower case; empty for all.
        types: Vec<String>,
        to: ReplyTo<Vec<ListedGroup>>,
    },
    Describe {
        group: String,
        version: i16,
        to: ReplyTo<DescribedGroup>,
    },
    Delete {
        group: String,
        to: ReplyTo<(ErrorCode, Option<String>)>,
    },
}

impl Request {
    /// Whether the decision may write a record.
    pub(super) fn writes(&self) -> bool {
        match self {
            Self::Commit { .. }
            | Self::CommitInTransaction { .. }
            | Self::DeleteOffsets { .. }
            | Self::Join(_)
            | Self::ConsumerHeartbeat(_)
            | Self::Sync { .. }
            | Self::Leave { .. }
            | Self::Delete { .. } => true,
            Self::Fetch { .. }
            | Self::Heartbeat { .. }
            | Self::List { .. }
            | Self::Describe { .. }
            | Self::DescribeConsumers { .. } => false,
        }
    }
}
