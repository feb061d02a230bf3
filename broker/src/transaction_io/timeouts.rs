//! A transaction that took too long and whose end uses up the epochs of its producer: it is aborted
//! once there is a producer id to go on with.
//!
//! The coordinator does not fetch ids, so it says which transactions wait for one each time that it
//! is looked at, and it is asked again for as long as the controller does not answer.

use tracing::{info, warn};

use super::parts::TransactionIo;
use crate::transaction::Request;

/// Fetches an id and has the transaction aborted, unless somebody is at it. `partition` is the
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
            // Whoever coordinates it now finds that it took too long.
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
