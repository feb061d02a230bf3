//! Valid requests to group coordinators.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, DeleteGroupsRequest,
    DescribeGroupsRequest, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, SyncGroupRequest,
};

use super::Sensible;
use crate::{consumer_groups, groups};

/// The group of the requests below.
pub(super) const GROUP: &str = "asked";

impl Sensible for FindCoordinatorRequest {
    fn sensible(version: i16) -> Self {
        groups::find(version, GROUP)
    }
}

impl Sensible for OffsetCommitRequest {
    fn sensible(version: i16) -> Self {
        groups::commit(version, GROUP, 1)
    }
}

impl Sensible for OffsetFetchRequest {
    fn sensible(version: i16) -> Self {
        groups::fetch(version, GROUP)
    }
}

impl Sensible for OffsetDeleteRequest {
    fn sensible(_: i16) -> Self {
        groups::delete_offsets(GROUP)
    }
}

impl Sensible for JoinGroupRequest {
    const EXPECTED: ErrorCode = ErrorCode::MemberIdRequired;

    fn sensible(version: i16) -> Self {
        groups::join(&format!("joined-{version}"), "")
    }
}

/// Requests for a group that does not exist. Another test takes members through all versions.
macro_rules! of_no_member {
    ($($request:ident),*) => {
        $(impl Sensible for $request {
            const EXPECTED: ErrorCode = ErrorCode::UnknownMemberId;

            fn sensible(version: i16) -> Self {
                let mut request = Self::default();
                request.group_id = "nobody".to_owned();
                groups::name_protocol(&mut request, version);
                request
            }
        })*
    };
}

of_no_member!(SyncGroupRequest, HeartbeatRequest, LeaveGroupRequest);

impl Sensible for ListGroupsRequest {
    fn sensible(_: i16) -> Self {
        Self::default()
    }
}

impl Sensible for DescribeGroupsRequest {
    fn sensible(version: i16) -> Self {
        Self { groups: vec![GROUP.to_owned()], include_authorized_operations: version >= 3 }
    }
}

/// The group of the consumer protocol member of this version. `apis` describes it after the member
/// has joined.
fn consumers(version: i16) -> String {
    format!("consumers-{version}")
}

impl Sensible for ConsumerGroupHeartbeatRequest {
    fn sensible(version: i16) -> Self {
        let member = if version == 0 { "" } else { "a-name-of-its-own" };
        consumer_groups::heartbeat(&consumers(version), member, 0)
    }
}

impl Sensible for ConsumerGroupDescribeRequest {
    fn sensible(version: i16) -> Self {
        consumer_groups::describe(&consumers(version))
    }
}

impl Sensible for DeleteGroupsRequest {
    const EXPECTED: ErrorCode = ErrorCode::GroupIdNotFound;

    fn sensible(_: i16) -> Self {
        Self { groups_names: vec!["nobody".to_owned()] }
    }
}
