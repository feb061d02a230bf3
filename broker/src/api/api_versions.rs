//! ApiVersions: the versions that this broker serves (KIP-35), the features of the cluster
//! (KIP-584), and whether the client has reached the broker that it wanted (KIP-1242).
//!
//! Needs no permission, as in Kafka, because a client sends it before it authenticates. The
//! dispatcher answers unsupported versions of ApiVersions itself.

use weir_protocol::api::ApiKey;
use weir_protocol::error::ErrorCode;
use weir_protocol::features::FEATURES;
use weir_protocol::messages::api_versions_response::{FinalizedFeatureKey, SupportedFeatureKey};
use weir_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::RequestContext;
use crate::api::Services;
use crate::metadata::MetadataImage;

/// Answers a request.
pub(crate) fn handle(
    services: &Services,
    cx: &RequestContext,
    request: ApiVersionsRequest,
) -> ApiVersionsResponse {
    match check(&request, cx.version, &services.config.cluster_id, services.config.id.0) {
        Ok(()) => describe(&services.metadata.load()),
        Err(error) => ApiVersionsResponse { error_code: error.code(), ..Default::default() },
    }
}

/// Checks the client's software name, and that the request has reached the right cluster and broker
/// (`KafkaApis.handleApiVersionsRequest`).
fn check(
    request: &ApiVersionsRequest,
    version: i16,
    cluster_id: &str,
    node_id: i32,
) -> Result<(), ErrorCode> {
    if !names_software(request, version) {
        return Err(ErrorCode::InvalidRequest);
    }
    match &request.cluster_id {
        Some(wanted) if version >= 5 && (wanted != cluster_id || request.node_id != node_id) => {
            Err(ErrorCode::RebootstrapRequired)
        }
        _ => Ok(()),
    }
}

/// Whether the client names its software as KIP-511 allows, in versions in which it names it.
pub(super) fn names_software(request: &ApiVersionsRequest, version: i16) -> bool {
    let names = [&request.client_software_name, &request.client_software_version];
    version < 3 || names.into_iter().all(|name| is_software(name))
}

/// Whether KIP-511 allows this as a software name or version: alphanumerics, and `-` and `.`
/// between them.
fn is_software(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    edge(text.bytes().next())
        && edge(text.bytes().next_back())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

pub(super) fn describe(image: &MetadataImage) -> ApiVersionsResponse {
    // A feature at level 0 is off, and the response does not name it.
    let features = image.features.iter().filter_map(|(name, level)| {
        Some((name.clone(), i16::try_from(*level).ok().filter(|level| *level > 0)?))
    });
    let supported =
        FEATURES.iter().filter(|feature| feature.max > 0).map(|feature| SupportedFeatureKey {
            name: feature.name.to_owned(),
            min_version: feature.min,
            max_version: feature.max,
        });
    let finalized = |(name, level)| FinalizedFeatureKey {
        name,
        max_version_level: level,
        min_version_level: level,
    };
    ApiVersionsResponse {
        api_keys: ApiKey::ALL.iter().map(|api| api.advertisement()).collect(),
        supported_features: supported.collect(),
        // -1 means an unknown epoch.
        finalized_features_epoch: if image.version == 0 { -1 } else { image.features_epoch },
        finalized_features: features.map(finalized).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fixtures::assert_encodes;

    #[test]
    fn clients_say_who_they_are() {
        for (text, good) in [
            ("apache-kafka-java", true),
            ("4.4.0", true),
            ("a", true),
            ("", false),
            ("-a", false),
            ("a.", false),
            ("a b", false),
            ("ü", false),
        ] {
            assert_eq!(is_software(text), good, "{text}");
        }
        let request =
            ApiVersionsRequest { client_software_name: String::new(), ..Default::default() };
        assert_eq!(check(&request, 2, "c", 0), Ok(()));
        assert_eq!(check(&request, 3, "c", 0), Err(ErrorCode::InvalidRequest));
    }

    #[test]
    fn a_client_at_the_wrong_door_starts_again() {
        let rows = [
            (5, None, -1, Ok(())),
            (5, Some("c"), 3, Ok(())),
            (5, Some("d"), 3, Err(ErrorCode::RebootstrapRequired)),
            (5, Some("c"), 4, Err(ErrorCode::RebootstrapRequired)),
            (4, Some("d"), 4, Ok(())),
        ];
        for (version, cluster, node_id, expected) in rows {
            let request = ApiVersionsRequest {
                client_software_name: "x".to_owned(),
                client_software_version: "1".to_owned(),
                cluster_id: cluster.map(str::to_owned),
                node_id,
            };
            assert_eq!(check(&request, version, "c", 3), expected, "{request:?}");
        }
    }

    #[test]
    fn it_tells_what_is_served() {
        let mut image = MetadataImage::default();
        let empty = describe(&image);
        assert_eq!((empty.api_keys.len(), empty.finalized_features_epoch), (ApiKey::ALL.len(), -1));
        assert_eq!(empty.api_keys.iter().find(|api| api.api_key == 0).unwrap().min_version, 0);
        image.version = 1;
        image.features_epoch = 4;
        image.features = [("group.version".to_owned(), 1), ("off".to_owned(), 0)].into();
        let response = describe(&image);
        ApiKey::ApiVersions.versions().for_each(|version| assert_encodes(&response, version));
        assert_eq!(response.finalized_features_epoch, 4);
        let feature = &response.finalized_features[0];
        assert_eq!(
            (feature.name.as_str(), feature.min_version_level, feature.max_version_level),
            ("group.version", 1, 1)
        );
        assert_eq!(response.finalized_features.len(), 1);
        let told = response.supported_features.iter().map(|feature| feature.name.as_str());
        let served = FEATURES.iter().filter(|feature| feature.max > 0);
        assert!(
            told.eq(served.map(|feature| feature.name)),
            "what no level is served of is not told"
        );
    }
}
