//! AddPartitionsToTxn, from clients and from brokers that verify, and AddOffsetsToTxn.

use std::sync::Arc;

use indexmap::IndexMap;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use weir_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use weir_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
};

use super::{authorize, fenced_as, offsets_partition, producer};
use crate::api::Services;
use crate::api::{RequestContext, groups};
use crate::auth::{Operation, Resource};
use crate::metadata::{MetadataImage, TopicImage};
use crate::transaction::{Partition, Producer};

/// The first version for other brokers, with several transactions.
const BROKERS_SINCE: i16 = 4;

/// The first version that knows PRODUCER_FENCED.
const FENCED_SINCE: i16 = 2;

/// The first version that knows TRANSACTION_ABORTABLE.
const ABORTABLE_SINCE: i16 = 5;

/// Answers AddPartitionsToTxn.
pub(crate) async fn add_partitions(
    services: &Services,
    cx: &RequestContext,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    if cx.version < BROKERS_SINCE {
        let from = producer(request.v3_and_below_producer_id, request.v3_and_below_producer_epoch);
        let results = add(
            services,
            cx,
            &request.v3_and_below_transactional_id,
            from,
            request.v3_and_below_topics,
            false,
        )
        .await;
        return AddPartitionsToTxnResponse {
            results_by_topic_v3_and_below: results,
            ..Default::default()
        };
    }
    if !services.authorizer.allows(&cx.requester, Operation::ClusterAction, Resource::Cluster) {
        return AddPartitionsToTxnResponse {
            error_code: ErrorCode::ClusterAuthorizationFailed.code(),
            ..Default::default()
        };
    }
    let mut response = AddPartitionsToTxnResponse::default();
    for transaction in request.transactions {
        let from = producer(transaction.producer_id, transaction.producer_epoch);
        let id = transaction.transactional_id;
        let topic_results =
            add(services, cx, &id, from, transaction.topics, transaction.verify_only).await;
        response
            .results_by_transaction
            .push(AddPartitionsToTxnResult { transactional_id: id, topic_results });
    }
    response
}

async fn add(
    services: &Services,
    cx: &RequestContext,
    id: &str,
    from: Producer,
    topics: Vec<AddPartitionsToTxnTopic>,
    verify_only: bool,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let mut partitions: Vec<Partition> = Vec::new();
    let mut refused: Vec<Option<ErrorCode>> = Vec::new();
    {
        let image = services.metadata.load();
        let by_client = cx.version < BROKERS_SINCE;
        let may = match by_client {
            true => authorize(services, cx, Operation::Write, id),
            false => Ok(()),
        };
        for topic in topics {
            let name: Arc<str> = topic.name.into();
            let found = may.and_then(|()| find(services, cx, &image, &name, by_client));
            for index in topic.partitions {
                let known = found.and_then(|topic| {
                    topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)
                });
                refused.push(known.err());
                partitions.push((Arc::clone(&name), index));
            }
        }
    }
    if refused.iter().any(Option::is_some) {
        let codes =
            refused.into_iter().map(|code| code.unwrap_or(ErrorCode::OperationNotAttempted));
        return results(partitions.into_iter().zip(codes));
    }
    let version = if cx.version >= BROKERS_SINCE { 2 } else { 0 };
    let said = match id.is_empty() {
        true => Err(ErrorCode::InvalidRequest),
        false => {
            services
                .transaction_io
                .verify_here(id, from, &partitions, (!verify_only).then_some(version))
                .await
        }
    };
    let said = said
        .unwrap_or_else(|code| partitions.into_iter().map(|partition| (partition, code)).collect());
    results(said.into_iter().map(|(partition, code)| (partition, told(code, cx.version))))
}

fn told(code: ErrorCode, version: i16) -> ErrorCode {
    match code {
        // Older brokers send version 4.
        ErrorCode::TransactionAbortable if version < ABORTABLE_SINCE => ErrorCode::InvalidTxnState,
        code => fenced_as(code, version, FENCED_SINCE),
    }
}

/// The topic, if the caller may write to it.
fn find<'a>(
    services: &Services,
    cx: &RequestContext,
    image: &'a MetadataImage,
    topic: &str,
    by_client: bool,
) -> Result<&'a TopicImage, ErrorCode> {
    let found = image.topic_by_name(topic);
    let is_internal = found.is_some_and(|topic| topic.internal);
    if by_client
        && (is_internal
            || !services.authorizer.allows(&cx.requester, Operation::Write, Resource::Topic(topic)))
    {
        return Err(ErrorCode::TopicAuthorizationFailed);
    }
    found.map(|topic| &**topic).ok_or(ErrorCode::UnknownTopicOrPartition)
}

fn results(
    said: impl Iterator<Item = (Partition, ErrorCode)>,
) -> Vec<AddPartitionsToTxnTopicResult> {
    // Indexed by name: a request may name half a million topics.
    let mut topics: IndexMap<Arc<str>, Vec<AddPartitionsToTxnPartitionResult>> = IndexMap::new();
    // A name may be long, and most partitions have the same topic as the one before.
    let mut last: Option<(Arc<str>, usize)> = None;
    for ((name, partition_index), code) in said {
        let at = match &last {
            Some((same, at)) if Arc::ptr_eq(same, &name) => *at,
            _ => {
                let entry = topics.entry(Arc::clone(&name));
                let at = entry.index();
                entry.or_default();
                at
            }
        };
        if let Some((_, results)) = topics.get_index_mut(at) {
            results.push(AddPartitionsToTxnPartitionResult {
                partition_index,
                partition_error_code: code.code(),
            });
        }
        last = Some((name, at));
    }
    let topics = topics.into_iter().map(|(name, results_by_partition)| {
        AddPartitionsToTxnTopicResult { name: name.to_string(), results_by_partition }
    });
    topics.collect()
}

/// Answers AddOffsetsToTxn: adds the partition of `__consumer_offsets` that keeps the group's
/// offsets to the transaction.
pub(crate) async fn add_offsets(
    services: &Services,
    cx: &RequestContext,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let result = add_group(services, cx, &request).await;
    AddOffsetsToTxnResponse {
        error_code: fenced_as(result.err().unwrap_or(ErrorCode::None), cx.version, FENCED_SINCE)
            .code(),
        ..Default::default()
    }
}

async fn add_group(
    services: &Services,
    cx: &RequestContext,
    request: &AddOffsetsToTxnRequest,
) -> Result<(), ErrorCode> {
    let id = &request.transactional_id;
    authorize(services, cx, Operation::Write, id)?;
    groups::authorize(services, cx, Operation::Read, &request.group_id)?;
    let partition = offsets_partition(services, &request.group_id)?;
    if id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let from = producer(request.producer_id, request.producer_epoch);
    let said = services.transaction_io.verify_here(id, from, &[partition], Some(0)).await?;
    match said.first() {
        Some((_, ErrorCode::None)) => Ok(()),
        Some((_, code)) => Err(*code),
        None => Err(ErrorCode::UnknownServerError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A linear search for each topic would take minutes.
    #[test]
    fn what_is_said_of_partitions_is_said_topic_by_topic() {
        let said = |index: usize| {
            (
                (format!("t{}", index / 2).into(), i32::from(index % 2 == 1)),
                ErrorCode::OperationNotAttempted,
            )
        };
        let mut topics = results((0..400_000).map(said).chain([said(0)]));
        assert_eq!(topics.len(), 200_000);
        assert_eq!(
            (topics[7].name.as_str(), topics[7].results_by_partition.len()),
            ("t7", 2),
            "in the order of the request"
        );
        assert_eq!(topics.swap_remove(0).results_by_partition.len(), 3);
    }
}
