//! AlterPartitions: sends the ISRs that leaders on this broker propose, in batches, one request at
//! a time.
//!
//! The partitions decide what to propose. Each one gets its answer, or an error if there was none,
//! and proposes again by itself.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;
use weir_protocol::controller as rpc;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerId, LeaderEpoch, PartitionEpoch};

use super::Controller;
use crate::metadata::Metadata;
use crate::replica::core::{PartitionState, Proposal};
use crate::replica::{Partition, Replicas};

/// How long the controller may take to commit. After that, it is unknown whether it has.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The most changes in one request.
const CHANGES_MAX: usize = 10_000;

/// Sends proposals to the controller, forever.
pub(crate) async fn keep_proposing(
    controller: &Controller,
    metadata: &Metadata,
    replicas: &Replicas,
) {
    loop {
        let waiting = replicas.shared().proposals().await;
        for batch in waiting.chunks(CHANGES_MAX) {
            if replicas.log_dir().keeps_nothing_more() {
                // The broker is stopping and leads nothing any more.
                continue;
            }
            let answers = ask(controller, metadata, batch).await;
            for ((partition, proposal), answer) in batch.iter().zip(answers) {
                partition.proposal_answered(proposal, answer);
            }
        }
    }
}

async fn ask(
    controller: &Controller,
    metadata: &Metadata,
    batch: &[(Arc<Partition>, Proposal)],
) -> Vec<Result<PartitionState, ErrorCode>> {
    let all = |code: ErrorCode| vec![Err(code); batch.len()];
    let Ok(broker_epoch) = controller.broker_epoch() else {
        return all(ErrorCode::NotController);
    };
    let request = rpc::AlterPartitionsRequest {
        broker_id: controller.broker_id,
        broker_epoch,
        changes: batch.iter().map(|(partition, proposal)| change(partition, proposal)).collect(),
    };
    let mut client = controller.client();
    let response = match tokio::time::timeout(ANSWER_MAX, client.alter_partitions(request)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            debug!(%status, "the controller did not answer a change of ISRs");
            return all(ErrorCode::NetworkException);
        }
        Err(_) => return all(ErrorCode::RequestTimedOut),
    };
    match code(response.error_code) {
        ErrorCode::None => {}
        code => return all(code),
    }
    // A leader must not use an ISR under older settings than the controller did. With a smaller
    // `min.insync.replicas` it would commit without a member that the controller has just made
    // eligible. The metadata follows right after the commit.
    let known = metadata.wait_for(response.metadata_version);
    if tokio::time::timeout(ANSWER_MAX, known).await.is_err() {
        debug!(
            version = response.metadata_version,
            "the metadata of a change of ISRs does not come; asking again"
        );
        return all(ErrorCode::RequestTimedOut);
    }
    let result = |changed: rpc::IsrChanged| match (code(changed.error_code), changed.state) {
        (ErrorCode::None, Some(state)) => Ok(committed(&state)),
        (ErrorCode::None, None) => Err(ErrorCode::UnknownServerError),
        (code, _) => {
            debug!(
                partition = changed.partition,
                error = code.name(),
                "the controller refuses a change of an ISR"
            );
            Err(code)
        }
    };
    let mut results: Vec<_> = response.results.into_iter().map(result).collect();
    results.resize(batch.len(), Err(ErrorCode::UnknownServerError));
    results
}

fn change(partition: &Partition, proposal: &Proposal) -> rpc::IsrChange {
    let id = partition.id();
    rpc::IsrChange {
        topic_id: id.topic.0.as_bytes().to_vec(),
        partition: id.index,
        leader_epoch: proposal.base.leader_epoch.0,
        partition_epoch: proposal.base.partition_epoch.0,
        isr: proposal
            .isr
            .iter()
            .map(|(id, epoch)| rpc::IsrMember { broker_id: id.0, broker_epoch: epoch.0 })
            .collect(),
        recovered: proposal.recovered,
    }
}

fn committed(state: &rpc::Partition) -> PartitionState {
    let brokers = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect();
    PartitionState {
        replicas: brokers(&state.replicas),
        isr: brokers(&state.isr),
        leader_epoch: LeaderEpoch(state.leader_epoch),
        partition_epoch: PartitionEpoch(state.partition_epoch),
        recovering: state.recovering,
        has_eligible: !state.elr.is_empty(),
    }
}

fn code(code: i32) -> ErrorCode {
    i16::try_from(code).map_or(ErrorCode::UnknownServerError, ErrorCode::from_code)
}
