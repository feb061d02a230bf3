//! The APIs of transactions: who may, which coordinator is asked, and what its answer looks like in
//! each version. What becomes of a transaction is `transaction`'s to decide.

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
use crate::coordinator::{Machine, ReplyTo, partition_in};
use crate::group::Groups;
use crate::transaction::{Partition, Producer, Refusal, Request};

/// Whether the caller may do this with the transactional id.
///
/// # Errors
/// TRANSACTIONAL_ID_AUTHORIZATION_FAILED.
fn authorize(
    services: &Services,
    cx: &RequestContext,
    operation: Operation,
    id: &str,
) -> Result<(), ErrorCode> {
    if services.authorizer.allows(&cx.principal, operation, Resource::TransactionalId(id)) {
        Ok(())
    } else {
        Err(ErrorCode::TransactionalIdAuthorizationFailed)
    }
}

fn producer(id: i64, epoch: i16) -> Producer {
    Producer { id: ProducerId(id), epoch: ProducerEpoch(epoch) }
}

/// The partition in which a group's offsets are kept.
///
/// # Errors
/// COORDINATOR_NOT_AVAILABLE before there is one.
fn offsets_partition(services: &Services, group: &str) -> Result<Partition, ErrorCode> {
    let partition = partition_in(&services.metadata.load(), Groups::TOPIC, group)
        .ok_or(ErrorCode::CoordinatorNotAvailable)?;
    Ok((Groups::TOPIC.into(), partition))
}

/// Asks the coordinator for something for which it may need a producer id that nobody has: then it
/// is fetched, and asked again.
///
/// # Errors
/// What the client is told.
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

/// What clients of old versions understand in place of PRODUCER_FENCED (KIP-588).
fn fenced_as(code: ErrorCode, version: i16, since: i16) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced if version < since => ErrorCode::InvalidProducerEpoch,
        code => code,
    }
}
