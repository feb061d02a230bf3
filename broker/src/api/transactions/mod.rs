//! The APIs of transactions: checks permissions, asks the coordinator, and builds the response of
//! each version. `transaction` decides what becomes of a transaction.

mod add;
mod describe;
mod end;
mod init;
mod markers;
mod offsets;

pub(crate) use self::add::{add_offsets, add_partitions};
pub(crate) use self::describe::{describe, list, producers};
pub(crate) use self::end::handle as end;
pub(crate) use self::init::init;
pub(crate) use self::markers::handle as write_markers;
pub(crate) use self::offsets::handle as commit_offsets;

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::RequestContext;
use crate::api::Services;
use crate::auth::{Operation, Resource};
use crate::coordinator::{ReplyTo, StateMachine, partition_in};
use crate::group::Groups;
use crate::transaction::{Partition, Producer, Refusal, Request};

/// Checks that the caller may do `operation` to the transactional id.
///
/// # Errors
/// TRANSACTIONAL_ID_AUTHORIZATION_FAILED.
fn authorize(
    services: &Services,
    cx: &RequestContext,
    operation: Operation,
    id: &str,
) -> Result<(), ErrorCode> {
    if services.authorizer.allows(&cx.requester, operation, Resource::TransactionalId(id)) {
        Ok(())
    } else {
        Err(ErrorCode::TransactionalIdAuthorizationFailed)
    }
}

fn producer(id: i64, epoch: i16) -> Producer {
    Producer { id: ProducerId(id), epoch: ProducerEpoch(epoch) }
}

/// The partition of `__consumer_offsets` that keeps a group's offsets.
///
/// # Errors
/// COORDINATOR_NOT_AVAILABLE before the topic exists.
fn offsets_partition(services: &Services, group: &str) -> Result<Partition, ErrorCode> {
    let partition = partition_in(&services.metadata.load(), Groups::TOPIC, group)
        .ok_or(ErrorCode::CoordinatorNotAvailable)?;
    Ok((Groups::TOPIC.into(), partition))
}

/// Sends the coordinator a request that may need an unused producer id. If it does, fetches one and
/// repeats the request with it.
///
/// # Errors
/// The error for the client.
async fn ask_with_fresh_id(
    services: &Services,
    id: &str,
    make: impl Fn(Option<ProducerId>, ReplyTo<Result<Producer, Refusal>>) -> Request,
) -> Result<Producer, ErrorCode> {
    let mut fresh = None;
    loop {
        match services.transactions.ask(id, |to| make(fresh, to)).await? {
            Ok(producer) => return Ok(producer),
            Err(Refusal::Error(code)) => return Err(code),
            Err(Refusal::NeedsProducerId) if fresh.is_none() => {
                fresh = Some(services.controller.producer_id(services.replicas.log_dir()).await?)
            }
            Err(Refusal::NeedsProducerId) => return Err(ErrorCode::CoordinatorNotAvailable),
        }
    }
}

/// The error that old clients know in place of PRODUCER_FENCED (KIP-588).
fn fenced_as(code: ErrorCode, version: i16, since: i16) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced if version < since => ErrorCode::InvalidProducerEpoch,
        code => code,
    }
}
