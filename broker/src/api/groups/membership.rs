//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup: the requests of members of classic groups.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::leave_group_request::MemberIdentity;
use weir_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};

use super::authorize_member;
use crate::api::RequestContext;
use crate::api::Services;
use crate::group::{Client, Join, Request, refused_join, refused_sync};

/// The first version of JoinGroup whose response may have a null protocol.
const NULL_PROTOCOL_VERSION: i16 = 7;
/// The most protocols that a member may offer, because the group compares those of all members.
/// Apache Kafka has no bound, and no client has ten.
const PROTOCOLS_MAX: usize = 100;
/// The first version of SyncGroup that names the protocol (KIP-559).
const PROTOCOL_VERSION: i16 = 5;
/// The first version of LeaveGroup for several members (KIP-345).
const MEMBERS_VERSION: i16 = 3;

/// The client of the request, in the form that a group keeps.
pub(super) fn client(cx: &RequestContext) -> Client {
    Client {
        id: cx.client_id.clone().unwrap_or_default(),
        host: format!("/{}", cx.peer.ip()),
        version: cx.version,
    }
}

/// Answers JoinGroup.
pub(crate) async fn join(
    services: &Services,
    cx: &RequestContext,
    mut request: JoinGroupRequest,
) -> JoinGroupResponse {
    if cx.version == 0 {
        request.rebalance_timeout_ms = request.session_timeout_ms;
    }
    let (group, member) = (request.group_id.clone(), request.member_id.clone());
    let asked = match authorize_member(services, cx, &group) {
        Err(error) => Err(error),
        Ok(()) if request.protocols.len() > PROTOCOLS_MAX => {
            Err(ErrorCode::InconsistentGroupProtocol)
        }
        Ok(()) => {
            let client = client(cx);
            // From here on the group accounts for the memory, while the join waits for other
            // members.
            cx.room.shrink_to(0);
            services.groups.ask(&group, |to| Request::Join(Join { client, request, to })).await
        }
    };
    let mut response = asked.unwrap_or_else(|error| refused_join(&member, error));
    if response.error_code != 0 && cx.version >= NULL_PROTOCOL_VERSION {
        response.protocol_name = None;
    }
    response
}

/// Answers SyncGroup.
pub(crate) async fn sync(
    services: &Services,
    cx: &RequestContext,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let group = request.group_id.clone();
    let checked = authorize_member(services, cx, &group).and_then(|()| {
        let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
        if cx.version >= PROTOCOL_VERSION && !names_protocol {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    });
    let asked = match checked {
        Err(error) => Err(error),
        Ok(()) => {
            cx.room.shrink_to(0);
            services.groups.ask(&group, |to| Request::Sync { request, to }).await
        }
    };
    asked.unwrap_or_else(refused_sync)
}

/// Answers Heartbeat.
pub(crate) async fn heartbeat(
    services: &Services,
    cx: &RequestContext,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    let group = request.group_id.clone();
    let error = match authorize_member(services, cx, &group) {
        Err(error) => error,
        Ok(()) => {
            match services.groups.ask(&group, |to| Request::Heartbeat { request, to }).await {
                Ok(error) => error,
                // A member need not leave the group while its coordinator loads
                // (`GroupCoordinatorService.heartbeat`).
                Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
                Err(error) => error,
            }
        }
    };
    HeartbeatResponse { error_code: error.code(), ..Default::default() }
}

/// Answers LeaveGroup.
pub(crate) async fn leave(
    services: &Services,
    cx: &RequestContext,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let group = request.group_id.clone();
    let members = match cx.version {
        ..MEMBERS_VERSION => {
            vec![MemberIdentity { member_id: request.member_id, ..Default::default() }]
        }
        _ => request.members,
    };
    let asked = match authorize_member(services, cx, &group) {
        Err(error) => Err(error),
        Ok(()) => {
            let key = group.clone();
            services.groups.ask(&key, |to| Request::Leave { group, members, to }).await
        }
    };
    let mut response = asked.unwrap_or_else(|error| LeaveGroupResponse {
        error_code: error.code(),
        ..Default::default()
    });
    if cx.version < MEMBERS_VERSION {
        let of_member = response.members.drain(..).next().map_or(0, |member| member.error_code);
        if response.error_code == 0 {
            response.error_code = of_member;
        }
    }
    response
}
