//! ListConfigResources: the resources that have configurations (KIP-714, KIP-1142).

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::list_config_resources_response::ConfigResource;
use weir_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::{
    BROKER_LOGGER_RESOURCE, BROKER_RESOURCE, CLIENT_METRICS_RESOURCE, GROUP_RESOURCE,
    TOPIC_RESOURCE,
};
use crate::api::RequestContext;
use crate::api::Services;
use crate::auth::{Authorizer, Operation, Resource};
use crate::metadata::MetadataImage;

/// The resource types that a request may name, by version.
const TYPES: [&[i8]; 2] = [
    &[CLIENT_METRICS_RESOURCE],
    &[
        GROUP_RESOURCE,
        CLIENT_METRICS_RESOURCE,
        BROKER_LOGGER_RESOURCE,
        BROKER_RESOURCE,
        TOPIC_RESOURCE,
    ],
];

/// Answers a request.
pub(crate) fn handle(
    services: &Services,
    cx: &RequestContext,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    list(&services.metadata.load(), &services.authorizer, cx, &request)
}

fn list(
    image: &MetadataImage,
    authorizer: &Authorizer,
    cx: &RequestContext,
    request: &ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let failed = |error: ErrorCode| ListConfigResourcesResponse {
        error_code: error.code(),
        ..Default::default()
    };
    if !authorizer.allows(&cx.requester, Operation::DescribeConfigs, Resource::Cluster) {
        return failed(ErrorCode::ClusterAuthorizationFailed);
    }
    let known = TYPES[usize::from(cx.version > 0)];
    if request.resource_types.iter().any(|kind| !known.contains(kind)) {
        return failed(ErrorCode::UnsupportedVersion);
    }
    let asked = known
        .iter()
        .filter(|kind| request.resource_types.is_empty() || request.resource_types.contains(kind));
    let resources = asked.flat_map(|kind| {
        names(image, cx, *kind)
            .into_iter()
            .map(|resource_name| ConfigResource { resource_name, resource_type: *kind })
    });
    ListConfigResourcesResponse { config_resources: resources.collect(), ..Default::default() }
}

/// The names of all resources of a type. Broker loggers have none, because their levels cannot be
/// set.
fn names(image: &MetadataImage, cx: &RequestContext, kind: i8) -> Vec<String> {
    match kind {
        GROUP_RESOURCE => image.group_configs.keys().cloned().collect(),
        CLIENT_METRICS_RESOURCE => image.client_metrics.keys().cloned().collect(),
        BROKER_RESOURCE => image
            .brokers
            .values()
            .filter(|broker| broker.endpoint(&cx.listener.name).is_some())
            .map(|broker| broker.id.to_string())
            .collect(),
        TOPIC_RESOURCE => image.topics().map(|topic| topic.name.to_string()).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_protocol::api::ApiKey;

    use super::*;
    use crate::api::fixtures::{assert_encodes, everyone, image, nobody, request};

    #[test]
    fn what_is_there_is_listed_by_type() {
        let mut image = image();
        image.group_configs.insert("g".to_owned(), Arc::default());
        image.client_metrics.insert("m".to_owned(), Arc::default());
        let ask = |version, types: &[i8]| {
            let body = ListConfigResourcesRequest { resource_types: types.to_vec() };
            let answer = list(&image, &everyone(), &request(version), &body);
            assert_encodes(&answer, version);
            let resources = answer.config_resources.into_iter();
            let shown: Vec<_> = resources
                .map(|resource| format!("{}/{}", resource.resource_type, resource.resource_name))
                .collect();
            (answer.error_code, shown.join(" "))
        };
        assert_eq!(ask(0, &[]), (0, "16/m".to_owned()));
        assert_eq!(
            ask(1, &[]),
            (0, "32/g 16/m 4/0 4/1 4/2 2/__consumer_offsets 2/a 2/b".to_owned())
        );
        assert_eq!(ask(1, &[32]), (0, "32/g".to_owned()));
        assert_eq!(ask(1, &[8]), (0, String::new()));
        assert_eq!(ask(1, &[3]), (35, String::new()));
        for version in ApiKey::ListConfigResources.versions() {
            let refused =
                list(&image, &nobody(), &request(version), &ListConfigResourcesRequest::default());
            assert_eq!((refused.error_code, refused.config_resources.len()), (31, 0));
        }
    }
}
