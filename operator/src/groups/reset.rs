//! PURE: resets: the offsets that a reset sets, and how it happens exactly once.
//!
//! 1. While the group has no members, the status says `Committing` and keeps the old offsets.
//!    Writing it twice gives the same status.
//! 2. One request commits the new offsets with a mark (`weir_protocol::reset_marks`) for the
//!    reset's id. The coordinator writes a request as a whole or not at all. So the mark exists if
//!    and only if the reset was carried out, whatever members have committed since.
//! 3. The status says `Done`. The mark stays with the group.
//!
//! An operator that finds a reset without `Done` in the status reads the mark first, for example
//! after a restart or for a recreated resource. If the mark exists, only step 3 is left. If not,
//! nothing was committed, and step 1 starts again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use weir_crds::{ConsumerGroup, ConsumerGroupStatus, Position, Reset};

use super::observed::{Observed, Partition};

/// The most bytes of offsets that the status keeps for one undo. The offsets of 10,000 partitions
/// always fit. A larger reset is refused, since it could not be undone; it has to name fewer
/// topics.
pub const UNDO_BYTES_MAX: usize = 256 * 1024;

/// The most resets that can be undone.
pub const UNDO_MAX: usize = 2;

/// The plan of a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It cannot be carried out now: a reason and a sentence.
    Wait(&'static str, String),
    /// Set these offsets; `None` deletes one.
    Set {
        /// The current offsets.
        before: BTreeMap<Partition, Option<i64>>,
        /// The new offsets.
        after: BTreeMap<Partition, Option<i64>>,
    },
}

/// The topics that a reset needs besides those of the group.
pub fn topics_named(reset: &Reset, status: &ConsumerGroupStatus) -> BTreeSet<String> {
    let mut topics: BTreeSet<String> = reset.topics.iter().cloned().collect();
    topics.extend(reset.to.offsets.iter().flatten().map(|offset| offset.topic.clone()));
    if let Some(saved) = reset.to.undo.as_deref().and_then(|id| saved(status, id)) {
        topics.extend(saved.into_keys().map(|(topic, _)| topic));
    }
    topics
}

/// Plans a reset.
pub fn plan(
    resource: &ConsumerGroup,
    status: &ConsumerGroupStatus,
    reset: &Reset,
    observed: &Observed,
) -> Plan {
    let after = match target(resource, status, reset, observed) {
        Ok(after) => after,
        Err((reason, message)) => return Plan::Wait(reason, message),
    };
    let before: BTreeMap<Partition, Option<i64>> = after
        .keys()
        .map(|partition| {
            (partition.clone(), observed.partitions.get(partition).and_then(|log| log.committed))
        })
        .collect();
    if after.is_empty() {
        let message = "there is no partition to reset: the group has no committed offsets that the reset concerns. Name topics in spec.reset.topics";
        return Plan::Wait("NothingToReset", message.to_owned());
    }
    if pack(&before).len() > UNDO_BYTES_MAX {
        let message = format!(
            "the offsets of {} partitions are too many to be kept for an undo: name fewer topics in spec.reset.topics",
            after.len()
        );
        return Plan::Wait("TooManyPartitions", message);
    }
    Plan::Set { before, after }
}

type Wrong = (&'static str, String);

fn target(
    resource: &ConsumerGroup,
    status: &ConsumerGroupStatus,
    reset: &Reset,
    observed: &Observed,
) -> Result<BTreeMap<Partition, Option<i64>>, Wrong> {
    if let Some(id) = &reset.to.undo {
        return undo(status, id, observed);
    }
    if let Some(offsets) = &reset.to.offsets {
        let exact = offsets.iter().map(|wanted| {
            let partition = (wanted.topic.clone(), wanted.partition);
            let (start, end) = bounds(observed, &partition)?;
            Ok((partition, Some(wanted.offset.clamp(start, end))))
        });
        return exact.collect();
    }
    let mut set = BTreeMap::new();
    for partition in partitions_of(resource, reset, observed)? {
        let (start, end) = bounds(observed, &partition)?;
        let offset = if let Some(position) = reset.to.position {
            Some(if position == Position::Earliest { start } else { end })
        } else if let Some(shift) = reset.to.shift {
            let committed = observed.partitions.get(&partition).and_then(|log| log.committed);
            committed.map(|committed| committed.saturating_add(shift).clamp(start, end))
        } else {
            let at = observed.at_time.get(&partition).copied();
            Some(at.ok_or_else(|| offline(&partition))?.clamp(start, end))
        };
        if offset.is_some() {
            set.insert(partition, offset);
        }
    }
    Ok(set)
}

/// The partitions that a reset affects.
fn partitions_of(
    resource: &ConsumerGroup,
    reset: &Reset,
    observed: &Observed,
) -> Result<Vec<Partition>, Wrong> {
    let topics = if reset.topics.is_empty() { &resource.spec.topics } else { &reset.topics };
    if let Some(topic) = topics.iter().find(|topic| observed.unknown_topics.contains(*topic)) {
        return Err(unknown(topic));
    }
    let all = observed.partitions.iter();
    let concerned = all.filter(|(partition, log)| {
        if topics.is_empty() { log.committed.is_some() } else { topics.contains(&partition.0) }
    });
    Ok(concerned.map(|(partition, _)| partition.clone()).collect())
}

fn undo(
    status: &ConsumerGroupStatus,
    id: &str,
    observed: &Observed,
) -> Result<BTreeMap<Partition, Option<i64>>, Wrong> {
    let Some(saved) = saved(status, id) else {
        let kept: Vec<&str> = status.undo.iter().map(|saved| saved.id.as_str()).collect();
        let message = format!(
            "there are no offsets from before a reset {id:?}; those before these are kept: {}",
            kept.join(", ")
        );
        return Err(("NothingToUndo", message));
    };
    for partition in saved.keys() {
        bounds(observed, partition)?;
    }
    Ok(saved)
}

fn bounds(observed: &Observed, partition: &Partition) -> Result<(i64, i64), Wrong> {
    if observed.unknown_topics.contains(&partition.0) {
        return Err(unknown(&partition.0));
    }
    let Some(log) = observed.partitions.get(partition) else {
        let message = format!("the topic {:?} has no partition {}", partition.0, partition.1);
        return Err(("UnknownPartition", message));
    };
    let (start, end) = log.start.zip(log.end).ok_or_else(|| offline(partition))?;
    Ok((start, end.max(start)))
}

fn unknown(topic: &str) -> Wrong {
    ("UnknownTopic", format!("there is no topic {topic:?}: make it, or take it out of the reset"))
}

fn offline(partition: &Partition) -> Wrong {
    let message = format!(
        "{}-{} has no leader that answers: the reset waits for it",
        partition.0, partition.1
    );
    ("PartitionOffline", message)
}

/// Packs offsets into a text; see [`weir_crds::SavedOffsets`].
pub fn pack(offsets: &BTreeMap<Partition, Option<i64>>) -> String {
    let mut text = String::new();
    let mut current: Option<&str> = None;
    let mut next = 0;
    for ((topic, partition), offset) in offsets {
        if current != Some(topic) {
            let separator = if current.is_some() { "\n" } else { "" };
            let _ = write!(text, "{separator}{topic}=");
            current = Some(topic);
            next = 0;
        }
        while next < *partition {
            text.push(',');
            next += 1;
        }
        match offset {
            Some(offset) => drop(write!(text, "{offset}")),
            None => text.push('-'),
        }
    }
    text
}

/// Unpacks such a text; `None` if it is invalid.
pub fn unpack(text: &str) -> Option<BTreeMap<Partition, Option<i64>>> {
    let mut offsets = BTreeMap::new();
    for line in text.lines() {
        let (topic, all) = line.split_once('=')?;
        for (partition, offset) in (0..).zip(all.split(',')) {
            match offset {
                "" => {}
                "-" => drop(offsets.insert((topic.to_owned(), partition), None)),
                number => drop(offsets.insert(
                    (topic.to_owned(), partition),
                    Some(number.parse().ok().filter(|offset| *offset >= 0)?),
                )),
            }
        }
    }
    Some(offsets)
}

fn saved(status: &ConsumerGroupStatus, id: &str) -> Option<BTreeMap<Partition, Option<i64>>> {
    let saved = status.undo.iter().find(|saved| saved.id == id)?;
    unpack(&saved.offsets).filter(|offsets| !offsets.is_empty())
}
