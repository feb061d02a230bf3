//! Verification that partitions are part of an open transaction (KIP-890). The leader asks the
//! transaction's coordinator, which with transactions v2 also adds them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::AddPartitionsToTxnRequest;
use weir_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};

use super::parts::TransactionIo;
use super::peers::{by_topic, failed};
use crate::coordinator::{StateMachine, coordinator_of};
use crate::transaction::{Partition, Producer, Request, Transactions};

/// The protocol version between brokers of this build.
const VERSION: i16 = 5;

/// The pause and the longest time of retries while the previous transaction is being ended. They
/// spare the client a retry (`add.partitions.to.txn.retry.backoff.ms` and `.max.ms` in Apache
/// Kafka: 20 and 100).
const RETRY: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_millis(100);

impl TransactionIo {
    /// Asks the coordinator of `id` about the partitions. With `add` it adds them to the
    /// transaction, and begins one if none is open. Returns the code of each partition.
    pub(crate) async fn verify(
        &self,
        id: &str,
        from: Producer,
        partitions: &[Partition],
        add: bool,
    ) -> Vec<(Partition, ErrorCode)> {
        let deadline = Instant::now() + RETRY_MAX;
        loop {
            let said = self.verify_once(id, from, partitions, add).await;
            let is_busy = said.iter().any(|(_, code)| *code == ErrorCode::ConcurrentTransactions);
            if !add || !is_busy || Instant::now() >= deadline {
                return said;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn ask(
        &self,
        id: &str,
        from: Producer,
        partitions: &[Partition],
        add: bool,
    ) -> Result<Vec<(Partition, ErrorCode)>, ErrorCode> {
        let coordinator = coordinator_of(&self.metadata.load(), Transactions::TOPIC, id)
            .ok_or(ErrorCode::CoordinatorNotAvailable)?;
        if coordinator == self.id {
            return self.verify_here(id, from, partitions, add.then_some(2)).await;
        }
        let topics = by_topic(partitions)
            .map(|(name, partitions)| AddPartitionsToTxnTopic { name, partitions });
        let request = AddPartitionsToTxnRequest {
            transactions: vec![AddPartitionsToTxnTransaction {
                transactional_id: id.to_owned(),
                producer_id: from.id.0,
                producer_epoch: from.epoch.0,
                verify_only: !add,
                topics: topics.collect(),
            }],
            ..Default::default()
        };
        let response = self
            .peers
            .call(coordinator, VERSION, &request)
            .await
            .map_err(|error| failed(coordinator, &error))?;
        if response.error_code != 0 {
            return Err(ErrorCode::from_code(response.error_code));
        }
        let results =
            response.results_by_transaction.into_iter().flat_map(|result| result.topic_results);
        let results = results.flat_map(|topic| {
            let name: Arc<str> = topic.name.into();
            topic.results_by_partition.into_iter().map(move |partition| {
                let code = ErrorCode::from_code(partition.partition_error_code);
                ((Arc::clone(&name), partition.partition_index), code)
            })
        });
        Ok(results.collect())
    }

    /// Like [`TransactionIo::verify`], without retries.
    pub(crate) async fn verify_once(
        &self,
        id: &str,
        from: Producer,
        partitions: &[Partition],
        add: bool,
    ) -> Vec<(Partition, ErrorCode)> {
        match self.ask(id, from, partitions, add).await {
            Ok(said) => said,
            Err(code) => partitions.iter().map(|partition| (partition.clone(), code)).collect(),
        }
    }

    /// Like [`TransactionIo::verify`], with the coordinator on this broker. With `add` it adds the
    /// partitions to the transaction, for a client of this transaction version.
    ///
    /// # Errors
    /// The error that holds for all partitions.
    pub(crate) async fn verify_here(
        &self,
        id: &str,
        from: Producer,
        partitions: &[Partition],
        add: Option<i16>,
    ) -> Result<Vec<(Partition, ErrorCode)>, ErrorCode> {
        let (own, wanted) = (id.to_owned(), partitions.to_vec());
        let Some(version) = add else {
            let make = |to| Request::Verify { id: own, from, partitions: wanted, to };
            return self.transactions.ask(id, make).await?;
        };
        let make = |to| Request::Add { id: own, from, partitions: wanted, version, to };
        let code = self.transactions.ask(id, make).await?;
        Ok(partitions.iter().map(|partition| (partition.clone(), code)).collect())
    }
}
