//! Administrative requests that only the controller can answer: ElectLeaders,
//! AlterPartitionReassignments, ListPartitionReassignments, UnregisterBroker, UpdateFeatures. The
//! broker checks permissions, as Kafka's `ControllerApis` does, and forwards everything else.

use weir_protocol::api::ApiKey;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use weir_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use weir_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ElectLeadersRequest,
    ElectLeadersResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    Message, UnregisterBrokerRequest, UnregisterBrokerResponse, UpdateFeaturesRequest,
    UpdateFeaturesResponse,
};

use super::RequestContext;
use crate::api::Services;
use crate::auth::{Authorizer, Operation, Resource};

/// Answers ElectLeaders.
pub(crate) async fn handle_elect_leaders(
    services: &Services,
    cx: &RequestContext,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let answer = forward(services, cx, Operation::Alter, ApiKey::ElectLeaders, &request).await;
    answer.unwrap_or_else(|error| no_elections(&request, cx.version, error))
}

/// Answers AlterPartitionReassignments.
pub(crate) async fn handle_alter_reassignments(
    services: &Services,
    cx: &RequestContext,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let answer =
        forward(services, cx, Operation::Alter, ApiKey::AlterPartitionReassignments, &request)
            .await;
    answer.unwrap_or_else(|error| no_reassignments(&request, error))
}

/// Answers ListPartitionReassignments.
pub(crate) async fn handle_list_reassignments(
    services: &Services,
    cx: &RequestContext,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let answer =
        forward(services, cx, Operation::Describe, ApiKey::ListPartitionReassignments, &request)
            .await;
    answer.unwrap_or_else(|error| ListPartitionReassignmentsResponse {
        error_code: error.code(),
        error_message: Some(error.message().to_owned()),
        ..Default::default()
    })
}

/// Answers UnregisterBroker.
pub(crate) async fn handle_unregister(
    services: &Services,
    cx: &RequestContext,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let answer = forward(services, cx, Operation::Alter, ApiKey::UnregisterBroker, &request).await;
    answer.unwrap_or_else(|error| UnregisterBrokerResponse {
        error_code: error.code(),
        error_message: Some(error.message().to_owned()),
        ..Default::default()
    })
}

/// Answers UpdateFeatures.
pub(crate) async fn handle_update_features(
    services: &Services,
    cx: &RequestContext,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let answer = forward(services, cx, Operation::Alter, ApiKey::UpdateFeatures, &request).await;
    answer.unwrap_or_else(|error| UpdateFeaturesResponse {
        error_code: error.code(),
        error_message: Some(error.message().to_owned()),
        ..Default::default()
    })
}

/// The controller's answer, if the caller may do `operation` to the cluster.
async fn forward<Q: Message, R: Message>(
    services: &Services,
    cx: &RequestContext,
    operation: Operation,
    key: ApiKey,
    request: &Q,
) -> Result<R, ErrorCode> {
    authorize(&services.authorizer, cx, operation)?;
    services
        .controller
        .forward(&services.metadata, cx.forwarded_by(), (key, cx.version), request)
        .await
}

fn authorize(
    authorizer: &Authorizer,
    cx: &RequestContext,
    operation: Operation,
) -> Result<(), ErrorCode> {
    if authorizer.allows(&cx.requester, operation, Resource::Cluster) {
        Ok(())
    } else {
        Err(ErrorCode::ClusterAuthorizationFailed)
    }
}

/// The error for each partition in the request. Version 0 has no other field for it, so a version 0
/// request for all partitions gets an empty answer.
fn no_elections(
    request: &ElectLeadersRequest,
    version: i16,
    error: ErrorCode,
) -> ElectLeadersResponse {
    let topics = request.topic_partitions.iter().flatten();
    let results = topics.map(|topic| ReplicaElectionResult {
        topic: topic.topic.clone(),
        partition_result: topic
            .partitions
            .iter()
            .map(|index| PartitionResult {
                partition_id: *index,
                error_code: error.code(),
                error_message: Some(error.message().to_owned()),
            })
            .collect(),
    });
    ElectLeadersResponse {
        error_code: if version == 0 { 0 } else { error.code() },
        replica_election_results: results.collect(),
        ..Default::default()
    }
}

fn no_reassignments(
    request: &AlterPartitionReassignmentsRequest,
    error: ErrorCode,
) -> AlterPartitionReassignmentsResponse {
    let message = || Some(error.message().to_owned());
    let responses = request.topics.iter().map(|topic| ReassignableTopicResponse {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| ReassignablePartitionResponse {
                partition_index: partition.partition_index,
                error_code: error.code(),
                error_message: message(),
            })
            .collect(),
    });
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        error_code: error.code(),
        error_message: message(),
        responses: responses.collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use weir_protocol::messages::alter_partition_reassignments_request::{
        ReassignablePartition, ReassignableTopic,
    };
    use weir_protocol::messages::elect_leaders_request::TopicPartitions;

    use super::*;
    use crate::api::fixtures::{assert_encodes, everyone, nobody, request};

    #[test]
    fn only_those_who_may_act_on_the_cluster() {
        for operation in [Operation::Alter, Operation::Describe] {
            assert_eq!(authorize(&everyone(), &request(0), operation), Ok(()));
            assert_eq!(
                authorize(&nobody(), &request(0), operation),
                Err(ErrorCode::ClusterAuthorizationFailed)
            );
        }
    }

    #[test]
    fn each_partition_is_told_why_nothing_was_done() {
        let topics = TopicPartitions { topic: "a".to_owned(), partitions: vec![0, 2] };
        let some =
            ElectLeadersRequest { topic_partitions: Some(vec![topics]), ..Default::default() };
        let all = ElectLeadersRequest { topic_partitions: None, ..Default::default() };
        for version in ApiKey::ElectLeaders.versions() {
            let response = no_elections(&some, version, ErrorCode::NotController);
            assert_encodes(&response, version);
            let results = &response.replica_election_results[0].partition_result;
            assert_eq!(
                results
                    .iter()
                    .map(|result| (result.partition_id, result.error_code))
                    .collect::<Vec<_>>(),
                [(0, 41), (2, 41)]
            );
            assert_eq!(response.error_code, if version == 0 { 0 } else { 41 });
            assert_encodes(&no_elections(&all, version, ErrorCode::NotController), version);
        }
        let partition = ReassignablePartition { partition_index: 3, replicas: None };
        let moves = AlterPartitionReassignmentsRequest {
            topics: vec![ReassignableTopic { name: "a".to_owned(), partitions: vec![partition] }],
            ..Default::default()
        };
        for version in ApiKey::AlterPartitionReassignments.versions() {
            let response = no_reassignments(&moves, ErrorCode::ClusterAuthorizationFailed);
            assert_encodes(&response, version);
            let partition = &response.responses[0].partitions[0];
            assert_eq!(
                (response.error_code, partition.partition_index, partition.error_code),
                (31, 3, 31)
            );
        }
    }
}
