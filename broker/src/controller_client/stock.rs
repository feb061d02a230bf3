//! How a broker begins whose cluster has lost its tables: it says what is on its volume, and waits
//! until the controller has made the tables of what all brokers say.
//!
//! Until then it serves nothing, and touches none of its logs: what was said stays true.

use std::time::Duration;

use tracing::{debug, info, warn};
use uuid::Uuid;
use weir_protocol::controller as rpc;

use super::candidates::Candidates;
use super::kept;
use crate::config::Config;
use crate::log::{FoundLog, LogDir};

/// How long the controller may take to answer: an inventory may be large.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How soon it is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// Whether a broker that is told this in place of its cluster's id begins so.
pub fn is_recovering(cluster_id: &str) -> bool {
    cluster_id.starts_with(rpc::RECOVERS)
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// The cluster that the tables are of.
    pub cluster_id: String,
    /// This process had said what is on its volume before they were there: if they count on this
    /// broker at all, they count on that.
    pub was_heard: bool,
}

/// Says what is in `found`, the volume if it is not new, until there are tables.
///
/// # Errors
/// When the controller's address is none.
pub async fn await_tables(config: &Config, found: Option<&LogDir>) -> anyhow::Result<Tables> {
    let candidates =
        Candidates::new(&config.controller, config.controller_file.as_deref(), &config.cluster_id)?;
    let incarnation = Uuid::new_v4();
    let inventory = inventory(found);
    info!(
        logs = inventory.logs.len(),
        knows_metadata = inventory.image.is_some(),
        cluster_id = inventory.cluster_id,
        "the cluster has no tables: this broker says what is on its volume"
    );
    let (mut is_heard, mut waits_for) = (false, String::new());
    loop {
        candidates.resolve().await;
        let request = rpc::TakeStockRequest {
            broker_id: config.id.0,
            incarnation: incarnation.as_bytes().to_vec(),
            inventory: (!is_heard).then(|| inventory.clone()),
        };
        match tokio::time::timeout(ANSWER_MAX, candidates.client().take_stock(request)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                if !answer.cluster_id.is_empty() {
                    info!(
                        cluster_id = answer.cluster_id,
                        is_heard, "there are tables: this broker goes on"
                    );
                    return Ok(Tables { cluster_id: answer.cluster_id, was_heard: is_heard });
                }
                if answer.waits_for != waits_for {
                    warn!(reason = answer.waits_for, "the tables are not made yet");
                    waits_for = answer.waits_for;
                }
                is_heard = answer.heard;
            }
            Ok(Err(status)) => {
                debug!(%status, "no controller yet");
                candidates.turn_to_next();
            }
            Err(_) => {
                debug!("the controller is silent");
                candidates.turn_to_next();
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn inventory(found: Option<&LogDir>) -> rpc::Inventory {
    let Some(log_dir) = found else {
        return rpc::Inventory::default();
    };
    let (image, producer_ids_end) = kept::last_known(&log_dir.last_known());
    rpc::Inventory {
        cluster_id: log_dir.identity().cluster_id.clone(),
        log_dir_id: log_dir.id().as_bytes().to_vec(),
        broker_epoch: log_dir.left().broker_epoch,
        controller_epoch: image.as_ref().map_or(0, |image| image.controller_epoch.0),
        producer_ids_end,
        image: image.map(|image| image.whole()),
        logs: log_dir.found_logs().iter().map(found_log).collect(),
    }
}

fn found_log(log: &FoundLog) -> rpc::FoundLog {
    rpc::FoundLog {
        topic_id: log.id.topic.0.as_bytes().to_vec(),
        topic: log.topic.clone(),
        partition: log.id.index,
        leader_epoch: log.leader_epoch.map_or(-1, |epoch| epoch.0),
        end_offset: log.end_offset,
    }
}
