//! The APIs of groups: checks permissions, asks the group coordinator, and builds the response of
//! each version. `group` decides what groups do.

mod consumer;
mod find;
mod list;
mod membership;
mod offset_commit;
mod offset_delete;
mod offset_fetch;

pub(crate) use self::consumer::{
    describe as consumer_group_describe, heartbeat as consumer_group_heartbeat,
};
pub(crate) use self::find::handle as find_coordinator;
pub(crate) use self::list::{
    handle as list_groups, handle_delete as delete_groups, handle_describe as describe_groups,
};
pub(crate) use self::membership::{heartbeat, join, leave, sync};
pub(crate) use self::offset_commit::{handle as offset_commit, merge, take_refused};
pub(crate) use self::offset_delete::handle as offset_delete;
pub(crate) use self::offset_fetch::{fetches_many, handle as offset_fetch};

use weir_protocol::error::ErrorCode;

use super::RequestContext;
use crate::api::Services;
use crate::auth::{Operation, Resource};

/// Checks that the caller may do `operation` to the group.
///
/// # Errors
/// GROUP_AUTHORIZATION_FAILED.
pub(crate) fn authorize(
    services: &Services,
    cx: &RequestContext,
    operation: Operation,
    group: &str,
) -> Result<(), ErrorCode> {
    if services.authorizer.allows(&cx.requester, operation, Resource::Group(group)) {
        Ok(())
    } else {
        Err(ErrorCode::GroupAuthorizationFailed)
    }
}

/// Like [`authorize`], for requests of members, which need a group with a name.
///
/// # Errors
/// GROUP_AUTHORIZATION_FAILED or INVALID_GROUP_ID.
pub(crate) fn authorize_member(
    services: &Services,
    cx: &RequestContext,
    group: &str,
) -> Result<(), ErrorCode> {
    authorize(services, cx, Operation::Read, group)?;
    if group.is_empty() { Err(ErrorCode::InvalidGroupId) } else { Ok(()) }
}
