//! PURE: the answers of a classic group that members are given from more than one place.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{JoinGroupResponse, SyncGroupResponse};

/// The answer to a join that is an error.
pub(crate) fn refused_join(member: &str, error: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: error.code(),
        generation_id: -1,
        member_id: member.to_owned(),
        // What versions without null would be given.
        protocol_name: Some(String::new()),
        ..Default::default()
    }
}

/// An answer that is an error.
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
