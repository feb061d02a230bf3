//! WriteTxnMarkers: markers from coordinators on other brokers.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use weir_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use weir_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use weir_protocol::types::{ProducerEpoch, ProducerId};

use crate::api::RequestContext;
use crate::api::Services;
use crate::api::repeats::once;
use crate::auth::{Authorizer, Operation, Resource};
use crate::transaction::Partition;
use weir_log::producers::Marker;

/// How many markers of one request are written at a time.
const MARKERS_AT_ONCE: usize = 100;

/// Answers a request.
pub(crate) async fn handle(
    services: &Services,
    cx: &RequestContext,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    // They begin in the order of the request, and wait for their replicas together.
    let written = stream::iter(request.markers).map(async |asked| {
        if !may_write(&services.authorizer, cx, asked.transaction_result) {
            return refused(&asked);
        }
        let said = services.transaction_io.write_markers(marker(&asked), partitions(&asked)).await;
        result(asked.producer_id, said)
    });
    let markers = written.buffered(MARKERS_AT_ONCE).collect().await;
    WriteTxnMarkersResponse { markers, ..Default::default() }
}

/// Brokers may write markers. Administrators may abort: `kafka-transactions` ends hanging
/// transactions so. Kafka lets them commit as well; but then records that a producer has given up
/// become committed, and no tool asks for it.
fn may_write(authorizer: &Authorizer, cx: &RequestContext, is_commit: bool) -> bool {
    let may = |operation| authorizer.allows(&cx.requester, operation, Resource::Cluster);
    may(Operation::ClusterAction) || (!is_commit && may(Operation::Alter))
}

fn refused(asked: &WritableTxnMarker) -> WritableTxnMarkerResult {
    let code = ErrorCode::ClusterAuthorizationFailed;
    let partitions = partitions(asked).into_iter().map(|partition| (partition, code));
    result(asked.producer_id, partitions.collect())
}

/// The named partitions, each once: Apache Kafka puts them into a map.
fn partitions(asked: &WritableTxnMarker) -> Vec<Partition> {
    let of_topic = |topic: &WritableTxnMarkerTopic| {
        let name: Arc<str> = topic.name.as_str().into();
        topic.partition_indexes.clone().into_iter().map(move |index| (Arc::clone(&name), index))
    };
    once(asked.topics.iter().flat_map(of_topic).collect(), Partition::clone)
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
    let mut last: Option<Arc<str>> = None;
    for ((name, partition_index), code) in said {
        let partition =
            WritableTxnMarkerPartitionResult { partition_index, error_code: code.code() };
        match topics.last_mut() {
            Some(topic) if last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &name)) => {
                topic.partitions.push(partition)
            }
            _ => topics.push(WritableTxnMarkerTopicResult {
                name: name.to_string(),
                partitions: vec![partition],
            }),
        }
        last = Some(name);
    }
    WritableTxnMarkerResult { producer_id, topics }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fixtures;

    #[test]
    fn who_is_neither_broker_nor_administrator_writes_none() {
        let may = |authorizer: &Authorizer| {
            [false, true].map(|is_commit| may_write(authorizer, &fixtures::request(2), is_commit))
        };
        assert_eq!(may(&fixtures::everyone()), [true, true], "without certificates");
        assert_eq!(may(&fixtures::certified()), [true, false], "clients abort, brokers commit");
        assert_eq!(may(&fixtures::nobody()), [false, false]);
        let topic = |name: &str, indexes: &[i32]| WritableTxnMarkerTopic {
            name: name.to_owned(),
            partition_indexes: indexes.to_vec(),
        };
        let asked = WritableTxnMarker {
            producer_id: 7,
            topics: vec![topic("a", &[0, 2, 0]), topic("b", &[1]), topic("a", &[2])],
            ..Default::default()
        };
        let refused = refused(&asked);
        let told = refused.topics.iter().flat_map(|topic| {
            let name = topic.name.as_str();
            topic
                .partitions
                .iter()
                .map(move |partition| (name, partition.partition_index, partition.error_code))
        });
        let code = ErrorCode::ClusterAuthorizationFailed.code();
        assert_eq!(told.collect::<Vec<_>>(), [("a", 0, code), ("a", 2, code), ("b", 1, code)]);
        assert_eq!(refused.producer_id, 7);
    }
}
