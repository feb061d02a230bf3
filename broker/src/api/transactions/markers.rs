//! WriteTxnMarkers: from coordinators on other brokers.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use weir_protocol::messages::write_txn_markers_response::{WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult};
use weir_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use weir_protocol::types::{ProducerEpoch, ProducerId};

use crate::api::RequestContext;
use crate::auth::{Operation, Resource};
use crate::broker::Broker;
use crate::log::producers::Marker;
use crate::transaction::Partition;
use crate::transaction_io::write_markers;

/// Answers a request.
pub(crate) async fn handle(broker: &Broker, cx: &RequestContext, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse {
    let allowed = broker.authorizer.allows(&cx.principal, Operation::ClusterAction, Resource::Cluster)
        || broker.authorizer.allows(&cx.principal, Operation::Alter, Resource::Cluster);
    let mut response = WriteTxnMarkersResponse::default();
    for asked in request.markers {
        let partitions: Vec<Partition> = asked
            .topics
            .iter()
            .flat_map(|topic| topic.partition_indexes.iter().map(|index| (topic.name.clone(), *index)))
            .collect();
        let said = if allowed {
            write_markers(broker, marker(&asked), partitions).await
        } else {
            let refused = |partition| (partition, ErrorCode::ClusterAuthorizationFailed);
            partitions.into_iter().map(refused).collect()
        };
        response.markers.push(result(asked.producer_id, said));
    }
    response
}

fn marker(asked: &WritableTxnMarker) -> Marker {
    Marker {
        producer: ProducerId(asked.producer_id),
        epoch: ProducerEpoch(asked.producer_epoch),
        coordinator_epoch: asked.coordinator_epoch,
        commit: asked.transaction_result,
        transaction_version: asked.transaction_version,
    }
}

fn result(producer_id: i64, said: Vec<(Partition, ErrorCode)>) -> WritableTxnMarkerResult {
    let mut topics: Vec<WritableTxnMarkerTopicResult> = Vec::new();
    for ((name, partition_index), code) in said {
        let partition = WritableTxnMarkerPartitionResult {
            partition_index,
            error_code: code.code(),
        };
        match topics.last_mut() {
            Some(topic) if topic.name == name => topic.partitions.push(partition),
            _ => topics.push(WritableTxnMarkerTopicResult {
                name,
                partitions: vec![partition],
            }),
        }
    }
    WritableTxnMarkerResult { producer_id, topics }
}
