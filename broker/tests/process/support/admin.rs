//! The administrative requests that a broker forwards. The test's controller answers each row with
//! success and does nothing.

use bytes::{Bytes, BytesMut};
use weir_protocol::api::ApiKey;
use weir_protocol::controller as rpc;
use weir_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use weir_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use weir_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use weir_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use weir_protocol::messages::create_topics_response::CreatableTopicResult;
use weir_protocol::messages::delete_topics_response::DeletableTopicResult;
use weir_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use weir_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse, AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    DescribeQuorumRequest, DescribeQuorumResponse, ElectLeadersRequest, ElectLeadersResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, Message, Request,
    UnregisterBrokerRequest, UnregisterBrokerResponse, UpdateFeaturesRequest,
    UpdateFeaturesResponse, incremental_alter_configs_response,
};

/// The body of the response to a forwarded request.
pub(super) fn carried_out(forwarded: &rpc::ForwardRequest) -> Vec<u8> {
    let api = i16::try_from(forwarded.api_key).ok().and_then(ApiKey::from_key).unwrap();
    match api {
        ApiKey::CreateTopics => answer(forwarded, create_topics),
        ApiKey::DeleteTopics => answer(forwarded, delete_topics),
        ApiKey::CreatePartitions => answer(forwarded, create_partitions),
        ApiKey::AlterConfigs => answer(forwarded, alter_configs),
        ApiKey::IncrementalAlterConfigs => answer(forwarded, incremental_alter_configs),
        ApiKey::ElectLeaders => answer(forwarded, elect_leaders),
        ApiKey::AlterPartitionReassignments => answer(forwarded, reassign),
        ApiKey::ListPartitionReassignments => {
            answer(forwarded, |_: ListPartitionReassignmentsRequest| {
                ListPartitionReassignmentsResponse::default()
            })
        }
        ApiKey::UnregisterBroker => {
            answer(forwarded, |_: UnregisterBrokerRequest| UnregisterBrokerResponse::default())
        }
        ApiKey::DescribeQuorum => {
            answer(forwarded, |_: DescribeQuorumRequest| DescribeQuorumResponse::default())
        }
        ApiKey::UpdateFeatures => {
            answer(forwarded, |_: UpdateFeaturesRequest| UpdateFeaturesResponse::default())
        }
        ApiKey::AlterUserScramCredentials => answer(forwarded, alter_scram_users),
        other => panic!("{other} is not the controller's to answer"),
    }
}

fn answer<R: Request>(
    forwarded: &rpc::ForwardRequest,
    act: impl FnOnce(R) -> R::Response,
) -> Vec<u8> {
    let version = i16::try_from(forwarded.api_version).unwrap();
    let mut body = Bytes::copy_from_slice(&forwarded.request);
    let request = R::decode(&mut body, version).unwrap();
    assert!(body.is_empty(), "{} v{version}: bytes are left over", R::NAME);
    let mut response = BytesMut::new();
    act(request).encode(&mut response, version).unwrap();
    response.to_vec()
}

fn alter_scram_users(
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let altered = |user| AlterUserScramCredentialsResult { user, ..Default::default() };
    let deleted = request.deletions.into_iter().map(|deletion| deletion.name);
    let users = deleted.chain(request.upsertions.into_iter().map(|upsertion| upsertion.name));
    AlterUserScramCredentialsResponse {
        results: users.map(altered).collect(),
        ..Default::default()
    }
}

fn elect_leaders(request: ElectLeadersRequest) -> ElectLeadersResponse {
    let elected = |partition_id| PartitionResult { partition_id, ..Default::default() };
    let topics = request.topic_partitions.unwrap_or_default().into_iter();
    let results = topics.map(|topic| ReplicaElectionResult {
        topic: topic.topic,
        partition_result: topic.partitions.into_iter().map(elected).collect(),
    });
    ElectLeadersResponse { replica_election_results: results.collect(), ..Default::default() }
}

fn reassign(request: AlterPartitionReassignmentsRequest) -> AlterPartitionReassignmentsResponse {
    let topics = request.topics.into_iter().map(|topic| ReassignableTopicResponse {
        name: topic.name,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| ReassignablePartitionResponse {
                partition_index: partition.partition_index,
                ..Default::default()
            })
            .collect(),
    });
    AlterPartitionReassignmentsResponse { responses: topics.collect(), ..Default::default() }
}

fn create_topics(request: CreateTopicsRequest) -> CreateTopicsResponse {
    let created = request.topics.into_iter().map(|topic| CreatableTopicResult {
        name: topic.name,
        num_partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        ..Default::default()
    });
    CreateTopicsResponse { topics: created.collect(), ..Default::default() }
}

fn delete_topics(request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request
        .topic_names
        .into_iter()
        .map(|name| DeletableTopicResult { name: Some(name), ..Default::default() });
    let listed = request.topics.into_iter().map(|topic| DeletableTopicResult {
        name: topic.name,
        topic_id: topic.topic_id,
        ..Default::default()
    });
    DeleteTopicsResponse { responses: by_name.chain(listed).collect(), ..Default::default() }
}

fn create_partitions(request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let grown = request
        .topics
        .into_iter()
        .map(|topic| CreatePartitionsTopicResult { name: topic.name, ..Default::default() });
    CreatePartitionsResponse { results: grown.collect(), ..Default::default() }
}

fn alter_configs(request: AlterConfigsRequest) -> AlterConfigsResponse {
    let altered = request.resources.into_iter().map(|resource| AlterConfigsResourceResponse {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        ..Default::default()
    });
    AlterConfigsResponse { responses: altered.collect(), ..Default::default() }
}

fn incremental_alter_configs(
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let altered = request.resources.into_iter().map(|resource| {
        incremental_alter_configs_response::AlterConfigsResourceResponse {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            ..Default::default()
        }
    });
    IncrementalAlterConfigsResponse { responses: altered.collect(), ..Default::default() }
}
