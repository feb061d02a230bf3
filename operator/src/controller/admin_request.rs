//! The administrative requests of Kafka clients that brokers forward, and their responses, with
//! their encoding.
//!
//! The RPC server decodes and encodes them; [`super::admin`] decides them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::{Bytes, BytesMut};
use weir_protocol::messages::{self, ApiMessage, Message};
use weir_protocol::primitive::{DecodeError, EncodeError};

use super::limits::{NAMED_TO_LIST_MAX, RECORDS_PER_REQUEST_MAX};

macro_rules! forwarded {
    ($($(#[$doc:meta])* $name:ident($request:ident, $response:ident);)*) => {
        /// A request that a broker forwarded.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AdminRequest {
            $($(#[$doc])* $name(messages::$request),)*
        }

        /// The response to a forwarded request.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AdminResponse {
            $($(#[$doc])* $name(messages::$response),)*
        }

        impl AdminRequest {
            /// Decodes the body of a request.
            ///
            /// # Errors
            /// When the controller does not serve the API, or the bytes are no valid request of it.
            pub fn decode(api_key: i32, version: i16, mut body: Bytes) -> Result<Self, BadForward> {
                $(if api_key == i32::from(<messages::$request as ApiMessage>::API_KEY) {
                    return Ok(Self::$name(messages::$request::decode(&mut body, version)?));
                })*
                Err(BadForward::Api(api_key))
            }
        }

        impl AdminResponse {
            /// Encodes the body of the response in the request's version.
            ///
            /// # Errors
            /// When the version cannot carry the answer.
            pub fn encode(&self, version: i16) -> Result<Bytes, EncodeError> {
                let mut body = BytesMut::new();
                match self {
                    $(Self::$name(response) => response.encode(&mut body, version)?,)*
                }
                Ok(body.freeze())
            }
        }
    };
}

forwarded! {
    /// Creates topics.
    CreateTopics(CreateTopicsRequest, CreateTopicsResponse);
    /// Deletes topics.
    DeleteTopics(DeleteTopicsRequest, DeleteTopicsResponse);
    /// Adds partitions to topics.
    CreatePartitions(CreatePartitionsRequest, CreatePartitionsResponse);
    /// Elects leaders.
    ElectLeaders(ElectLeadersRequest, ElectLeadersResponse);
    /// Reassigns partitions.
    AlterPartitionReassignments(AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse);
    /// Lists reassignments.
    ListPartitionReassignments(ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse);
    /// Unregisters a broker.
    UnregisterBroker(UnregisterBrokerRequest, UnregisterBrokerResponse);
    /// Raises and lowers the levels of features.
    UpdateFeatures(UpdateFeaturesRequest, UpdateFeaturesResponse);
    /// Reports how much of the metadata each broker has applied.
    DescribeQuorum(DescribeQuorumRequest, DescribeQuorumResponse);
    /// Sets and deletes SCRAM credentials.
    AlterUserScramCredentials(AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse);
    /// Replaces settings.
    AlterConfigs(AlterConfigsRequest, AlterConfigsResponse);
    /// Changes settings one by one.
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse);
}

/// Why a forwarded request cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum BadForward {
    /// Brokers answer this API themselves.
    #[error("the API with key {0} is not the controller's")]
    Api(i32),
    /// The bytes are no valid request of that API and version.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl AdminRequest {
    /// The number of things that it names. Refusing one of them is work too.
    pub(super) fn named(&self) -> usize {
        let count = |counts: &mut dyn Iterator<Item = usize>| counts.fold(0, usize::saturating_add);
        match self {
            Self::CreateTopics(request) => count(
                &mut request
                    .topics
                    .iter()
                    .map(|topic| 1 + topic.assignments.len() + topic.configs.len()),
            ),
            Self::DeleteTopics(request) => request.topics.len() + request.topic_names.len(),
            Self::CreatePartitions(request) => count(
                &mut request
                    .topics
                    .iter()
                    .map(|topic| 1 + topic.assignments.iter().flatten().count()),
            ),
            Self::ElectLeaders(request) => count(
                &mut request
                    .topic_partitions
                    .iter()
                    .flatten()
                    .map(|topic| topic.partitions.len().max(1)),
            ),
            Self::AlterPartitionReassignments(request) => {
                count(&mut request.topics.iter().map(|topic| topic.partitions.len().max(1)))
            }
            Self::ListPartitionReassignments(request) => count(
                &mut request.topics.iter().flatten().map(|topic| 1 + topic.partition_indexes.len()),
            ),
            Self::UpdateFeatures(request) => request.feature_updates.len(),
            Self::AlterUserScramCredentials(request) => {
                request.deletions.len() + request.upsertions.len()
            }
            Self::AlterConfigs(request) => {
                count(&mut request.resources.iter().map(|resource| 1 + resource.configs.len()))
            }
            Self::IncrementalAlterConfigs(request) => {
                count(&mut request.resources.iter().map(|resource| 1 + resource.configs.len()))
            }
            // UnregisterBroker names one broker; DescribeQuorum ignores what its request names.
            Self::UnregisterBroker(_) | Self::DescribeQuorum(_) => 0,
        }
    }

    /// The most things that it may name.
    pub(super) fn named_max(&self) -> usize {
        match self {
            Self::ListPartitionReassignments(_) => NAMED_TO_LIST_MAX,
            _ => RECORDS_PER_REQUEST_MAX,
        }
    }
}
