//! PURE: the lag of a group.
//!
//! In messages: from the committed offset to the high watermark. A partition without a committed
//! offset counts from its log start if the resource names its topic. Otherwise it does not count,
//! because its consumer's start is unknown. In seconds: the age of the oldest record that was not
//! consumed, by the timestamp of its batch. The shell reads one batch for each committed offset
//! with a lag, since the timestamp changes only with the offset. It is the producers' timestamp, so
//! it gives the age of what consumers read; batching may make it older by `linger.ms`.

use std::collections::BTreeSet;

use weir_crds::{Lag, WorstPartition};

use super::observed::{Log, Observed, Partition};

/// The partitions that count, with their logs: those of the named topics, else all with a committed
/// offset or an assignment.
pub fn counted<'a>(
    observed: &'a Observed,
    topics: &'a [String],
) -> impl Iterator<Item = (&'a Partition, &'a Log)> {
    let assigned: BTreeSet<&Partition> =
        observed.members.iter().flat_map(|member| &member.partitions).collect();
    observed.partitions.iter().filter(move |(partition, log)| {
        if topics.is_empty() {
            log.committed.is_some() || assigned.contains(partition)
        } else {
            topics.contains(&partition.0)
        }
    })
}

/// The group's position in a partition, limited to its log.
pub fn position(log: &Log, named: bool) -> Option<i64> {
    let (start, end) = (log.start?, log.end?);
    match log.committed {
        Some(committed) => Some(committed.clamp(start, end.max(start))),
        None if named => Some(start),
        None => None,
    }
}

/// The number of records in a partition that the group has not consumed.
pub fn messages(log: &Log, named: bool) -> i64 {
    position(log, named)
        .zip(log.end)
        .map_or(0, |(position, end)| end.saturating_sub(position).max(0))
}

/// The lag of the group at a time in milliseconds.
pub fn lag(observed: &Observed, topics: &[String], now_ms: i64) -> Lag {
    let named = !topics.is_empty();
    let mut lag = Lag::default();
    let mut oldest: Option<i64> = None;
    let mut worst: Option<(&Partition, i64)> = None;
    for (partition, log) in counted(observed, topics) {
        lag.partitions = lag.partitions.saturating_add(1);
        let behind = messages(log, named);
        if behind == 0 {
            continue;
        }
        lag.messages = lag.messages.saturating_add(behind);
        lag.partitions_behind = lag.partitions_behind.saturating_add(1);
        oldest = [oldest, log.oldest_ms].into_iter().flatten().min();
        if worst.is_none_or(|(_, messages)| behind > messages) {
            worst = Some((partition, behind));
        }
    }
    lag.seconds = match oldest {
        _ if lag.messages == 0 => Some(0),
        Some(oldest) => Some(two_digits(now_ms.saturating_sub(oldest).max(0) / 1000)),
        None => None,
    };
    lag.worst = worst.map(|(partition, messages)| WorstPartition {
        topic: partition.0.clone(),
        partition: partition.1,
        messages,
        client_id: observed
            .members
            .iter()
            .find(|member| member.partitions.contains(partition))
            .map(|member| member.client_id.clone()),
    });
    lag
}

/// Rounds down to two digits, so that a growing number is written less and less often.
pub fn two_digits(seconds: i64) -> i64 {
    let mut scale = 1;
    while seconds / scale >= 100 {
        scale *= 10;
    }
    seconds / scale * scale
}

/// The first committed offset outside its log, as a reason and a sentence.
pub fn outside(observed: &Observed, topics: &[String]) -> Option<(&'static str, String)> {
    counted(observed, topics).find_map(|((topic, partition), log)| {
        let (committed, start, end) = (log.committed?, log.start?, log.end?);
        if committed < start {
            let lost = start.saturating_sub(committed);
            let message = format!(
                "{lost} records of {topic}-{partition} were deleted before the group consumed them: its offset {committed} is before the log's start {start}. \
                 Consumers go on where auto.offset.reset says, or set spec.reset"
            );
            Some(("RecordsLost", message))
        } else if committed > end {
            let message = format!(
                "the offset {committed} of {topic}-{partition} is beyond the log's end {end}: the topic was made anew, or records were lost. Set spec.reset"
            );
            Some(("BeyondEnd", message))
        } else {
            None
        }
    })
}
