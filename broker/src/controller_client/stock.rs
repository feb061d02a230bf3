//! The start of a broker whose cluster has lost its tables. The broker reports the content of its
//! volume, and waits until the controller has built the tables from the reports of all brokers.
//!
//! Until then it serves nothing and changes none of its logs, so its report stays true.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};
use uuid::Uuid;
use weir_protocol::controller as rpc;
use weir_tls::Identities;

use super::candidates::Candidates;
use super::kept;
use crate::config::Config;
use weir_log::{FoundLog, LogDir};

/// How long the controller may take to answer, because a report may be large.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The pause between two requests.
const AGAIN: Duration = Duration::from_millis(500);

/// Returns whether a broker with this value in place of a cluster id starts that way.
pub fn is_recovering(cluster_id: &str) -> bool {
    cluster_id.starts_with(rpc::RECOVERS)
}

/// The result of the wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// The cluster of the tables.
    pub cluster_id: String,
    /// Whether this process had reported its volume before the tables existed. If the tables rely
    /// on this broker at all, they rely on that report.
    pub was_heard: bool,
}

/// Reports the content of `found`, the volume unless it is new, until the tables exist.
///
/// # Errors
/// When the controller's address is invalid.
pub async fn await_tables(
    config: &Config,
    identities: Option<&Arc<Identities>>,
    found: Option<&LogDir>,
) -> anyhow::Result<Tables> {
    let candidates = Candidates::new(
        &config.controller,
        config.controller_file.as_deref(),
        &config.cluster_id,
        identities.map(Arc::clone),
    )?;
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
                    warn!(
                        reason = answer.waits_for,
                        "the cluster's partition tables are not made yet: this broker waits"
                    );
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
