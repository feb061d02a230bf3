//! The APIs that a broker serves: the one table of keys, versions and header versions.
//!
//! Code that advertises, parses or dispatches requests reads this table. To serve another API, add
//! its definitions to `schema/` and a row here. The table has a version only when the broker serves
//! all of it. Nothing here depends on configuration or on the state of the cluster.

use std::fmt;
use std::ops::RangeInclusive;

use crate::error::ErrorCode;
use crate::messages::api_versions_response::ApiVersion;
use crate::messages::{ApiMessage, ApiVersionsResponse, Message};

/// Calls the macro `$then` with every row of the table:
/// `name, request type, lowest version, highest version;`.
///
/// The table is a macro so that tests and fuzz targets cover each row that is added to it.
#[macro_export]
macro_rules! for_each_api {
    ($then:ident) => {
        $then! {
            Produce, ProduceRequest, 3, 13;
            Fetch, FetchRequest, 4, 18;
            ListOffsets, ListOffsetsRequest, 1, 11;
            Metadata, MetadataRequest, 0, 13;
            OffsetCommit, OffsetCommitRequest, 2, 10;
            OffsetFetch, OffsetFetchRequest, 1, 10;
            FindCoordinator, FindCoordinatorRequest, 0, 6;
            JoinGroup, JoinGroupRequest, 0, 9;
            Heartbeat, HeartbeatRequest, 0, 4;
            LeaveGroup, LeaveGroupRequest, 0, 5;
            SyncGroup, SyncGroupRequest, 0, 5;
            DescribeGroups, DescribeGroupsRequest, 0, 6;
            ListGroups, ListGroupsRequest, 0, 5;
            SaslHandshake, SaslHandshakeRequest, 0, 1;
            ApiVersions, ApiVersionsRequest, 0, 5;
            CreateTopics, CreateTopicsRequest, 2, 7;
            DeleteTopics, DeleteTopicsRequest, 1, 6;
            DeleteRecords, DeleteRecordsRequest, 0, 2;
            InitProducerId, InitProducerIdRequest, 0, 5;
            OffsetForLeaderEpoch, OffsetForLeaderEpochRequest, 2, 4;
            AddPartitionsToTxn, AddPartitionsToTxnRequest, 0, 5;
            AddOffsetsToTxn, AddOffsetsToTxnRequest, 0, 4;
            EndTxn, EndTxnRequest, 0, 5;
            WriteTxnMarkers, WriteTxnMarkersRequest, 1, 2;
            TxnOffsetCommit, TxnOffsetCommitRequest, 0, 6;
            DescribeAcls, DescribeAclsRequest, 1, 3;
            CreateAcls, CreateAclsRequest, 1, 3;
            DeleteAcls, DeleteAclsRequest, 1, 3;
            DescribeConfigs, DescribeConfigsRequest, 1, 4;
            AlterConfigs, AlterConfigsRequest, 0, 2;
            AlterReplicaLogDirs, AlterReplicaLogDirsRequest, 1, 2;
            DescribeLogDirs, DescribeLogDirsRequest, 1, 5;
            SaslAuthenticate, SaslAuthenticateRequest, 0, 2;
            CreatePartitions, CreatePartitionsRequest, 0, 3;
            DeleteGroups, DeleteGroupsRequest, 0, 3;
            ElectLeaders, ElectLeadersRequest, 0, 2;
            IncrementalAlterConfigs, IncrementalAlterConfigsRequest, 0, 1;
            AlterPartitionReassignments, AlterPartitionReassignmentsRequest, 0, 1;
            ListPartitionReassignments, ListPartitionReassignmentsRequest, 0, 0;
            OffsetDelete, OffsetDeleteRequest, 0, 0;
            DescribeClientQuotas, DescribeClientQuotasRequest, 0, 1;
            DescribeUserScramCredentials, DescribeUserScramCredentialsRequest, 0, 0;
            AlterUserScramCredentials, AlterUserScramCredentialsRequest, 0, 0;
            DescribeQuorum, DescribeQuorumRequest, 0, 2;
            UpdateFeatures, UpdateFeaturesRequest, 0, 2;
            DescribeCluster, DescribeClusterRequest, 0, 2;
            DescribeProducers, DescribeProducersRequest, 0, 0;
            UnregisterBroker, UnregisterBrokerRequest, 0, 0;
            DescribeTransactions, DescribeTransactionsRequest, 0, 0;
            ListTransactions, ListTransactionsRequest, 0, 2;
            ConsumerGroupHeartbeat, ConsumerGroupHeartbeatRequest, 0, 1;
            ConsumerGroupDescribe, ConsumerGroupDescribeRequest, 0, 1;
            ListConfigResources, ListConfigResourcesRequest, 0, 1;
            DescribeTopicPartitions, DescribeTopicPartitionsRequest, 0, 0;
        }
    };
}

macro_rules! api_keys {
    ($($api:ident, $request:ident, $min:literal, $max:literal;)*) => {
        /// An API that a broker serves.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $(
                #[doc = concat!("`", stringify!($api), "`, versions ", $min, " to ", $max, ".")]
                $api = <crate::messages::$request as ApiMessage>::API_KEY,
            )*
        }

        impl ApiKey {
            /// Every API of the table, by ascending key.
            pub const ALL: &[Self] = &[$(Self::$api),*];

            /// The API with this key, if the table has it.
            pub fn from_key(key: i16) -> Option<Self> {
                Self::ALL.iter().copied().find(|api| api.key() == key)
            }

            /// The API's name in Kafka.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$api => stringify!($api),)*
                }
            }

            /// The versions that are served.
            pub const fn versions(self) -> RangeInclusive<i16> {
                match self {
                    $(Self::$api => $min..=$max,)*
                }
            }

            /// The first version with compact lengths and tagged fields; `i16::MAX` if there is
            /// none.
            pub const fn first_flexible_version(self) -> i16 {
                match self {
                    $(Self::$api => crate::messages::$request::FIRST_FLEXIBLE_VERSION,)*
                }
            }
        }

        // The table may only name versions that the schema describes.
        $(const _: () = {
            let described = <crate::messages::$request as Message>::VERSIONS;
            assert!(*described.start() <= $min && $min <= $max && $max <= *described.end());
        };)*
    };
}

for_each_api!(api_keys);

impl ApiKey {
    /// The key on the wire.
    pub const fn key(self) -> i16 {
        self as i16
    }

    /// Whether requests of this version are served.
    pub fn serves(self, version: i16) -> bool {
        self.versions().contains(&version)
    }

    /// The versions that an ApiVersions response advertises.
    ///
    /// They are the versions that are served, except that Produce begins at 0, as in Kafka.
    /// librdkafka up to 2.8 turns compression off for a broker without Produce 0 (KAFKA-18659). A
    /// Produce request in version 0 to 2 still closes the connection.
    pub fn advertised_versions(self) -> RangeInclusive<i16> {
        match self {
            Self::Produce => 0..=*self.versions().end(),
            _ => self.versions(),
        }
    }

    /// The version of the header of a request in `version`: 2 is the flexible one.
    pub fn request_header_version(self, version: i16) -> i16 {
        if version >= self.first_flexible_version() { 2 } else { 1 }
    }

    /// The version of the header of a response in `version`: 1 is the flexible one.
    ///
    /// The ApiVersions response never became flexible: a client must be able to read it before it
    /// knows which versions the broker serves (KIP-511).
    pub fn response_header_version(self, version: i16) -> i16 {
        match self {
            Self::ApiVersions => 0,
            _ => i16::from(version >= self.first_flexible_version()),
        }
    }

    /// The row of this API in an ApiVersions response.
    pub fn advertisement(self) -> ApiVersion {
        let (min_version, max_version) = self.advertised_versions().into_inner();
        ApiVersion { api_key: self.key(), min_version, max_version }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The response to an ApiVersions request in a version that is not served. It is sent in version 0
/// (KIP-511).
///
/// It names only the versions of ApiVersions itself, as in Kafka
/// (`ApiVersionsRequest.getErrorResponse`), and the client retries with one of them.
pub fn unsupported_api_versions() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: vec![ApiKey::ApiVersions.advertisement()],
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_are_unique_and_ascending() {
        assert!(ApiKey::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        for api in ApiKey::ALL {
            assert_eq!(ApiKey::from_key(api.key()), Some(*api));
        }
        for key in [-1, 4, 52, 1000] {
            assert_eq!(ApiKey::from_key(key), None);
        }
    }

    #[test]
    fn only_produce_is_advertised_from_a_lower_version_than_it_is_served() {
        for api in ApiKey::ALL {
            let expected = if *api == ApiKey::Produce { 0..=13 } else { api.versions() };
            assert_eq!(api.advertised_versions(), expected, "{api}");
        }
        assert!(!ApiKey::Produce.serves(2));
    }

    #[test]
    fn header_versions() {
        let table = [
            (ApiKey::Produce, 8, 1, 0),
            (ApiKey::Produce, 9, 2, 1),
            (ApiKey::Fetch, 11, 1, 0),
            (ApiKey::Fetch, 12, 2, 1),
            (ApiKey::ApiVersions, 2, 1, 0),
            (ApiKey::ApiVersions, 3, 2, 0),
            (ApiKey::ApiVersions, 99, 2, 0),
            (ApiKey::DescribeCluster, 0, 2, 1),
        ];
        for (api, version, request, response) in table {
            assert_eq!(
                (api.request_header_version(version), api.response_header_version(version)),
                (request, response),
                "{api} {version}"
            );
        }
    }

    #[test]
    fn header_versions_are_those_of_kafka_protocol() {
        for api in ApiKey::ALL {
            let Ok(theirs) = kafka_protocol::messages::ApiKey::try_from(api.key()) else {
                continue;
            };
            assert_eq!(format!("{theirs:?}").trim_end_matches("Key"), api.name());
            for version in api.versions() {
                assert_eq!(
                    api.request_header_version(version),
                    theirs.request_header_version(version),
                    "{api} {version}"
                );
                assert_eq!(
                    api.response_header_version(version),
                    theirs.response_header_version(version),
                    "{api} {version}"
                );
            }
        }
    }

    #[test]
    fn an_unsupported_version_of_api_versions_is_answered_with_its_versions() {
        let response = unsupported_api_versions();
        assert_eq!(response.error_code, 35);
        assert_eq!(response.api_keys, [ApiVersion { api_key: 18, min_version: 0, max_version: 5 }]);
    }
}
