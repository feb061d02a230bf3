//! Compaction of this broker's logs: chooses the next log and runs the steps that clean it.
//!
//! The maintenance thread calls this and is busy while it reads and writes the log. The writer of
//! the log only supplies the producers' state and swaps the files.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context;
use tracing::{info, warn};
use weir_protocol::types::TopicPartition;

use super::Partition;
use super::clock::now_ms;
use weir_log::cleaner::{OffsetMap, Plan, assess, clean};

/// Bytes that one key takes in the map of the keys seen.
const BYTES_PER_KEY: u64 = 50;

/// State that compaction keeps from one log to the next.
#[derive(Debug, Default)]
pub(super) struct Cleaning {
    /// Logs whose cleaning failed. Compaction skips them until the next start, because a damaged
    /// batch stays damaged.
    uncleanable: BTreeSet<TopicPartition>,
}

impl Cleaning {
    /// Compacts the partition with the highest dirty ratio, if any partition is dirty enough. The
    /// map of the keys seen takes at most `map_bytes_max` (`log.cleaner.dedupe.buffer.size`). A log
    /// with more new keys is cleaned in several rounds.
    pub(super) async fn clean_dirtiest(
        &mut self,
        partitions: &[Arc<Partition>],
        map_bytes_max: u64,
    ) {
        let compacted = partitions.iter().filter(|partition| {
            partition.config().cleanup.compact && !self.uncleanable.contains(&partition.id())
        });
        let mut planned = Vec::new();
        for partition in compacted {
            let assess = || assess(partition.log(), &partition.config(), now_ms());
            if assess().is_some() {
                // The log is dirty enough. Open transactions limit how far it may be cleaned.
                partition.know_transactions().await;
                planned.extend(assess().map(|plan| (partition, plan)));
            }
        }
        let Some((partition, plan)) =
            planned.into_iter().max_by(|(_, a), (_, b)| a.dirty_ratio.total_cmp(&b.dirty_ratio))
        else {
            return;
        };
        if let Err(error) = clean_one(partition, &plan, map_bytes_max).await
            && !partition.is_retired()
        {
            warn!(topic = %partition.topic(), partition = partition.id().index, error = format!("{error:#}"), "cannot compact a log; it is left alone until the next start");
            self.uncleanable.insert(partition.id());
        }
    }
}

async fn clean_one(
    partition: &Arc<Partition>,
    plan: &Plan,
    map_bytes_max: u64,
) -> anyhow::Result<()> {
    // A partition without a writer is being removed.
    let Ok(last_records) = partition.with_writer(|writer| writer.last_records(now_ms())).await
    else {
        return Ok(());
    };
    let last_records = last_records?;
    let keys_max = usize::try_from(map_bytes_max / BYTES_PER_KEY).unwrap_or(usize::MAX);
    let mut map = OffsetMap::new(keys_max, uuid::Uuid::new_v4().into_bytes());
    let cleaned =
        clean(partition.log(), &partition.config(), plan, &mut map, &last_records, now_ms())
            .context("rewrite the segments")?;
    let (topic, index) = (partition.topic(), partition.id().index);
    if let Some(offset) = cleaned.as_ref().and_then(|cleaned| cleaned.unread) {
        warn!(topic = %topic, partition = index, offset, "the records of a batch cannot be decompressed or are too large for a compacted topic; compaction keeps the batch, and all tombstones behind it");
    }
    let swapped = match cleaned {
        Some(cleaned) => {
            let (end_offset, (before, after)) = (cleaned.end_offset, cleaned.bytes);
            let Ok(swapped) = partition.with_writer(move |writer| cleaned.swap_in(writer)).await
            else {
                return Ok(());
            };
            swapped.context("put the new segments in place")?.then_some((end_offset, before, after))
        }
        None => None,
    };
    match swapped {
        Some((end_offset, before, after)) => {
            info!(topic = %topic, partition = index, end_offset, before, after, "compacted")
        }
        None => {
            info!(topic = %topic, partition = index, "a log was cut or trimmed while it was compacted; it stays as it is until the next round")
        }
    }
    Ok(())
}
