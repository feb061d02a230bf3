//! DescribeQuorum (KIP-595, KIP-836, KIP-853): the keepers of the metadata, for Kafka's tools.
//!
//! Weir has no quorum of brokers: the controller is the only voter, and brokers observe. Versions
//! of the metadata stand for offsets, counted from the controller's start. The controller knows how
//! far each broker is. Without it, a broker answers from its image, which only says that other
//! brokers exist.

use std::sync::Arc;

use weir_protocol::address;
use weir_protocol::api::ApiKey;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use weir_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use weir_protocol::types::BrokerId;

use super::RequestContext;
use crate::api::Services;
use crate::auth::{Authorizer, Operation, Resource};
use crate::metadata::MetadataImage;
use crate::replica::now_ms;

/// The name of Kafka's metadata log, which the tools ask for.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// The controller's node id for the tools, far above the ids of brokers.
const CONTROLLER_NODE_ID: i32 = 1_000_000_000;

/// The first version with the voters' addresses (KIP-853).
const NODES_VERSION: i16 = 2;

/// The bits of a metadata version that count the changes of one controller.
const CHANGES_MASK: u64 = (1 << 40) - 1;

/// Answers a request.
pub(crate) async fn handle(
    services: &Services,
    cx: &RequestContext,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let image = Arc::clone(&services.metadata.load());
    let config = &services.config;
    let mut response = describe(
        &image,
        &services.authorizer,
        cx,
        &request,
        config.id,
        &config.controller,
        now_ms(),
    );
    if let Some(partition) = described(&mut response) {
        let api = (ApiKey::DescribeQuorum, cx.version);
        let told =
            services.controller.forward(&services.metadata, cx.forwarded_by(), api, &request).await;
        if let Ok(mut told) = told
            && let Some(told) = described(&mut told)
        {
            correct(partition, std::mem::take(told));
        }
    }
    response
}

/// The metadata partition in the response; `None` if it has an error.
fn described(response: &mut DescribeQuorumResponse) -> Option<&mut PartitionData> {
    let topic = response.topics.first_mut()?;
    topic.partitions.first_mut().filter(|partition| partition.error_code == 0)
}

/// Replaces fields with the controller's values, which are more exact.
fn correct(partition: &mut PartitionData, told: PartitionData) {
    partition.high_watermark = told.high_watermark;
    partition.observers = told.observers;
    for voter in &mut partition.current_voters {
        voter.log_end_offset = told.high_watermark;
    }
}

fn describe(
    image: &MetadataImage,
    authorizer: &Authorizer,
    cx: &RequestContext,
    request: &DescribeQuorumRequest,
    this: BrokerId,
    controller: &str,
    now_ms: i64,
) -> DescribeQuorumResponse {
    if !authorizer.allows(&cx.requester, Operation::Describe, Resource::Cluster) {
        let error = ErrorCode::ClusterAuthorizationFailed;
        return DescribeQuorumResponse {
            error_code: error.code(),
            error_message: Some(error.message().to_owned()),
            ..Default::default()
        };
    }
    let asks_for_it = matches!(request.topics.as_slice(), [topic] if topic.topic_name == METADATA_TOPIC
        && matches!(topic.partitions.as_slice(), [partition] if partition.partition_index == 0));
    if !asks_for_it {
        return unknown(request);
    }
    let end = i64::try_from(image.version & CHANGES_MASK).unwrap_or(i64::MAX);
    let voter = ReplicaState {
        replica_id: CONTROLLER_NODE_ID,
        log_end_offset: end,
        last_caught_up_timestamp: now_ms,
        ..Default::default()
    };
    let observer = |id: BrokerId| ReplicaState {
        replica_id: id.0,
        log_end_offset: if id == this { end } else { -1 },
        ..Default::default()
    };
    let partition = PartitionData {
        leader_id: CONTROLLER_NODE_ID,
        leader_epoch: i32::try_from(image.controller_epoch.0).unwrap_or(i32::MAX),
        high_watermark: end,
        current_voters: vec![voter],
        observers: image.live_brokers().map(|broker| observer(broker.id)).collect(),
        error_message: None,
        ..Default::default()
    };
    let (host, port) = address::split(controller).unwrap_or((controller, 0));
    let listener = Listener { name: "CONTROLLER".to_owned(), host: host.to_owned(), port };
    let node = Node { node_id: CONTROLLER_NODE_ID, listeners: vec![listener] };
    DescribeQuorumResponse {
        error_message: None,
        topics: vec![TopicData {
            topic_name: METADATA_TOPIC.to_owned(),
            partitions: vec![partition],
        }],
        nodes: if cx.version >= NODES_VERSION { vec![node] } else { Vec::new() },
        ..Default::default()
    }
}

/// The answer for any other log, which the controller does not have
/// (`DescribeQuorumRequest.getPartitionLevelErrorResponse`).
fn unknown(request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let error = ErrorCode::UnknownTopicOrPartition;
    let topics = request.topics.iter().map(|topic| TopicData {
        topic_name: topic.topic_name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| PartitionData {
                partition_index: partition.partition_index,
                error_code: error.code(),
                error_message: Some(error.message().to_owned()),
                ..Default::default()
            })
            .collect(),
    });
    DescribeQuorumResponse { error_message: None, topics: topics.collect(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use weir_protocol::messages::describe_quorum_request;

    use super::*;
    use crate::api::fixtures::{assert_encodes, everyone, image, nobody, request};

    fn ask(topic: &str, partition_index: i32) -> DescribeQuorumRequest {
        let partitions = vec![describe_quorum_request::PartitionData { partition_index }];
        let topic_name = topic.to_owned();
        DescribeQuorumRequest {
            topics: vec![describe_quorum_request::TopicData { topic_name, partitions }],
        }
    }

    #[test]
    fn the_controller_is_the_only_voter() {
        let image = image();
        for version in ApiKey::DescribeQuorum.versions() {
            let at = |controller, authorizer: &Authorizer, asked: &DescribeQuorumRequest| {
                let response = describe(
                    &image,
                    authorizer,
                    &request(version),
                    asked,
                    BrokerId(1),
                    controller,
                    5,
                );
                assert_encodes(&response, version);
                response
            };
            let answer = |authorizer: &Authorizer, asked: &DescribeQuorumRequest| {
                at("10.0.0.1:9090", authorizer, asked)
            };
            let response = answer(&everyone(), &ask(METADATA_TOPIC, 0));
            let partition = &response.topics[0].partitions[0];
            let voter = &partition.current_voters[0];
            assert_eq!(
                (partition.error_code, partition.leader_id, partition.leader_epoch),
                (0, voter.replica_id, 1)
            );
            assert_eq!((voter.log_end_offset, partition.high_watermark), (7, 7));
            let nodes = response.nodes.iter().map(|node| {
                (node.node_id, node.listeners[0].host.as_str(), node.listeners[0].port)
            });
            assert!(nodes.eq((version >= NODES_VERSION).then_some((
                voter.replica_id,
                "10.0.0.1",
                9090
            ))));
            let elsewhere = at("[2001:db8::7]:9090", &everyone(), &ask(METADATA_TOPIC, 0));
            assert!(
                elsewhere.nodes.iter().all(|node| node.listeners[0].host == "2001:db8::7"),
                "no host has brackets"
            );
            let observers =
                partition.observers.iter().map(|state| (state.replica_id, state.log_end_offset));
            assert_eq!(
                observers.collect::<Vec<_>>(),
                [(0, -1), (1, 7)],
                "a fenced broker observes nothing"
            );
            for asked in [ask("a", 0), ask(METADATA_TOPIC, 1)] {
                let response = answer(&everyone(), &asked);
                assert_eq!(
                    (response.error_code, response.topics[0].partitions[0].error_code),
                    (0, 3)
                );
            }
            let denied = answer(&nobody(), &ask(METADATA_TOPIC, 0));
            assert_eq!((denied.error_code, denied.topics.len()), (31, 0));
        }
    }
}
