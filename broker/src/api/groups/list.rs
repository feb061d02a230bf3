//! ListGroups, DescribeGroups and DeleteGroups.

use std::collections::BTreeSet;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::delete_groups_response::DeletableGroupResult;
use weir_protocol::messages::describe_groups_response::DescribedGroup;
use weir_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    ListGroupsRequest, ListGroupsResponse,
};

use super::authorize;
use crate::api::RequestContext;
use crate::api::Services;
use crate::api::repeats::once;
use crate::auth::{Operation, Resource};
use crate::group::Request;

/// The first version of DescribeGroups with the caller's permitted operations (KIP-430).
const OPERATIONS_VERSION: i16 = 3;

/// The states and the types of groups.
const STATES: [&str; 7] = [
    "PreparingRebalance",
    "CompletingRebalance",
    "Stable",
    "Dead",
    "Empty",
    "Assigning",
    "Reconciling",
];
const TYPES: [&str; 2] = ["classic", "consumer"];

/// The known names in a filter, so that each group is compared with few, however long the filter
/// is. An empty filter accepts everything; a filter of unknown names accepts nothing.
fn filter(asked: &[String], known: &[&str]) -> Vec<String> {
    let named =
        known.iter().filter(|known| asked.iter().any(|name| name.eq_ignore_ascii_case(known)));
    let named: Vec<String> = named.map(|known| (*known).to_owned()).collect();
    if named.is_empty() && !asked.is_empty() { vec![String::new()] } else { named }
}

/// Answers ListGroups: the groups that this broker coordinates.
pub(crate) async fn handle(
    services: &Services,
    cx: &RequestContext,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let mut response = ListGroupsResponse::default();
    let (states, types) =
        (filter(&request.states_filter, &STATES), filter(&request.types_filter, &TYPES));
    for partition in services.groups.partitions() {
        let (states, types) = (states.clone(), types.clone());
        let listed = services
            .groups
            .ask_partition(partition, |to| Request::List { states, types, to })
            .await;
        match listed {
            Ok(groups) => response.groups.extend(groups),
            // The partition has just moved; its new coordinator lists the groups.
            Err(ErrorCode::NotCoordinator) => {}
            Err(error) => {
                return ListGroupsResponse { error_code: error.code(), ..Default::default() };
            }
        }
    }
    if !services.authorizer.allows(&cx.requester, Operation::Describe, Resource::Cluster) {
        response
            .groups
            .retain(|group| authorize(services, cx, Operation::Describe, &group.group_id).is_ok());
    }
    response
}

/// Answers DescribeGroups.
pub(crate) async fn handle_describe(
    services: &Services,
    cx: &RequestContext,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut response = DescribeGroupsResponse::default();
    for group in once(request.groups, String::clone) {
        let mut described =
            describe(services, cx, &group).await.unwrap_or_else(|error| DescribedGroup {
                error_code: error.code(),
                group_id: group.clone(),
                ..Default::default()
            });
        if described.error_code == 0
            && request.include_authorized_operations
            && cx.version >= OPERATIONS_VERSION
        {
            described.authorized_operations =
                services.authorizer.allowed_operations(&cx.requester, Resource::Group(&group));
        }
        response.groups.push(described);
    }
    response
}

async fn describe(
    services: &Services,
    cx: &RequestContext,
    group: &str,
) -> Result<DescribedGroup, ErrorCode> {
    authorize(services, cx, Operation::Describe, group)?;
    let version = cx.version;
    let request = |to| Request::Describe { group: group.to_owned(), version, to };
    services.groups.ask(group, request).await
}

/// Answers DeleteGroups. Deletes and answers a repeated name once.
pub(crate) async fn handle_delete(
    services: &Services,
    cx: &RequestContext,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut response = DeleteGroupsResponse::default();
    let mut named = BTreeSet::new();
    for group in request.groups_names {
        if !named.insert(group.clone()) {
            continue;
        }
        let (error, message) =
            delete(services, cx, &group).await.unwrap_or_else(|error| (error, None));
        response.results.push(DeletableGroupResult {
            group_id: group,
            error_code: error.code(),
            error_message: message,
        });
    }
    response
}

async fn delete(
    services: &Services,
    cx: &RequestContext,
    group: &str,
) -> Result<(ErrorCode, Option<String>), ErrorCode> {
    authorize(services, cx, Operation::Delete, group)?;
    let request = |to| Request::Delete { group: group.to_owned(), to };
    services.groups.ask(group, request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_as_long_as_what_there_is() {
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(filter(&[], &STATES), [""; 0], "all of them");
        assert_eq!(
            filter(&names(&["stable", "EMPTY", "Stable", "no"]), &STATES),
            ["Stable", "Empty"]
        );
        assert_eq!(filter(&names(&["no", "share"]), &TYPES), [""], "none of them");
    }
}
