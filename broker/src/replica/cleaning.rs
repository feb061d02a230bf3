//! Compaction of this broker's logs: which one is next, and the steps in which it is cleaned.
//!
//! Called by the maintenance thread, which it occupies while a log is read and written; the log's writer is asked only for the producers' state and to swap the files.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use tracing::{info, warn};
use weir_protocol::types::TopicPartition;

use super::{Partition, now_ms};
use crate::log::Disk;
use crate::log::cleaner::{Checkpoint, OffsetMap, Plan, assess, clean};

/// Bytes that a key takes in the map of those that were seen.
const BYTES_PER_KEY: u64 = 50;

/// What cleaning remembers from one log to the next.
#[derive(Debug)]
pub(super) struct Cleaning {
    checkpoint: Checkpoint,
    /// Logs that could not be cleaned are left alone until the next start: a damaged batch does not mend.
    uncleanable: BTreeSet<TopicPartition>,
}

impl Cleaning {
    /// Of the logs in the log directory `root`.
    pub(super) fn new(root: &Path) -> Self {
        Self {
            checkpoint: Checkpoint::open(Arc::new(Disk), root),
            uncleanable: BTreeSet::new(),
        }
    }

    /// Compacts the partition that has most to gain, if one has enough. The keys that were seen take at most `map_bytes_max` (`log.cleaner.dedupe.buffer.size`); a log with
    /// more new ones is cleaned in several rounds.
    pub(super) async fn clean_dirtiest(&mut self, partitions: &[Arc<Partition>], map_bytes_max: u64) {
        let compacted = partitions
            .iter()
            .filter(|partition| partition.config().cleanup.compact && !self.uncleanable.contains(&partition.id()));
        let mut planned = Vec::new();
        for partition in compacted {
            let assess = || assess(partition.log(), &partition.config(), self.checkpoint.offset(partition.id()), now_ms());
            if assess().is_some() {
                // There is something to gain, and up to where depends on transactions.
                partition.know_transactions().await;
                planned.extend(assess().map(|plan| (partition, plan)));
            }
        }
        let Some((partition, plan)) = planned.into_iter().max_by(|(_, a), (_, b)| a.dirty_ratio.total_cmp(&b.dirty_ratio)) else {
            return;
        };
        if let Err(error) = self.clean(partition, &plan, partitions, map_bytes_max).await
            && !partition.is_retired()
        {
            warn!(topic = %partition.topic(), partition = partition.id().index, error = format!("{error:#}"), "cannot compact a log; it is left alone until the next start");
            self.uncleanable.insert(partition.id());
        }
    }

    async fn clean(&mut self, partition: &Arc<Partition>, plan: &Plan, partitions: &[Arc<Partition>], map_bytes_max: u64) -> anyhow::Result<()> {
        let busy = |code| anyhow!("the writer answers {code:?}");
        let last_records = partition.with_writer(|writer| writer.last_records(now_ms())).await.map_err(busy)??;
        let keys_max = usize::try_from(map_bytes_max / BYTES_PER_KEY).unwrap_or(usize::MAX);
        let mut map = OffsetMap::new(keys_max, uuid::Uuid::new_v4().into_bytes());
        let cleaned = clean(partition.log(), &partition.config(), plan, &mut map, &last_records, now_ms()).context("rewrite the segments")?;
        let (end_offset, (before, after)) = (cleaned.end_offset, cleaned.bytes);
        let swapped = partition.with_writer(move |writer| cleaned.swap_in(writer)).await.map_err(busy)?;
        if swapped.context("put the new segments in place")? {
            let exists = |id| partitions.iter().any(|partition| partition.id() == id);
            self.checkpoint
                .cleaned(partition.id(), end_offset, exists)
                .context("write the checkpoint")?;
            info!(topic = %partition.topic(), partition = partition.id().index, end_offset, before, after, "compacted");
        }
        Ok(())
    }
}
