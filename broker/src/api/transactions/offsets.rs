//! TxnOffsetCommit: offsets of a group that take effect when the transaction commits (KIP-447).

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use weir_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use weir_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::{authorize, offsets_partition, producer};
use crate::api::Services;
use crate::api::groups::{merge, take_refused};
use crate::api::{RequestContext, groups};
use crate::auth::Operation;
use crate::coordinator::InTransaction;
use crate::group::{self, refuse_commit};
use crate::transaction::Producer;

/// The first version of transactions v2, and the first with topic ids.
const V2_SINCE: i16 = 5;
const TOPIC_ID_SINCE: i16 = 6;

/// The first version whose clients handle COORDINATOR_LOAD_IN_PROGRESS.
const LOADING_SINCE: i16 = 2;

/// The most attempts. Up to two transactions may end in between: the previous one and its own.
const ATTEMPTS: usize = 4;

/// Answers a request.
pub(crate) async fn handle(
    services: &Services,
    cx: &RequestContext,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let (id, from) =
        (request.transactional_id.clone(), producer(request.producer_id, request.producer_epoch));
    let mut commit = as_commit(request);
    if let Err(code) = check(services, cx, &id, &commit) {
        return told(refuse_commit(&commit.topics, code));
    }
    let response = take_refused(services, cx, &mut commit.topics, TOPIC_ID_SINCE);
    if commit.topics.is_empty() {
        return told(response);
    }
    let topics = commit.topics.clone();
    let answered = match ask_coordinators(services, cx, &id, from, commit).await {
        Ok(answered) => answered,
        // Producers before 2.0 do not know COORDINATOR_LOAD_IN_PROGRESS (KAFKA-7296).
        Err(ErrorCode::CoordinatorLoadInProgress) if cx.version < LOADING_SINCE => {
            refuse_commit(&topics, ErrorCode::CoordinatorNotAvailable)
        }
        Err(code) => refuse_commit(&topics, code),
    };
    told(merge(response, answered))
}

/// Asks the transaction's coordinator whether the group's offsets are part of the transaction, and
/// then the group to take them. The group's coordinator registered a guard before, so it refuses
/// the commit if the transaction has ended in between.
async fn ask_coordinators(
    services: &Services,
    cx: &RequestContext,
    id: &str,
    from: Producer,
    commit: OffsetCommitRequest,
) -> Result<OffsetCommitResponse, ErrorCode> {
    let group = commit.group_id.clone();
    let producer = (from.id, from.epoch);
    for _ in 0..ATTEMPTS {
        let guard = services.groups.ask_to_verify(&group, producer).await?;
        if guard.is_some() {
            verify_offsets(services, cx, id, from, &group).await?;
        }
        let request = commit.clone();
        let make = |to| group::Request::CommitInTransaction { request, producer, to };
        let write = InTransaction { producer, guard };
        let answer = services.groups.ask_in_transaction(&group, write, make).await;
        // The marker of the previous transaction arrived during the request, so it is repeated.
        // Before transactions v2 the commit belongs to that previous transaction: the next one
        // cannot begin before the markers are written. There the epoch stays the same, and would
        // not keep the commit out of the next transaction.
        if !matches!(answer, Err(ErrorCode::InvalidTxnState)) || cx.version < V2_SINCE {
            return answer;
        }
    }
    Err(ErrorCode::InvalidTxnState)
}

async fn verify_offsets(
    services: &Services,
    cx: &RequestContext,
    id: &str,
    from: Producer,
    group: &str,
) -> Result<(), ErrorCode> {
    let partition = offsets_partition(services, group)?;
    let said = services.transaction_io.verify(id, from, &[partition], cx.version >= V2_SINCE).await;
    match said.first().map_or(ErrorCode::CoordinatorNotAvailable, |(_, code)| *code) {
        ErrorCode::None => Ok(()),
        // Clients retry on this error, without a new search for the group coordinator.
        ErrorCode::NetworkException
        | ErrorCode::NotCoordinator
        | ErrorCode::CoordinatorNotAvailable => Err(ErrorCode::CoordinatorLoadInProgress),
        ErrorCode::TransactionAbortable if cx.version < V2_SINCE - 1 => {
            Err(ErrorCode::InvalidTxnState)
        }
        ErrorCode::ConcurrentTransactions if cx.version < V2_SINCE => {
            Err(ErrorCode::CoordinatorLoadInProgress)
        }
        // The producer expects this error if it is fenced (`AddPartitionsToTxnManager` in Apache
        // Kafka).
        ErrorCode::ProducerFenced => Err(ErrorCode::InvalidProducerEpoch),
        code => Err(code),
    }
}

fn check(
    services: &Services,
    cx: &RequestContext,
    id: &str,
    commit: &OffsetCommitRequest,
) -> Result<(), ErrorCode> {
    authorize(services, cx, Operation::Write, id)?;
    groups::authorize_member(services, cx, &commit.group_id)
}

fn as_commit(request: TxnOffsetCommitRequest) -> OffsetCommitRequest {
    let topics = request.topics.into_iter().map(|topic| OffsetCommitRequestTopic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| OffsetCommitRequestPartition {
                partition_index: partition.partition_index,
                committed_offset: partition.committed_offset,
                committed_leader_epoch: partition.committed_leader_epoch,
                committed_metadata: partition.committed_metadata,
            })
            .collect(),
    });
    OffsetCommitRequest {
        topics: topics.collect(),
        group_id: request.group_id,
        generation_id_or_member_epoch: request.generation_id_or_member_epoch,
        member_id: request.member_id,
        group_instance_id: request.group_instance_id,
        ..Default::default()
    }
}

fn told(response: OffsetCommitResponse) -> TxnOffsetCommitResponse {
    let topics = response.topics.into_iter().map(|topic| TxnOffsetCommitResponseTopic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| TxnOffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: partition.error_code,
            })
            .collect(),
    });
    TxnOffsetCommitResponse { topics: topics.collect(), ..Default::default() }
}
