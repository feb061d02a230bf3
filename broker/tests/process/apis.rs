//! Every advertised API answers a valid request in every version without an error, and its response
//! has no bytes left over.

mod of_groups;

use bytes::{BufMut, BytesMut};
use uuid::Uuid;
use weir_protocol::api::ApiKey;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use weir_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use weir_protocol::messages::alter_user_scram_credentials_request::ScramCredentialDeletion;
use weir_protocol::messages::create_acls_request::AclCreation;
use weir_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use weir_protocol::messages::create_topics_request::CreatableTopic;
use weir_protocol::messages::delete_acls_request::DeleteAclsFilter;
use weir_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use weir_protocol::messages::delete_topics_request::DeleteTopicState;
use weir_protocol::messages::describe_configs_request::DescribeConfigsResource;
use weir_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use weir_protocol::messages::describe_topic_partitions_request::TopicRequest;
use weir_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use weir_protocol::messages::metadata_request::MetadataRequestTopic;
use weir_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use weir_protocol::messages::update_features_request::FeatureUpdateKey;
use weir_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AlterConfigsRequest,
    AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest,
    AlterUserScramCredentialsRequest, ApiVersionsRequest, ConsumerGroupDescribeRequest,
    ConsumerGroupHeartbeatRequest, CreateAclsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteAclsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeAclsRequest, DescribeClientQuotasRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest,
    DescribeTransactionsRequest, DescribeUserScramCredentialsRequest, ElectLeadersRequest,
    EndTxnRequest, FetchRequest, FindCoordinatorRequest, HeartbeatRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
    ListConfigResourcesRequest, ListGroupsRequest, ListOffsetsRequest,
    ListPartitionReassignmentsRequest, ListTransactionsRequest, MetadataRequest,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
    ProduceRequest, Request, SaslAuthenticateRequest, SaslHandshakeRequest, SyncGroupRequest,
    TxnOffsetCommitRequest, UnregisterBrokerRequest, UpdateFeaturesRequest, WriteTxnMarkersRequest,
    describe_quorum_request, elect_leaders_request, incremental_alter_configs_request,
};

use self::of_groups::GROUP;
use crate::consumer_groups::{self, FEATURE};
use crate::groups;
use crate::support::{Client, Cluster, batch, fetch_from, produce_to, topic};

pub(crate) const NAME: &str = "orders";
pub(crate) const ID: Uuid = Uuid::from_bytes([1; 16]);
/// `ConfigResource.Type` in Apache Kafka.
const TOPIC_RESOURCE: i8 = 2;

/// A request that the version can carry and that succeeds.
pub(crate) trait Sensible: Request {
    /// An error that is an expected answer too.
    const EXPECTED: ErrorCode = ErrorCode::None;

    fn sensible(version: i16) -> Self;
}

impl Sensible for ProduceRequest {
    fn sensible(version: i16) -> Self {
        let mut request = produce_to(NAME, 0, -1, batch(&["a", "b"]));
        if version >= 13 {
            request.topic_data[0].name.clear();
            request.topic_data[0].topic_id = ID;
        }
        request
    }
}

impl Sensible for FetchRequest {
    fn sensible(version: i16) -> Self {
        let mut request = fetch_from(NAME, 0, 0);
        // Before version 15 the field's default does not mean "a consumer".
        request.replica_id = -1;
        request.replica_state.replica_id = -1;
        if version >= 13 {
            request.topics[0].topic.clear();
            request.topics[0].topic_id = ID;
        }
        request
    }
}

impl Sensible for ListOffsetsRequest {
    fn sensible(version: i16) -> Self {
        // Latest, earliest and by time exist in every version. A request names a partition only
        // once.
        let timestamp = [-1, -2, 0][usize::from(version.unsigned_abs()) % 3];
        let topic = ListOffsetsTopic {
            name: NAME.to_owned(),
            partitions: vec![ListOffsetsPartition { timestamp, ..Default::default() }],
        };
        Self { replica_id: -1, topics: vec![topic], ..Default::default() }
    }
}

impl Sensible for MetadataRequest {
    fn sensible(_: i16) -> Self {
        let topic = MetadataRequestTopic { name: Some(NAME.to_owned()), ..Default::default() };
        Self { topics: Some(vec![topic]), ..Default::default() }
    }
}

impl Sensible for ApiVersionsRequest {
    fn sensible(_: i16) -> Self {
        Self {
            client_software_name: "process-test".to_owned(),
            client_software_version: "1".to_owned(),
            ..Default::default()
        }
    }
}

impl Sensible for CreateTopicsRequest {
    fn sensible(version: i16) -> Self {
        let topic = CreatableTopic {
            name: format!("new-{version}"),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        };
        Self { topics: vec![topic], ..Default::default() }
    }
}

impl Sensible for DeleteTopicsRequest {
    fn sensible(version: i16) -> Self {
        let by_state = DeleteTopicState { name: Some(NAME.to_owned()), ..Default::default() };
        match version {
            6.. => Self { topics: vec![by_state], ..Default::default() },
            _ => Self { topic_names: vec![NAME.to_owned()], ..Default::default() },
        }
    }
}

impl Sensible for DeleteRecordsRequest {
    fn sensible(_: i16) -> Self {
        let topic = DeleteRecordsTopic {
            name: NAME.to_owned(),
            partitions: vec![DeleteRecordsPartition { partition_index: 1, offset: -1 }],
        };
        Self { topics: vec![topic], timeout_ms: 30_000 }
    }
}

impl Sensible for InitProducerIdRequest {
    fn sensible(_: i16) -> Self {
        Self { transactional_id: None, transaction_timeout_ms: 60_000, ..Default::default() }
    }
}

impl Sensible for OffsetForLeaderEpochRequest {
    fn sensible(_: i16) -> Self {
        let topic = OffsetForLeaderTopic {
            topic: NAME.to_owned(),
            partitions: vec![OffsetForLeaderPartition::default()],
        };
        Self { replica_id: -1, topics: vec![topic] }
    }
}

impl Sensible for DescribeConfigsRequest {
    fn sensible(version: i16) -> Self {
        let resource = DescribeConfigsResource {
            resource_type: TOPIC_RESOURCE,
            resource_name: NAME.to_owned(),
            configuration_keys: None,
        };
        Self {
            resources: vec![resource],
            include_synonyms: true,
            include_documentation: version >= 3,
        }
    }
}

impl Sensible for AlterConfigsRequest {
    fn sensible(_: i16) -> Self {
        let config =
            AlterableConfig { name: "retention.ms".to_owned(), value: Some("1000".to_owned()) };
        Self {
            resources: vec![AlterConfigsResource {
                resource_type: TOPIC_RESOURCE,
                resource_name: NAME.to_owned(),
                configs: vec![config],
            }],
            validate_only: false,
        }
    }
}

impl Sensible for DescribeLogDirsRequest {
    fn sensible(_: i16) -> Self {
        Self {
            topics: Some(vec![DescribableLogDirTopic {
                topic: NAME.to_owned(),
                partitions: vec![0, 1],
            }]),
        }
    }
}

impl Sensible for CreatePartitionsRequest {
    fn sensible(_: i16) -> Self {
        let topic = CreatePartitionsTopic { name: NAME.to_owned(), count: 3, assignments: None };
        Self { topics: vec![topic], ..Default::default() }
    }
}

impl Sensible for IncrementalAlterConfigsRequest {
    fn sensible(_: i16) -> Self {
        let config = incremental_alter_configs_request::AlterableConfig {
            name: "retention.ms".to_owned(),
            config_operation: 0,
            value: Some("1000".to_owned()),
        };
        Self {
            resources: vec![incremental_alter_configs_request::AlterConfigsResource {
                resource_type: TOPIC_RESOURCE,
                resource_name: NAME.to_owned(),
                configs: vec![config],
            }],
            validate_only: false,
        }
    }
}

/// A request that is valid with its defaults.
macro_rules! sensible_as_it_is {
    ($($request:ident),*) => {
        $(impl Sensible for $request {
            fn sensible(_: i16) -> Self {
                Self::default()
            }
        })*
    };
}

// Only the broker knows its log directories, so this asks to move none.
sensible_as_it_is!(
    AlterReplicaLogDirsRequest,
    ListPartitionReassignmentsRequest,
    UnregisterBrokerRequest
);

impl Sensible for ElectLeadersRequest {
    fn sensible(_: i16) -> Self {
        let topic =
            elect_leaders_request::TopicPartitions { topic: NAME.to_owned(), partitions: vec![0] };
        Self { topic_partitions: Some(vec![topic]), ..Default::default() }
    }
}

impl Sensible for AlterPartitionReassignmentsRequest {
    fn sensible(_: i16) -> Self {
        let partition = ReassignablePartition { partition_index: 0, replicas: Some(vec![0]) };
        Self {
            topics: vec![ReassignableTopic { name: NAME.to_owned(), partitions: vec![partition] }],
            ..Default::default()
        }
    }
}

impl Sensible for UpdateFeaturesRequest {
    fn sensible(_: i16) -> Self {
        let update = FeatureUpdateKey {
            feature: "metadata.version".to_owned(),
            max_version_level: 30,
            ..Default::default()
        };
        Self { feature_updates: vec![update], ..Default::default() }
    }
}

impl Sensible for DescribeQuorumRequest {
    fn sensible(_: i16) -> Self {
        let topic = describe_quorum_request::TopicData {
            topic_name: "__cluster_metadata".to_owned(),
            partitions: vec![describe_quorum_request::PartitionData { partition_index: 0 }],
        };
        Self { topics: vec![topic] }
    }
}

impl Sensible for DescribeAclsRequest {
    const EXPECTED: ErrorCode = ErrorCode::SecurityDisabled;

    fn sensible(_: i16) -> Self {
        Self {
            resource_type_filter: 1,
            pattern_type_filter: 1,
            operation: 1,
            permission_type: 1,
            ..Default::default()
        }
    }
}

impl Sensible for CreateAclsRequest {
    const EXPECTED: ErrorCode = ErrorCode::SecurityDisabled;

    fn sensible(_: i16) -> Self {
        let creation = AclCreation {
            resource_type: 2,
            resource_name: NAME.to_owned(),
            principal: "User:a".to_owned(),
            host: "*".to_owned(),
            operation: 3,
            permission_type: 3,
            ..Default::default()
        };
        Self { creations: vec![creation] }
    }
}

impl Sensible for DeleteAclsRequest {
    const EXPECTED: ErrorCode = ErrorCode::SecurityDisabled;

    fn sensible(_: i16) -> Self {
        let filter = DeleteAclsFilter {
            resource_type_filter: 1,
            pattern_type_filter: 1,
            operation: 1,
            permission_type: 1,
            ..Default::default()
        };
        Self { filters: vec![filter] }
    }
}

impl Sensible for DescribeClientQuotasRequest {
    fn sensible(_: i16) -> Self {
        Self::default()
    }
}

impl Sensible for DescribeUserScramCredentialsRequest {
    fn sensible(_: i16) -> Self {
        Self { users: None }
    }
}

impl Sensible for SaslHandshakeRequest {
    const EXPECTED: ErrorCode = ErrorCode::IllegalSaslState;

    fn sensible(_: i16) -> Self {
        Self { mechanism: "PLAIN".to_owned() }
    }
}

impl Sensible for SaslAuthenticateRequest {
    const EXPECTED: ErrorCode = ErrorCode::IllegalSaslState;

    fn sensible(_: i16) -> Self {
        Self::default()
    }
}

impl Sensible for AlterUserScramCredentialsRequest {
    fn sensible(_: i16) -> Self {
        let deletion = ScramCredentialDeletion { name: "nobody".to_owned(), mechanism: 1 };
        Self { deletions: vec![deletion], upsertions: Vec::new() }
    }
}

impl Sensible for ListConfigResourcesRequest {
    fn sensible(_: i16) -> Self {
        Self::default()
    }
}

impl Sensible for DescribeClusterRequest {
    fn sensible(_: i16) -> Self {
        Self::default()
    }
}

impl Sensible for DescribeTopicPartitionsRequest {
    fn sensible(_: i16) -> Self {
        Self {
            topics: vec![TopicRequest { name: NAME.to_owned() }],
            response_partition_limit: 100,
            cursor: None,
        }
    }
}

/// Sends the request in one version. The debug form shows every error code, whatever the shape of
/// the response.
async fn ask<R: Sensible>(client: &mut Client, version: i16) {
    let response = format!("{:?}", client.call(version, &R::sensible(version)).await);
    for code in response.split("error_code: ").skip(1) {
        let code: String = code.chars().take_while(|c| *c == '-' || c.is_ascii_digit()).collect();
        let fits = code == "0" || code == R::EXPECTED.code().to_string();
        assert!(fits, "{} v{version}: {response}", R::NAME);
    }
}

macro_rules! ask_all {
    ($($api:ident, $request:ident, $min:literal, $max:literal;)*) => {
        /// Sends a request of every API in every version.
        async fn ask_all(client: &mut Client) {
            $(for version in $min..=$max {
                ask::<$request>(client, version).await;
            })*
        }
    };
}

weir_protocol::for_each_api!(ask_all);

#[tokio::test]
async fn every_version_of_every_api_is_answered() {
    let topics =
        vec![topic(1, NAME, 2, &[("flush.mode", "none")]), topic(2, groups::COORDINATORS, 1, &[])];
    let mut cluster = Cluster::start(topics).await;
    cluster.controller.configure("group.initial.rebalance.delay.ms", "0");
    let mut client = cluster.client().await;
    groups::found(&mut client, GROUP).await;
    cluster.controller.finalise(FEATURE.0, FEATURE.1);
    consumer_groups::is_finalised(&mut client).await;
    ask_all(&mut client).await;
    assert!(cluster.broker.stop().await.success());
    assert!(!cluster.broker.log().contains("panic"), "{}", cluster.broker.log());
}

#[tokio::test]
async fn what_is_not_served_closes_the_connection_and_no_other() {
    let cluster = Cluster::start(vec![topic(1, NAME, 1, &[])]).await;
    let mut bystander = cluster.client().await;
    let unserved = ApiKey::ALL
        .iter()
        .filter(|api| **api != ApiKey::ApiVersions)
        .flat_map(|api| {
            [(api.key(), api.versions().start() - 1), (api.key(), api.versions().end() + 1)]
        })
        .chain([(-1, 0), (4, 0), (999, 0)]);
    for (key, version) in unserved {
        let mut client = cluster.client().await;
        let mut frame = BytesMut::new();
        frame.put_i16(key);
        frame.put_i16(version);
        frame.put_slice(&[0; 32]);
        client.send_raw(&frame).await;
        client.closed().await;
    }
    // The broker answers ApiVersions of a later version in version 0, so that the client can retry
    // (KIP-511).
    let mut client = cluster.client().await;
    client.send_raw(b"\0\x12\0\x63\0\0\0\0\xff\xff").await;
    let response = client.receive::<ApiVersionsRequest>(0).await;
    assert_eq!(response.error_code, ErrorCode::UnsupportedVersion.code());
    ask::<ApiVersionsRequest>(&mut client, 0).await;
    ask::<MetadataRequest>(&mut bystander, 13).await;
}
