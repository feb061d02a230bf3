//! Dispatches the administrative requests of Kafka clients.
//!
//! Called by [`super::decide`]. The broker that forwards a request has authorised it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::admin_request::{AdminRequest, AdminResponse};
use super::draft::Draft;
use super::error::{ApiError, too_large};
use super::{brokers, configs, features, leaders, quorum, reassign, scram, topics};

/// Decides a request as a whole, or refuses it when it names or changes too much. A request that
/// names too much is refused before any work.
pub(super) fn carry_out(
    draft: &mut Draft<'_>,
    request: AdminRequest,
) -> Result<AdminResponse, ApiError> {
    if request.named() > request.named_max() {
        return Err(too_large());
    }
    let response = answer(draft, request);
    if draft.is_spent() { Err(too_large()) } else { Ok(response) }
}

/// Decides one request in the module of its API.
fn answer(draft: &mut Draft<'_>, request: AdminRequest) -> AdminResponse {
    match request {
        AdminRequest::CreateTopics(request) => {
            AdminResponse::CreateTopics(topics::create::create_topics(draft, request))
        }
        AdminRequest::DeleteTopics(request) => {
            AdminResponse::DeleteTopics(topics::delete_topics(draft, request))
        }
        AdminRequest::CreatePartitions(request) => {
            AdminResponse::CreatePartitions(topics::create_partitions(draft, request))
        }
        AdminRequest::ElectLeaders(request) => {
            AdminResponse::ElectLeaders(leaders::elect_leaders(draft, request))
        }
        AdminRequest::AlterPartitionReassignments(request) => {
            AdminResponse::AlterPartitionReassignments(reassign::alter(draft, request))
        }
        AdminRequest::ListPartitionReassignments(request) => {
            AdminResponse::ListPartitionReassignments(reassign::list(draft, request))
        }
        AdminRequest::UnregisterBroker(request) => {
            AdminResponse::UnregisterBroker(brokers::unregister(draft, request))
        }
        AdminRequest::UpdateFeatures(request) => {
            AdminResponse::UpdateFeatures(features::update(draft, request))
        }
        AdminRequest::DescribeQuorum(request) => {
            AdminResponse::DescribeQuorum(quorum::describe(draft, request))
        }
        AdminRequest::AlterUserScramCredentials(request) => {
            AdminResponse::AlterUserScramCredentials(scram::alter(draft, request))
        }
        AdminRequest::AlterConfigs(request) => {
            AdminResponse::AlterConfigs(configs::alter_configs(draft, request))
        }
        AdminRequest::IncrementalAlterConfigs(request) => AdminResponse::IncrementalAlterConfigs(
            configs::incremental_alter_configs(draft, request),
        ),
    }
}
