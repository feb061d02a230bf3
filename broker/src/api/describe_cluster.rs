//! DescribeCluster: the brokers and the controller (KIP-700). Needs no permission. The authorizer
//! only computes the caller's permitted operations.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use weir_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};
use weir_protocol::types::BrokerId;

use super::{RequestContext, metadata};
use crate::api::Services;
use crate::auth::Authorizer;
use crate::metadata::MetadataImage;

/// `EndpointType` in Apache Kafka.
const ENDPOINT_BROKER: i8 = 1;
const ENDPOINT_CONTROLLER: i8 = 2;

/// Answers a request.
pub(crate) fn handle(
    services: &Services,
    cx: &RequestContext,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let described =
        describe(&services.metadata.load(), &services.authorizer, cx, &request, services.config.id);
    DescribeClusterResponse { cluster_id: services.config.cluster_id.clone(), ..described }
}

fn describe(
    image: &MetadataImage,
    authorizer: &Authorizer,
    cx: &RequestContext,
    request: &DescribeClusterRequest,
    this: BrokerId,
) -> DescribeClusterResponse {
    let refused = |error: ErrorCode, message: String| DescribeClusterResponse {
        error_code: error.code(),
        error_message: Some(message),
        ..Default::default()
    };
    match request.endpoint_type {
        ENDPOINT_BROKER => {}
        ENDPOINT_CONTROLLER => {
            let message = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
            return refused(ErrorCode::MismatchedEndpointType, message.to_owned());
        }
        other => {
            return refused(
                ErrorCode::UnsupportedEndpointType,
                format!("Unsupported endpoint type {other}"),
            );
        }
    }
    let brokers = image
        .brokers
        .values()
        .filter(|broker| !broker.fenced || request.include_fenced_brokers)
        .filter_map(|broker| {
            let endpoint = broker.endpoint(&cx.listener.name)?;
            Some(DescribeClusterBroker {
                broker_id: broker.id.0,
                host: endpoint.host.clone(),
                port: endpoint.port.into(),
                rack: broker.rack.clone(),
                is_fenced: broker.fenced,
            })
        });
    DescribeClusterResponse {
        endpoint_type: ENDPOINT_BROKER,
        controller_id: metadata::controller_id(image, cx, this),
        brokers: brokers.collect(),
        cluster_authorized_operations: metadata::cluster_operations(
            authorizer,
            cx,
            request.include_cluster_authorized_operations,
        ),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use weir_protocol::api::ApiKey;

    use super::*;
    use crate::api::fixtures::{assert_encodes, everyone, image, nobody, request, request_on};

    fn ask(endpoint_type: i8, fenced: bool, operations: bool) -> DescribeClusterRequest {
        DescribeClusterRequest {
            include_cluster_authorized_operations: operations,
            endpoint_type,
            include_fenced_brokers: fenced,
        }
    }

    #[test]
    fn the_brokers_of_the_callers_listener() {
        let image = image();
        for (listener, fenced, ids) in [
            ("PLAINTEXT", false, vec![0, 1]),
            ("PLAINTEXT", true, vec![0, 1, 2]),
            ("OTHER", false, vec![0]),
            ("NONE", true, vec![]),
        ] {
            let response = describe(
                &image,
                &nobody(),
                &request_on(listener, 2),
                &ask(1, fenced, false),
                BrokerId(1),
            );
            assert_eq!(
                response.brokers.iter().map(|broker| broker.broker_id).collect::<Vec<_>>(),
                ids,
                "{listener}"
            );
            assert!(
                response.brokers.iter().all(|broker| broker.is_fenced == (broker.broker_id == 2)
                    && broker.host.starts_with(&listener.to_lowercase()))
            );
        }
    }

    #[test]
    fn the_controller_is_a_broker_that_clients_reach() {
        let image = image();
        for (listener, this, expected) in
            [("PLAINTEXT", 1, 1), ("OTHER", 1, 0), ("PLAINTEXT", 2, 0), ("NONE", 1, -1)]
        {
            assert_eq!(
                describe(
                    &image,
                    &nobody(),
                    &request_on(listener, 2),
                    &ask(1, false, false),
                    BrokerId(this)
                )
                .controller_id,
                expected
            );
        }
    }

    #[test]
    fn operations_and_endpoint_types() {
        let image = image();
        let error = |endpoint_type| {
            describe(&image, &nobody(), &request(1), &ask(endpoint_type, false, false), BrokerId(0))
                .error_code
        };
        assert_eq!(
            [error(0), error(1), error(2)],
            [
                ErrorCode::UnsupportedEndpointType.code(),
                0,
                ErrorCode::MismatchedEndpointType.code()
            ]
        );
        let operations = |authorizer: Authorizer, wanted| {
            describe(&image, &authorizer, &request(1), &ask(1, false, wanted), BrokerId(0))
                .cluster_authorized_operations
        };
        assert_eq!(operations(everyone(), false), i32::MIN);
        assert_eq!(operations(nobody(), true), 0);
        assert_eq!(operations(everyone(), true), 0b1_1111_1010_0000);
    }

    #[test]
    fn every_version_can_carry_its_answer() {
        for version in ApiKey::DescribeCluster.versions() {
            let body = ask(1, version >= 2, true);
            assert_encodes(
                &describe(&image(), &everyone(), &request(version), &body, BrokerId(0)),
                version,
            );
        }
        assert_encodes(
            &describe(&image(), &everyone(), &request(1), &ask(2, false, false), BrokerId(0)),
            1,
        );
    }
}
