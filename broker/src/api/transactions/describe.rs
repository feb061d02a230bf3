//! DescribeTransactions, ListTransactions (KIP-664, KIP-994, KIP-1152) and DescribeProducers.

use std::collections::BTreeSet;

use regex::Regex;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use weir_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use weir_protocol::messages::list_transactions_response::TransactionState as Listed;
use weir_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, DescribeTransactionsRequest,
    DescribeTransactionsResponse, ListTransactionsRequest, ListTransactionsResponse,
};
use weir_protocol::types::TopicPartition;

use super::authorize;
use crate::api::RequestContext;
use crate::api::Services;
use crate::api::repeats::{keep_last, once};
use crate::api::topic_name;
use crate::auth::{Operation, Resource};
use crate::replica::now_ms;
use crate::transaction::{Described, Request, State};

/// Answers DescribeTransactions.
pub(crate) async fn describe(
    services: &Services,
    cx: &RequestContext,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let mut response = DescribeTransactionsResponse::default();
    for id in once(request.transactional_ids, String::clone) {
        let state = match describe_one(services, cx, &id).await {
            Ok(described) => told(services, cx, id, described),
            Err(code) => TransactionState {
                error_code: code.code(),
                transactional_id: id,
                ..Default::default()
            },
        };
        response.transaction_states.push(state);
    }
    response
}

async fn describe_one(
    services: &Services,
    cx: &RequestContext,
    id: &str,
) -> Result<Described, ErrorCode> {
    authorize(services, cx, Operation::Describe, id)?;
    if id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let own = id.to_owned();
    let described = services.transactions.ask(id, |to| Request::Describe { id: own, to }).await?;
    described.ok_or(ErrorCode::TransactionalIdNotFound)
}

/// Leaves out topics that the caller may not describe.
fn told(
    services: &Services,
    cx: &RequestContext,
    transactional_id: String,
    described: Described,
) -> TransactionState {
    let mut topics: Vec<TopicData> = Vec::new();
    for (topic, index) in described.partitions {
        if !services.authorizer.allows(&cx.requester, Operation::Describe, Resource::Topic(&topic))
        {
            continue;
        }
        match topics.last_mut() {
            Some(known) if *known.topic == *topic => known.partitions.push(index),
            _ => topics.push(TopicData { topic: topic.to_string(), partitions: vec![index] }),
        }
    }
    TransactionState {
        error_code: 0,
        transactional_id,
        transaction_state: described.state.name().to_owned(),
        transaction_timeout_ms: described.timeout_ms,
        transaction_start_time_ms: described.start_ms,
        producer_id: described.producer.id.0,
        producer_epoch: described.producer.epoch.0,
        topics,
    }
}

/// Answers ListTransactions: the transactions of the coordinators on this broker.
pub(crate) async fn list(
    services: &Services,
    cx: &RequestContext,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let pattern =
        match request.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty()) {
            None => None,
            Some(pattern) => match Regex::new(&format!("^(?:{pattern})$")) {
                Ok(pattern) => Some(pattern),
                Err(_) => {
                    return ListTransactionsResponse {
                        error_code: ErrorCode::InvalidRegularExpression.code(),
                        ..Default::default()
                    };
                }
            },
        };
    let producers: BTreeSet<i64> = request.producer_id_filters.into_iter().collect();
    let is_known = |name: &String| State::ALL.iter().any(|state| state.name() == name);
    let (states, unknown_state_filters): (Vec<String>, Vec<String>) =
        once(request.state_filters, String::clone).into_iter().partition(is_known);
    let mut response = ListTransactionsResponse { unknown_state_filters, ..Default::default() };
    let now = now_ms();
    for partition in services.transactions.partitions() {
        let all =
            match services.transactions.ask_partition(partition, |to| Request::List { to }).await {
                Ok(all) => all,
                Err(ErrorCode::CoordinatorLoadInProgress) => {
                    return ListTransactionsResponse {
                        error_code: ErrorCode::CoordinatorLoadInProgress.code(),
                        ..Default::default()
                    };
                }
                // The partition has just moved; its new coordinator lists its transactions.
                Err(_) => continue,
            };
        let wanted = all.into_iter().filter(|(id, described)| {
            (states.is_empty() && response.unknown_state_filters.is_empty()
                || states.iter().any(|state| described.state.name() == state))
                && (producers.is_empty() || producers.contains(&described.producer.id.0))
                && (request.duration_filter < 0
                    || now.saturating_sub(described.start_ms) > request.duration_filter)
                && pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
                && authorize(services, cx, Operation::Describe, id).is_ok()
        });
        let listed: Vec<Listed> = wanted
            .map(|(id, described)| Listed {
                transactional_id: id,
                producer_id: described.producer.id.0,
                transaction_state: described.state.name().to_owned(),
            })
            .collect();
        response.transaction_states.extend(listed);
    }
    response
}

/// Answers DescribeProducers.
pub(crate) async fn producers(
    services: &Services,
    cx: &RequestContext,
    mut request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    keep_last(
        &mut request.topics,
        |topic| topic.name.clone(),
        |topic| &mut topic.partition_indexes,
        |index| *index,
    );
    let mut response = DescribeProducersResponse::default();
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            partitions.push(match producers_of(services, cx, &topic.name, index).await {
                Ok(active_producers) => PartitionResponse {
                    partition_index: index,
                    active_producers,
                    ..Default::default()
                },
                Err(code) => PartitionResponse {
                    partition_index: index,
                    error_code: code.code(),
                    error_message: Some(code.message().to_owned()),
                    ..Default::default()
                },
            });
        }
        response.topics.push(TopicResponse { name: topic.name, partitions });
    }
    response
}

async fn producers_of(
    services: &Services,
    cx: &RequestContext,
    name: &str,
    index: i32,
) -> Result<Vec<ProducerState>, ErrorCode> {
    topic_name::check(name).map_err(|_| ErrorCode::InvalidTopicException)?;
    if !services.authorizer.allows(&cx.requester, Operation::Read, Resource::Topic(name)) {
        return Err(ErrorCode::TopicAuthorizationFailed);
    }
    let id = {
        let image = services.metadata.load();
        let topic = image.topic_by_name(name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        TopicPartition { topic: topic.id, index }
    };
    // Followers answer, too: `kafka-transactions find-hanging --broker-id` asks a broker about all
    // its replicas.
    let partition = services.replicas.get(id).ok_or(ErrorCode::NotLeaderOrFollower)?;
    let described = partition.with_writer(|writer| writer.described_producers(now_ms())).await?;
    let described = described.map_err(|_| ErrorCode::KafkaStorageError)?;
    let told = described.into_iter().map(|producer| ProducerState {
        producer_id: producer.id.0,
        producer_epoch: i32::from(producer.epoch.0),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.transaction_first_offset,
    });
    Ok(told.collect())
}
