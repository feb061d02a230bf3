//! TxnOffsetCommit: offsets that a group has committed once the transaction is (KIP-447).

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use weir_protocol::messages::txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic};
use weir_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::{authorize, producer};
use crate::api::RequestContext;
use crate::api::groups::take_refused;
use crate::auth::{Operation, Resource};
use crate::broker::Broker;
use crate::coordinator::{Machine, partition_of};
use crate::group::{self, Groups, refuse_commit};
use crate::transaction_io::verify;

/// The first version of transactions v2, and the first with topic ids.
const V2_SINCE: i16 = 5;
const TOPIC_ID_SINCE: i16 = 6;

/// Answers a request.
pub(crate) async fn handle(broker: &Broker, cx: &RequestContext, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let (id, from) = (request.transactional_id.clone(), producer(request.producer_id, request.producer_epoch));
    let mut commit = as_commit(request);
    if let Err(code) = check(broker, cx, &id, &commit) {
        return told(refuse_commit(&commit.topics, code));
    }
    let mut response = take_refused(broker, cx, &mut commit.topics, TOPIC_ID_SINCE);
    if commit.topics.is_empty() {
        return told(response);
    }
    let topics = commit.topics.clone();
    let answered = match ask_coordinators(broker, cx, &id, from, commit).await {
        Ok(answered) => answered,
        Err(code) => refuse_commit(&topics, code),
    };
    response.topics.extend(answered.topics);
    told(response)
}

/// The transaction is asked first whether the group's offsets are part of it, then the group whether it takes them.
async fn ask_coordinators(
    broker: &Broker,
    cx: &RequestContext,
    id: &str,
    from: crate::transaction::Producer,
    commit: OffsetCommitRequest,
) -> Result<OffsetCommitResponse, ErrorCode> {
    let count = broker
        .metadata
        .load()
        .topic_by_name(Groups::TOPIC)
        .map_or(0, |topic| topic.partitions.len());
    if count == 0 {
        return Err(ErrorCode::CoordinatorNotAvailable);
    }
    let partition = (Groups::TOPIC.to_owned(), partition_of(&commit.group_id, count));
    let said = verify(broker, id, from, &[partition], cx.version >= V2_SINCE).await;
    match said.first().map_or(ErrorCode::CoordinatorNotAvailable, |(_, code)| *code) {
        ErrorCode::None => {}
        // What clients try again over: it is the transaction's coordinator that is looked for.
        ErrorCode::NetworkException | ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable => {
            return Err(ErrorCode::CoordinatorLoadInProgress);
        }
        ErrorCode::TransactionAbortable if cx.version < V2_SINCE - 1 => return Err(ErrorCode::InvalidTxnState),
        ErrorCode::ConcurrentTransactions if cx.version < V2_SINCE => return Err(ErrorCode::CoordinatorLoadInProgress),
        code => return Err(code),
    }
    let group = commit.group_id.clone();
    let make = |to| group::Request::CommitInTransaction {
        request: commit,
        producer: (from.id, from.epoch),
        to,
    };
    broker.groups.ask(broker, &group, make).await
}

fn check(broker: &Broker, cx: &RequestContext, id: &str, commit: &OffsetCommitRequest) -> Result<(), ErrorCode> {
    authorize(broker, cx, Operation::Write, id)?;
    if !broker
        .authorizer
        .allows(&cx.principal, Operation::Read, Resource::Group(&commit.group_id))
    {
        return Err(ErrorCode::GroupAuthorizationFailed);
    }
    if commit.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    Ok(())
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
    TxnOffsetCommitResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}
