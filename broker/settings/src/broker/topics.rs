//! The defaults of topic configurations: the broker configurations that set each of them
//! (`ServerTopicConfigSynonyms`).

use crate::Scope::{self, ClusterWide, Dynamic};
use crate::{ConfigKey, topic_key};

/// The broker's names for a topic configuration, each with the number of the topic's units in one
/// of the broker's. The first name that is set wins.
pub(crate) type BrokerNames = &'static [(&'static str, i64)];

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

/// In the order of the topics' names. A configuration with several broker names has rows of its own
/// in the broker tables, because their units differ.
const NAMES: &[(&str, Scope, BrokerNames)] = &[
    ("cleanup.policy", Dynamic, &[("log.cleanup.policy", 1)]),
    ("compression.gzip.level", Dynamic, &[("compression.gzip.level", 1)]),
    ("compression.lz4.level", Dynamic, &[("compression.lz4.level", 1)]),
    ("compression.type", Dynamic, &[("compression.type", 1)]),
    ("compression.zstd.level", Dynamic, &[("compression.zstd.level", 1)]),
    ("delete.retention.ms", Dynamic, &[("log.cleaner.delete.retention.ms", 1)]),
    ("file.delete.delay.ms", Dynamic, &[("log.segment.delete.delay.ms", 1)]),
    ("flush.messages", Dynamic, &[("log.flush.interval.messages", 1)]),
    ("flush.mode", Dynamic, &[("flush.mode", 1)]),
    ("flush.ms", Dynamic, &[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)]),
    ("index.interval.bytes", Dynamic, &[("log.index.interval.bytes", 1)]),
    ("local.retention.bytes", Dynamic, &[("log.local.retention.bytes", 1)]),
    ("local.retention.ms", Dynamic, &[("log.local.retention.ms", 1)]),
    ("max.compaction.lag.ms", Dynamic, &[("log.cleaner.max.compaction.lag.ms", 1)]),
    ("max.decompressed.message.bytes", Dynamic, &[("max.decompressed.message.bytes", 1)]),
    ("max.message.bytes", Dynamic, &[("message.max.bytes", 1)]),
    ("message.timestamp.after.max.ms", Dynamic, &[("log.message.timestamp.after.max.ms", 1)]),
    ("message.timestamp.before.max.ms", Dynamic, &[("log.message.timestamp.before.max.ms", 1)]),
    ("message.timestamp.type", Dynamic, &[("log.message.timestamp.type", 1)]),
    ("min.cleanable.dirty.ratio", Dynamic, &[("log.cleaner.min.cleanable.ratio", 1)]),
    ("min.compaction.lag.ms", Dynamic, &[("log.cleaner.min.compaction.lag.ms", 1)]),
    ("min.insync.replicas", ClusterWide, &[("min.insync.replicas", 1)]),
    ("preallocate", Dynamic, &[("log.preallocate", 1)]),
    ("record.validation", Dynamic, &[("record.validation", 1)]),
    ("remote.copy.lag.bytes", Dynamic, &[("log.remote.copy.lag.bytes", 1)]),
    ("remote.copy.lag.ms", Dynamic, &[("log.remote.copy.lag.ms", 1)]),
    ("retention.bytes", Dynamic, &[("log.retention.bytes", 1)]),
    (
        "retention.ms",
        Dynamic,
        &[
            ("log.retention.ms", 1),
            ("log.retention.minutes", MINUTE_MS),
            ("log.retention.hours", HOUR_MS),
        ],
    ),
    ("segment.bytes", Dynamic, &[("log.segment.bytes", 1)]),
    ("segment.index.bytes", Dynamic, &[("log.index.size.max.bytes", 1)]),
    (
        "segment.jitter.ms",
        Dynamic,
        &[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", HOUR_MS)],
    ),
    ("segment.ms", Dynamic, &[("log.roll.ms", 1), ("log.roll.hours", HOUR_MS)]),
    ("unclean.leader.election.enable", ClusterWide, &[("unclean.leader.election.enable", 1)]),
];

/// The broker's names for a topic configuration; empty if there are none.
pub(crate) fn broker_names(topic: &str) -> BrokerNames {
    let found = NAMES.binary_search_by(|(name, ..)| (*name).cmp(topic)).ok();
    found.and_then(|index| NAMES.get(index)).map_or(&[], |(_, _, names)| names)
}

/// The topic configuration whose default the broker configuration of this name sets, in any unit.
pub fn topic_key_of(broker: &str) -> Option<&'static ConfigKey> {
    let (topic, ..) =
        NAMES.iter().find(|(_, _, names)| names.iter().any(|(name, _)| *name == broker))?;
    topic_key(topic)
}

/// The rows of broker configurations that only repeat a topic configuration under another name.
pub(crate) fn rows() -> impl Iterator<Item = ConfigKey> {
    NAMES.iter().filter_map(|(topic, scope, names)| match names {
        [(name, 1)] => {
            Some(ConfigKey { name, scope: *scope, of_topics: Some(topic), ..*topic_key(topic)? })
        }
        _ => None,
    })
}
