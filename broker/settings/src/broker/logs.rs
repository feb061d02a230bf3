//! The broker configurations of logs. Most of them are the defaults of topics that do not set a
//! value.

use super::super::Check::{Any, AtLeast};
use super::super::ConfigKey;
use super::super::ConfigType::{Int, List, Long};
use super::super::Scope::{Cluster, Dynamic, Process};
use super::super::key::row as broker;

/// In the order of their names.
pub(super) const ROWS: &[ConfigKey] = &[
    broker(
        "log.cleaner.backoff.ms",
        Long,
        Some("15000"),
        AtLeast(0),
        Dynamic,
        "How long the cleaner waits when there is nothing to compact.",
    ),
    broker(
        "log.cleaner.dedupe.buffer.size",
        Long,
        Some("134217728"),
        AtLeast(1_048_576),
        Dynamic,
        "The memory that compaction may use for the keys that it has seen, in bytes; never more than a sixteenth of what the broker may have.",
    ),
    broker(
        "log.dir",
        List,
        Some("/tmp/kafka-logs"),
        Any,
        Process,
        "The log directory, if `log.dirs` is not set.",
    ),
    broker("log.dirs", List, None, Any, Process, "The log directory."),
    broker(
        "log.flush.interval.ms",
        Long,
        None,
        AtLeast(0),
        Dynamic,
        "After how long a log is flushed to disk; unset, `log.flush.scheduler.interval.ms` holds.",
    ),
    broker(
        "log.flush.scheduler.interval.ms",
        Long,
        Some("9223372036854775807"),
        Any,
        Cluster,
        "After how long a log is flushed to disk, where `log.flush.interval.ms` is not set.",
    ),
    broker(
        "log.retention.check.interval.ms",
        Long,
        Some("300000"),
        AtLeast(1),
        Cluster,
        "How often the broker looks for segments that retention has done with.",
    ),
    broker(
        "log.retention.hours",
        Int,
        Some("168"),
        Any,
        Cluster,
        "How long records are kept at least, in hours, where neither `log.retention.ms` nor `log.retention.minutes` is set.",
    ),
    broker(
        "log.retention.minutes",
        Int,
        None,
        Any,
        Cluster,
        "How long records are kept at least, in minutes, where `log.retention.ms` is not set.",
    ),
    broker(
        "log.retention.ms",
        Long,
        None,
        AtLeast(-1),
        Dynamic,
        "How long records are kept at least; -1 is for ever. Unset, the minutes and then the hours hold.",
    ),
    broker(
        "log.roll.hours",
        Int,
        Some("168"),
        AtLeast(1),
        Cluster,
        "The age at which a segment is closed even if it is not full, in hours, where `log.roll.ms` is not set.",
    ),
    broker(
        "log.roll.jitter.hours",
        Int,
        Some("0"),
        AtLeast(0),
        Cluster,
        "By how much the closing of a segment may come earlier, in hours, where `log.roll.jitter.ms` is not set.",
    ),
    broker(
        "log.roll.jitter.ms",
        Long,
        None,
        AtLeast(0),
        Dynamic,
        "By how much the closing of a segment may come earlier, at random.",
    ),
    broker(
        "log.roll.ms",
        Long,
        None,
        AtLeast(1),
        Dynamic,
        "The age at which a segment is closed even if it is not full. Unset, the hours hold.",
    ),
];
