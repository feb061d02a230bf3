//! Compaction of this broker's logs: which one is next, and the steps in which it is cleaned.
//!
//! Called by the maintenance thread, which it occupies while a log is read and written; the log's
//! writer is asked only for the producers' state and to swap the files.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context;
use tracing::{info, warn};
use weir_protocol::types::TopicPartition;

use super::Partition;
use super::clock::now_ms;
use crate::log::cleaner::{OffsetMap, Plan, assess, clean};

/// Bytes that a key takes in the map of those that were seen.
const BYTES_PER_KEY: u64 = 50;

/// What cleaning remembers from one log to the next.
#[derive(Debug, Default)]
pub(super) struct Cleaning {
    /// Logs that could not be cleaned are left alone until the next start: a damaged batch does not
    /// mend.
    uncleanable: BTreeSet<TopicPartition>,
}

impl Cleaning {
    /// Compacts the partition that has most to gain, if one has enough. The keys that were seen
    /// take at most `map_bytes_max` (`log.cleaner.dedupe.buffer.size`); a log with more new ones is
    /// cleaned in several rounds.
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
                // There is something to gain, and up to where depends on transactions.
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
    // A partition whose writer is gone goes away itself.
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
    let (topic, index) = (partition.topic(), partition.id().index);
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
