//! What can be set on a topic: every topic setting of Apache Kafka 4.4 (`TopicConfig`, `LogConfig`) and Weir's own `flush.mode` and `record.validation`.

use crate::setting::Kind::{Boolean, Choice, Integer, Ratio, Text};
use crate::setting::{Setting, config, row};

config!(
    /// `spec.config` of a [`crate::Topic`].
    TopicConfig,
    SETTINGS,
    RULES,
    "Settings of the topic under Kafka's names. What is not set follows the cluster's configuration, then Kafka's default."
);

const RULES: &[(&str, &str)] = &[
    (
        "!has(self.min__dot__compaction__dot__lag__dot__ms) || !has(self.max__dot__compaction__dot__lag__dot__ms) || \
         int(self.min__dot__compaction__dot__lag__dot__ms) <= int(self.max__dot__compaction__dot__lag__dot__ms)",
        "min.compaction.lag.ms must not be greater than max.compaction.lag.ms",
    ),
    (
        "!has(self.remote__dot__storage__dot__enable) || !self.remote__dot__storage__dot__enable",
        "remote.storage.enable cannot be true: there is no tiered storage",
    ),
];

/// Of `cleanup.policy`; none of both keeps everything.
const POLICIES: &[&str] = &["", "delete", "compact", "compact,delete", "delete,compact"];
const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;
const THROTTLED: &str = r"^(\*|([0-9]+:[0-9]+)?(,[0-9]+:[0-9]+)*)$";

#[rustfmt::skip]
const SETTINGS: &[Setting] = &[
    row("cleanup.policy", Choice(POLICIES), "delete", "What happens to old segments: delete removes them when the retention time or size is reached, compact keeps the last record of each key. Both may be given; an empty list keeps everything."),
    row("compression.gzip.level", Integer(-1, 9), "-1", "The level at which the broker compresses when compression.type is gzip; -1 is the library's default."),
    row("compression.lz4.level", Integer(1, 17), "9", "The level at which the broker compresses when compression.type is lz4."),
    row("compression.type", Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), "producer", "How batches are compressed on disk. producer keeps what the producer chose; with anything else the broker compresses batches again that come differently."),
    row("compression.zstd.level", Integer(-131_072, 22), "3", "The level at which the broker compresses when compression.type is zstd."),
    row("delete.retention.ms", Integer(0, LONG), "86400000", "How long the tombstones of a compacted topic stay, so that a consumer that starts at the beginning sees every deletion if it is done within this time."),
    row("errors.deadletterqueue.group.enable", Boolean, "false", "Whether share groups may use this topic as their dead-letter queue."),
    row("file.delete.delay.ms", Integer(0, LONG), "60000", "How long a segment's files stay on disk once they no longer belong to the log."),
    row("flush.messages", Integer(1, LONG), "9223372036854775807", "After how many records the log is flushed to disk. With flush.mode=group whatever is acknowledged is flushed already."),
    row("flush.mode", Choice(&["none", "group"]), "group", "When records count as written. group: when they are on disk, one flush serving all partitions that wait for one. none: when they are in the page cache, as in Apache Kafka."),
    row("flush.ms", Integer(0, LONG), "9223372036854775807", "After how long the log is flushed to disk. With flush.mode=group whatever is acknowledged is flushed already."),
    row("follower.replication.throttled.replicas", Text(THROTTLED), "", "The replicas whose replication is throttled on the follower's side, as partition:broker pairs or * for all."),
    row("index.interval.bytes", Integer(0, INT), "4096", "How many bytes of records lie between two entries of the offset index."),
    row("leader.replication.throttled.replicas", Text(THROTTLED), "", "The replicas whose replication is throttled on the leader's side, as partition:broker pairs or * for all."),
    row("local.retention.bytes", Integer(-2, LONG), "-2", "The size of what a partition keeps on local disks when older segments are in remote storage; -2 stands for retention.bytes. Without remote storage it has no effect."),
    row("local.retention.ms", Integer(-2, LONG), "-2", "How long segments stay on local disks when they are in remote storage; -2 stands for retention.ms. Without remote storage it has no effect."),
    row("max.compaction.lag.ms", Integer(1, LONG), "9223372036854775807", "The longest time that a record of a compacted topic may wait to be compacted."),
    row("max.decompressed.message.bytes", Integer(1, 2_147_483_639), "2147483639", "The largest size of a single record after decompression. Larger ones are refused wherever the broker decompresses."),
    row("max.message.bytes", Integer(0, INT), "1048588", "The largest size of a record batch, compressed if it is."),
    row("message.timestamp.after.max.ms", Integer(0, LONG), "3600000", "How far a record's timestamp may lie after the broker's clock, if message.timestamp.type is CreateTime."),
    row("message.timestamp.before.max.ms", Integer(0, LONG), "9223372036854775807", "How far a record's timestamp may lie before the broker's clock, if message.timestamp.type is CreateTime."),
    row("message.timestamp.type", Choice(&["CreateTime", "LogAppendTime"]), "CreateTime", "Whether a record carries the time at which it was made or at which the leader appended it."),
    row("min.cleanable.dirty.ratio", Ratio, "0.5", "How large the part of a log that was not compacted yet has to be, as a share of the whole, before it is compacted."),
    row("min.compaction.lag.ms", Integer(0, LONG), "0", "The shortest time that a record of a compacted topic stays as it is."),
    row("min.insync.replicas", Integer(1, INT), "1", "How many replicas have to be in sync for a write with acks=all to be accepted and for anything to count as committed."),
    row("preallocate", Boolean, "false", "Whether a new segment's file gets its full size at once."),
    row("record.validation", Choice(&["full", "header"]), "full", "What of a batch is looked at before it is appended. full: every record, as in Apache Kafka. header: the header and the checksum, and the records only where something needs them; what a client writes wrongly inside a batch is then found by its consumers."),
    row("remote.copy.lag.bytes", Integer(-1, LONG), "-1", "How much of a partition may wait to be copied to remote storage; -1 is no limit. Without remote storage it has no effect."),
    row("remote.copy.lag.ms", Integer(-1, LONG), "0", "How long a segment waits before it is copied to remote storage. Without remote storage it has no effect."),
    row("remote.log.copy.disable", Boolean, "false", "Whether no more segments are copied to remote storage. Without remote storage it has no effect."),
    row("remote.log.delete.on.disable", Boolean, "false", "Whether the segments in remote storage are deleted when remote storage is switched off for the topic. Without remote storage it has no effect."),
    row("remote.storage.enable", Boolean, "false", "Whether older segments go to remote storage. It is not available."),
    row("retention.bytes", Integer(i64::MIN, LONG), "-1", "The size that a partition may reach before its oldest segments are deleted, if cleanup.policy has delete; negative is no limit."),
    row("retention.ms", Integer(-1, LONG), "604800000", "How long records are kept at least, if cleanup.policy has delete; -1 is for ever."),
    row("segment.bytes", Integer(1_048_576, INT), "1073741824", "The size at which a segment is closed and the next one begun. Retention and compaction work on closed segments."),
    row("segment.index.bytes", Integer(4, INT), "10485760", "The largest size of a segment's offset index. A segment with a full index is closed."),
    row("segment.jitter.ms", Integer(0, LONG), "0", "By how much the closing of a segment for its age may come earlier, at random, so that not all partitions do it at once."),
    row("segment.ms", Integer(1, LONG), "604800000", "The age at which a segment is closed even if it is not full."),
    row("unclean.leader.election.enable", Boolean, "false", "Whether a replica that may lack committed records can become leader when no other is left. Records can be lost."),
];
