//! PURE: responses of a classic group that several modules build.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{JoinGroupResponse, SyncGroupResponse};

/// The response to a refused join.
pub(crate) fn refused_join(member: &str, error: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: error.code(),
        generation_id: -1,
        member_id: member.to_owned(),
        // For versions in which the name cannot be null.
        protocol_name: Some(String::new()),
        ..Default::default()
    }
}

/// The response to a refused sync.
pub(crate) fn refused_sync(error: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse { error_code: error.code(), ..Default::default() }
}

pub(in crate::group) fn assigned(
    assignment: &Bytes,
    protocol_type: Option<&str>,
    protocol: Option<&str>,
) -> SyncGroupResponse {
    SyncGroupResponse {
        protocol_type: protocol_type.map(str::to_owned),
        protocol_name: protocol.map(str::to_owned),
        assignment: assignment.clone(),
        ..Default::default()
    }
}
