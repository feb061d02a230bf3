//! The abort of a transaction that timed out, and whose end uses up the epochs of its producer. It
//! needs another producer id.
//!
//! The coordinator does not fetch ids. It reports the transactions that need one each time it is
//! asked, so a fetch that the controller does not answer is repeated.

use tracing::{info, warn};

use super::parts::TransactionIo;
use crate::transaction::Request;

/// Fetches an id and aborts the transaction, unless another task is doing so. `partition` is the
/// coordinator's.
pub(super) async fn time_out(io: &TransactionIo, partition: i32, id: String) {
    if !io.markers.timing_out.lock().insert(id.clone()) {
        return;
    }
    match io.controller.producer_id(io.replicas.log_dir()).await {
        Ok(fresh) => {
            info!(
                id,
                producer = fresh.0,
                "a transaction took too long, and its producer goes on under another id"
            );
            let make = |to| Request::TimeOut { id: id.clone(), fresh, to };
            // If the coordinator has moved, the new one finds the timeout itself.
            let _ = io.transactions.ask_partition(partition, make).await;
            io.ended(&id);
        }
        Err(code) => warn!(
            id,
            error = code.name(),
            "a transaction took too long, and waits to be aborted until there is another producer id"
        ),
    }
    io.markers.timing_out.lock().remove(&id);
}
