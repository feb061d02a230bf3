//! The first batch of a transaction in a partition: the leader asks the transaction's coordinator
//! before it appends the batch (KIP-890).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_protocol::batch::BatchHeader;
use weir_protocol::error::ErrorCode;

use super::outcome::{Outcome, Refusal, Topic};
use crate::api::Services;
use crate::replica::{Partition, now_ms};
use crate::transaction::{self, Producer};
use weir_log::producers::Guard;
use weir_log::{LogWriter, Origin, Prepared};

/// The first version whose clients know TRANSACTION_ABORTABLE.
const ABORTABLE_SINCE: i16 = 11;

/// The first version of transactions v2: the coordinator adds the partition to the transaction.
const V2_SINCE: i16 = 12;

/// The pause and the longest time of retries while the previous transaction is being ended
/// (`add.partitions.to.txn.retry.backoff.ms` and `.max.ms` in Apache Kafka: 20 and 100).
const RETRY: Duration = Duration::from_millis(2);
const RETRY_MAX: Duration = Duration::from_millis(100);

/// Whether the coordinator must be asked before these records are appended.
pub(super) fn must_ask(partition: &Partition, prepared: &Prepared) -> bool {
    let is_open = |header: &BatchHeader| {
        partition.log().has_open_transaction(header.producer_id, header.producer_epoch)
    };
    let is_first = |header: &BatchHeader| header.is_transactional() && !is_open(header);
    prepared.headers.first().is_some_and(is_first)
}

/// Asks the coordinator about all waiting records, and queues those whose partition is part of the
/// transaction.
pub(super) async fn ask(services: &Services, version: i16, id: &str, topics: &mut [Topic]) {
    let v2 = version >= V2_SINCE;
    let deadline = Instant::now() + RETRY_MAX;
    let mut asked = collect(topics);
    let Some(from) = asked.first().map(|asked| asked.producer) else { return };
    let said = loop {
        let guards = begin(&mut asked, from, v2).await;
        let partitions: Vec<_> = asked.iter().map(|asked| asked.partition.clone()).collect();
        let said = services.transaction_io.verify_once(id, from, &partitions, v2).await;
        // The previous transaction is being ended. The leader waits here, so that the client need
        // not retry.
        let is_busy = v2 && said.iter().any(|(_, code)| *code == ErrorCode::ConcurrentTransactions);
        // The marker of the previous transaction arrived during the request, so the answer may be
        // outdated. Before transactions v2 the records can only belong to that previous
        // transaction.
        let is_stale = v2 && !is_busy && begin(&mut asked, from, v2).await != guards;
        if Instant::now() >= deadline || !(is_busy || is_stale) {
            break said;
        }
        if is_busy {
            tokio::time::sleep(RETRY).await;
        }
    };
    let said: HashMap<transaction::Partition, ErrorCode> = said.into_iter().collect();
    for PartitionBatch { partition, outcome, .. } in asked {
        let code = said.get(&partition).copied();
        let next = match (
            told(code, version, v2),
            std::mem::replace(outcome, Outcome::Refused(ErrorCode::None.into())),
        ) {
            (ErrorCode::None, Outcome::Asking(asking)) => Outcome::Brought {
                appending: asking
                    .partition
                    .append_with(asking.prepared, asking.room.into_keepsake()),
                log_append_time: asking.log_append_time,
            },
            // Records that `begin` has refused.
            (_, Outcome::Refused(refusal)) => Outcome::Refused(refusal),
            (code, _) => Outcome::Refused(code.into()),
        };
        *outcome = next;
    }
}

/// Waiting records, and the fields of the request about them.
struct PartitionBatch<'t> {
    partition: transaction::Partition,
    producer: Producer,
    sequence: i32,
    outcome: &'t mut Outcome,
}

fn collect(topics: &mut [Topic]) -> Vec<PartitionBatch<'_>> {
    let mut asked = Vec::new();
    for (_, outcome) in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        let Outcome::Asking(asking) = &*outcome else { continue };
        let Some(header) = asking.prepared.headers.first() else { continue };
        asked.push(PartitionBatch {
            partition: (Arc::clone(asking.partition.topic()), asking.partition.id().index),
            producer: Producer { id: header.producer_id, epoch: header.producer_epoch },
            sequence: header.base_sequence,
            outcome,
        });
    }
    asked
}

/// Registers each request with the log of its partition. A marker that arrives meanwhile
/// invalidates it. A registered request stays as it is.
async fn begin(asked: &mut [PartitionBatch<'_>], from: Producer, v2: bool) -> Vec<Option<Guard>> {
    let mut guards = Vec::with_capacity(asked.len());
    for PartitionBatch { producer, sequence, outcome, .. } in asked {
        let Outcome::Asking(asking) = &mut **outcome else {
            guards.push(None);
            continue;
        };
        let refusal: Refusal = if *producer == from {
            let (Producer { id, epoch }, sequence) = (*producer, *sequence);
            let ask = move |writer: &mut LogWriter| {
                writer.ask_to_verify(id, epoch, sequence, v2, now_ms())
            };
            match asking.partition.with_writer(ask).await {
                Ok(Ok(guard)) => {
                    asking.prepared.origin = Origin::Client(guard);
                    guards.push(guard);
                    continue;
                }
                Ok(Err(error)) => error.into(),
                Err(code) => code.into(),
            }
        } else {
            // All batches of a request must have the same producer.
            ErrorCode::InvalidProducerIdMapping.into()
        };
        **outcome = Outcome::Refused(refusal);
        guards.push(None);
    }
    guards
}

/// The error for the client (`AddPartitionsToTxnManager`, `ReplicaManager.handleProduceAppend`).
fn told(code: Option<ErrorCode>, version: i16, v2: bool) -> ErrorCode {
    match code.unwrap_or(ErrorCode::NetworkException) {
        // For this error clients send the records again, without a new search for the leader.
        ErrorCode::NetworkException
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => ErrorCode::NotEnoughReplicas,
        ErrorCode::ConcurrentTransactions if !v2 => ErrorCode::NotEnoughReplicas,
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::TransactionAbortable if version < ABORTABLE_SINCE => ErrorCode::InvalidTxnState,
        code => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_coordinator_says_in_the_clients_words() {
        for (said, version, expected) in [
            (Some(ErrorCode::None), 9, ErrorCode::None),
            (None, 12, ErrorCode::NotEnoughReplicas),
            (Some(ErrorCode::NotCoordinator), 12, ErrorCode::NotEnoughReplicas),
            (Some(ErrorCode::ConcurrentTransactions), 11, ErrorCode::NotEnoughReplicas),
            (Some(ErrorCode::ConcurrentTransactions), 12, ErrorCode::ConcurrentTransactions),
            (Some(ErrorCode::ProducerFenced), 12, ErrorCode::InvalidProducerEpoch),
            (Some(ErrorCode::TransactionAbortable), 10, ErrorCode::InvalidTxnState),
            (Some(ErrorCode::TransactionAbortable), 11, ErrorCode::TransactionAbortable),
        ] {
            assert_eq!(told(said, version, version >= V2_SINCE), expected);
        }
    }
}
