//! The administrative requests of Kafka clients that brokers forward: their bytes, and which decision answers which.
//!
//! Called by the RPC server with the bytes and by [`super::decide`] with the messages. Who may ask was the broker's question already.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::{Bytes, BytesMut};
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{self, ApiMessage, Message};
use weir_protocol::primitive::{DecodeError, EncodeError};

use super::topics::TOPIC_NAME_LENGTH_MAX;
use super::{Draft, NAMED_TO_LIST_MAX, RECORDS_PER_REQUEST_MAX, brokers, configs, features, leaders, quorum, reassign, topics};

/// A Kafka error and what to say with it; the message is Kafka's own wherever Kafka has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// More than one request may be about.
pub(super) fn too_large() -> ApiError {
    ApiError::new(ErrorCode::PolicyViolation, "Unable to perform excessively large batch operation.")
}

/// Decides what is asked: all of it, or nothing where it is too much for one request. Too much to begin with is not looked at.
pub(super) fn carry_out(draft: &mut Draft<'_>, request: AdminRequest) -> Result<AdminResponse, ApiError> {
    if request.named() > request.named_max() {
        return Err(too_large());
    }
    let response = answer(draft, request);
    if draft.is_spent() { Err(too_large()) } else { Ok(response) }
}

/// A topic's name as an error message says it. A topic that is there is named whole; the message comes once for each partition, and a name on the wire may take 32 KB.
pub(super) fn shown(name: &str) -> &str {
    name.get(..name.floor_char_boundary(TOPIC_NAME_LENGTH_MAX)).unwrap_or_default()
}

/// An error code and message as responses carry them.
pub(super) fn wire(result: &Result<(), ApiError>) -> (i16, Option<String>) {
    match result {
        Ok(()) => (ErrorCode::None as i16, None),
        Err(error) => (error.code as i16, Some(error.message.clone())),
    }
}

macro_rules! forwarded {
    ($($(#[$doc:meta])* $name:ident($request:ident, $response:ident) => $answer:path;)*) => {
        /// A forwarded request.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AdminRequest {
            $($(#[$doc])* $name(messages::$request),)*
        }

        /// The answer to a forwarded request.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AdminResponse {
            $($(#[$doc])* $name(messages::$response),)*
        }

        impl AdminRequest {
            /// Reads the body of a request.
            ///
            /// # Errors
            /// When the API is none that the controller answers, or the bytes are no request of it.
            pub fn decode(api_key: i32, version: i16, mut body: Bytes) -> Result<Self, BadForward> {
                $(if api_key == i32::from(<messages::$request as ApiMessage>::API_KEY) {
                    return Ok(Self::$name(messages::$request::decode(&mut body, version)?));
                })*
                Err(BadForward::Api(api_key))
            }
        }

        impl AdminResponse {
            /// Writes the body of the response in the request's version.
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

        fn answer(draft: &mut Draft<'_>, request: AdminRequest) -> AdminResponse {
            match request {
                $(AdminRequest::$name(request) => AdminResponse::$name($answer(draft, request)),)*
            }
        }
    };
}

forwarded! {
    /// Creates topics.
    CreateTopics(CreateTopicsRequest, CreateTopicsResponse) => topics::create::create_topics;
    /// Deletes topics.
    DeleteTopics(DeleteTopicsRequest, DeleteTopicsResponse) => topics::delete_topics;
    /// Adds partitions to topics.
    CreatePartitions(CreatePartitionsRequest, CreatePartitionsResponse) => topics::create_partitions;
    /// Elects leaders.
    ElectLeaders(ElectLeadersRequest, ElectLeadersResponse) => leaders::elect_leaders;
    /// Moves partitions to other replicas.
    AlterPartitionReassignments(AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse) => reassign::alter;
    /// Tells which partitions are being moved.
    ListPartitionReassignments(ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse) => reassign::list;
    /// Forgets a broker.
    UnregisterBroker(UnregisterBrokerRequest, UnregisterBrokerResponse) => brokers::unregister;
    /// Raises and lowers the levels of features.
    UpdateFeatures(UpdateFeaturesRequest, UpdateFeaturesResponse) => features::update;
    /// Tells how far brokers have heard.
    DescribeQuorum(DescribeQuorumRequest, DescribeQuorumResponse) => quorum::describe;
    /// Replaces settings.
    AlterConfigs(AlterConfigsRequest, AlterConfigsResponse) => configs::alter_configs;
    /// Changes settings one by one.
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse) => configs::incremental_alter_configs;
}

/// Why a forwarded request cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadForward {
    /// The API is answered by brokers themselves.
    #[error("the API with key {0} is not the controller's")]
    Api(i32),
    /// The bytes are no request of that API and version.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl AdminRequest {
    /// How many things it names: what cannot be done is work, too.
    fn named(&self) -> usize {
        let count = |counts: &mut dyn Iterator<Item = usize>| counts.fold(0, usize::saturating_add);
        match self {
            Self::CreateTopics(request) => count(&mut request.topics.iter().map(|topic| 1 + topic.assignments.len() + topic.configs.len())),
            Self::DeleteTopics(request) => request.topics.len() + request.topic_names.len(),
            Self::CreatePartitions(request) => count(&mut request.topics.iter().map(|topic| 1 + topic.assignments.iter().flatten().count())),
            Self::ElectLeaders(request) => count(&mut request.topic_partitions.iter().flatten().map(|topic| topic.partitions.len().max(1))),
            Self::AlterPartitionReassignments(request) => count(&mut request.topics.iter().map(|topic| topic.partitions.len().max(1))),
            Self::ListPartitionReassignments(request) => count(&mut request.topics.iter().flatten().map(|topic| 1 + topic.partition_indexes.len())),
            Self::UpdateFeatures(request) => request.feature_updates.len(),
            Self::AlterConfigs(request) => count(&mut request.resources.iter().map(|resource| 1 + resource.configs.len())),
            Self::IncrementalAlterConfigs(request) => count(&mut request.resources.iter().map(|resource| 1 + resource.configs.len())),
            // One broker; and what is named to DescribeQuorum is not looked at.
            Self::UnregisterBroker(_) | Self::DescribeQuorum(_) => 0,
        }
    }

    /// How many things it may name.
    fn named_max(&self) -> usize {
        match self {
            Self::ListPartitionReassignments(_) => NAMED_TO_LIST_MAX,
            _ => RECORDS_PER_REQUEST_MAX,
        }
    }
}
