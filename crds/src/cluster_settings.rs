//! What can be set for a whole cluster, under the names of Kafka's broker configuration.

use crate::setting::Kind::{self, Boolean, Choice, Integer, Ratio, Text};
use crate::setting::{Setting, config, doc_of, row};
use crate::topic_settings::TopicConfig;

config!(
    /// `spec.config` of a [`crate::KafkaCluster`].
    ClusterConfig,
    SETTINGS,
    RULES,
    "Settings of all brokers under Kafka's names. They are the defaults of topics, too."
);

const RULES: &[(&str, &str)] = &[
    (
        "!has(self.log__dot__cleaner__dot__min__dot__compaction__dot__lag__dot__ms) || !has(self.log__dot__cleaner__dot__max__dot__compaction__dot__lag__dot__ms) || \
         int(self.log__dot__cleaner__dot__min__dot__compaction__dot__lag__dot__ms) <= int(self.log__dot__cleaner__dot__max__dot__compaction__dot__lag__dot__ms)",
        "log.cleaner.min.compaction.lag.ms must not be greater than log.cleaner.max.compaction.lag.ms",
    ),
    (
        "!has(self.min__dot__insync__dot__replicas) || !has(self.default__dot__replication__dot__factor) || \
         int(self.min__dot__insync__dot__replicas) <= int(self.default__dot__replication__dot__factor)",
        "min.insync.replicas must not be greater than default.replication.factor",
    ),
];

/// Of `cleanup.policy`; none of both keeps everything.
const POLICIES: &[&str] = &["", "delete", "compact", "compact,delete", "delete,compact"];
/// A number with a point, an exponent, or neither.
const NUMBER: &str = r"^[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$";
const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;

/// What a setting of topics is for those that do not set it: it does the same.
const fn of_topics(name: &'static str, kind: Kind, default: &'static str, topic: &'static str) -> Setting {
    Setting {
        of_topics: Some(topic),
        ..row(name, kind, default, doc_of(TopicConfig::SETTINGS, topic))
    }
}

#[rustfmt::skip]
const SETTINGS: &[Setting] = &[
    row("auto.create.topics.enable", Boolean, "true", "Whether a topic is created when a client first asks for it."),
    row("auto.leader.rebalance.enable", Boolean, "true", "Whether partitions get their first replicas as leaders again, from time to time."),
    row("background.threads", Integer(1, INT), "10", "It has no effect: what runs beside requests has threads of its own."),
    of_topics("compression.gzip.level", Integer(-1, 9), "-1", "compression.gzip.level"),
    of_topics("compression.lz4.level", Integer(1, 17), "9", "compression.lz4.level"),
    of_topics("compression.type", Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), "producer", "compression.type"),
    of_topics("compression.zstd.level", Integer(-131_072, 22), "3", "compression.zstd.level"),
    row("connections.max.idle.ms", Integer(-1, LONG), "600000", "How long a connection may be idle before the broker closes it; negative is for ever."),
    row("default.replication.factor", Integer(1, INT), "1", "How many replicas the partitions of a topic get whose creator does not say."),
    row("delete.topic.enable", Boolean, "true", "Whether clients may delete topics."),
    row("fetch.max.bytes", Integer(1_024, INT), "57671680", "The most bytes of records in the answer to one fetch, whatever the client asks for."),
    of_topics("flush.mode", Choice(&["none", "group"]), "group", "flush.mode"),
    row("follower.replication.throttled.rate", Integer(0, LONG), "9223372036854775807", "The most bytes a second that a broker fetches from leaders for the replicas in follower.replication.throttled.replicas."),
    row("group.consumer.assignment.interval.ms", Integer(0, INT), "1000", "How long after an assignment of a group of the consumer protocol the next one may be computed."),
    row("group.consumer.heartbeat.interval.ms", Integer(1, INT), "5000", "How often members of the consumer protocol are heard of."),
    row("group.consumer.max.assignment.interval.ms", Integer(0, INT), "15000", "The most that consumer.assignment.interval.ms of a group may be."),
    row("group.consumer.max.heartbeat.interval.ms", Integer(1, INT), "15000", "The most that consumer.heartbeat.interval.ms of a group may be."),
    row("group.consumer.max.session.timeout.ms", Integer(1, INT), "60000", "The most that consumer.session.timeout.ms of a group may be."),
    row("group.consumer.max.size", Integer(1, INT), "2147483647", "The most members of a group of the consumer protocol."),
    row("group.consumer.migration.policy", Choice(&["disabled", "downgrade", "upgrade", "bidirectional"]), "bidirectional", "Which groups with members may go on in the other protocol: classic ones when a member of the consumer protocol joins (upgrade), and back when the last one leaves (downgrade)."),
    row("group.consumer.min.assignment.interval.ms", Integer(0, INT), "0", "The least that consumer.assignment.interval.ms of a group may be."),
    row("group.consumer.min.heartbeat.interval.ms", Integer(1, INT), "5000", "The least that consumer.heartbeat.interval.ms of a group may be."),
    row("group.consumer.min.session.timeout.ms", Integer(1, INT), "45000", "The least that consumer.session.timeout.ms of a group may be."),
    row("group.consumer.session.timeout.ms", Integer(1, INT), "45000", "How long a member of the consumer protocol may be quiet before its partitions go to others."),
    row("group.initial.rebalance.delay.ms", Integer(0, INT), "3000", "How long an empty group waits for more members before its first rebalance."),
    row("group.max.session.timeout.ms", Integer(1, INT), "1800000", "The longest session that a member of a classic group may ask for."),
    row("group.max.size", Integer(1, INT), "2147483647", "The most members of a classic group."),
    row("group.min.session.timeout.ms", Integer(1, INT), "6000", "The shortest session that a member of a classic group may ask for."),
    row("leader.imbalance.check.interval.seconds", Integer(1, LONG), "300", "How often it is looked for partitions that are not led by their first replica."),
    row("leader.imbalance.per.broker.percentage", Integer(0, INT), "", "How much of a broker's share may be led by others before that is put right, in percent; unset, nothing."),
    row("leader.replication.throttled.rate", Integer(0, LONG), "9223372036854775807", "The most bytes a second that a broker sends to followers of the replicas in leader.replication.throttled.replicas."),
    row("log.cleaner.backoff.ms", Integer(0, LONG), "15000", "How long the cleaner waits when there is nothing to compact."),
    row("log.cleaner.dedupe.buffer.size", Integer(1_048_576, LONG), "134217728", "The memory that compaction may use for the keys that it has seen, in bytes; never more than an eighth of what the broker may have."),
    of_topics("log.cleaner.delete.retention.ms", Integer(0, LONG), "86400000", "delete.retention.ms"),
    row("log.cleaner.io.buffer.load.factor", Ratio, "0.9", "It has no effect: compaction counts the keys that it has room for."),
    row("log.cleaner.io.buffer.size", Integer(0, INT), "524288", "It has no effect: compaction reads batch by batch."),
    row("log.cleaner.io.max.bytes.per.second", Text(NUMBER), "1.7976931348623157e308", "It has no effect: compaction is not throttled."),
    of_topics("log.cleaner.max.compaction.lag.ms", Integer(1, LONG), "9223372036854775807", "max.compaction.lag.ms"),
    of_topics("log.cleaner.min.cleanable.ratio", Ratio, "0.5", "min.cleanable.dirty.ratio"),
    of_topics("log.cleaner.min.compaction.lag.ms", Integer(0, LONG), "0", "min.compaction.lag.ms"),
    row("log.cleaner.threads", Integer(0, INT), "1", "It has no effect: one thread compacts."),
    of_topics("log.cleanup.policy", Choice(POLICIES), "delete", "cleanup.policy"),
    of_topics("log.flush.interval.messages", Integer(1, LONG), "9223372036854775807", "flush.messages"),
    row("log.flush.interval.ms", Integer(0, LONG), "", "After how long a log is flushed to disk; unset, log.flush.scheduler.interval.ms holds."),
    row("log.flush.scheduler.interval.ms", Integer(i64::MIN, LONG), "9223372036854775807", "After how long a log is flushed to disk, where log.flush.interval.ms is not set."),
    of_topics("log.index.interval.bytes", Integer(0, INT), "4096", "index.interval.bytes"),
    of_topics("log.index.size.max.bytes", Integer(4, INT), "10485760", "segment.index.bytes"),
    of_topics("log.local.retention.bytes", Integer(-2, LONG), "-2", "local.retention.bytes"),
    of_topics("log.local.retention.ms", Integer(-2, LONG), "-2", "local.retention.ms"),
    of_topics("log.message.timestamp.after.max.ms", Integer(0, LONG), "3600000", "message.timestamp.after.max.ms"),
    of_topics("log.message.timestamp.before.max.ms", Integer(0, LONG), "9223372036854775807", "message.timestamp.before.max.ms"),
    of_topics("log.message.timestamp.type", Choice(&["CreateTime", "LogAppendTime"]), "CreateTime", "message.timestamp.type"),
    of_topics("log.preallocate", Boolean, "false", "preallocate"),
    of_topics("log.remote.copy.lag.bytes", Integer(-1, LONG), "-1", "remote.copy.lag.bytes"),
    of_topics("log.remote.copy.lag.ms", Integer(-1, LONG), "0", "remote.copy.lag.ms"),
    of_topics("log.retention.bytes", Integer(i64::MIN, LONG), "-1", "retention.bytes"),
    row("log.retention.check.interval.ms", Integer(1, LONG), "300000", "How often the broker looks for segments that retention has done with."),
    row("log.retention.hours", Integer(i32::MIN as i64, INT), "168", "How long records are kept at least, in hours, where neither log.retention.ms nor log.retention.minutes is set."),
    row("log.retention.minutes", Integer(i32::MIN as i64, INT), "", "How long records are kept at least, in minutes, where log.retention.ms is not set."),
    row("log.retention.ms", Integer(-1, LONG), "", "How long records are kept at least; -1 is for ever. Unset, the minutes and then the hours hold."),
    row("log.roll.hours", Integer(1, INT), "168", "The age at which a segment is closed even if it is not full, in hours, where log.roll.ms is not set."),
    row("log.roll.jitter.hours", Integer(0, INT), "0", "By how much the closing of a segment may come earlier, in hours, where log.roll.jitter.ms is not set."),
    row("log.roll.jitter.ms", Integer(0, LONG), "", "By how much the closing of a segment may come earlier, at random."),
    row("log.roll.ms", Integer(1, LONG), "", "The age at which a segment is closed even if it is not full. Unset, the hours hold."),
    of_topics("log.segment.bytes", Integer(1_048_576, INT), "1073741824", "segment.bytes"),
    of_topics("log.segment.delete.delay.ms", Integer(0, LONG), "60000", "file.delete.delay.ms"),
    row("max.connection.creation.rate", Integer(0, INT), "2147483647", "It has no effect: connections are limited by their number."),
    row("max.connections.per.ip", Integer(0, INT), "2147483647", "It has no effect: connections are limited by their number over all addresses."),
    row("max.connections.per.ip.overrides", Text("^.*$"), "", "It has no effect: connections are limited by their number over all addresses."),
    of_topics("max.decompressed.message.bytes", Integer(1, 2_147_483_639), "2147483639", "max.decompressed.message.bytes"),
    row("max.incremental.fetch.session.cache.slots", Integer(0, INT), "1000", "The most incremental fetch sessions at a time."),
    row("max.request.partition.size.limit", Integer(1, INT), "2000", "The most partitions in one answer to DescribeTopicPartitions."),
    of_topics("message.max.bytes", Integer(0, INT), "1048588", "max.message.bytes"),
    row("metric.reporters", Text("^.*$"), "org.apache.kafka.common.metrics.JmxReporter", "It has no effect: metrics are told to Prometheus."),
    of_topics("min.insync.replicas", Integer(1, INT), "1", "min.insync.replicas"),
    row("num.io.threads", Integer(1, INT), "8", "It has no effect: requests are carried out on the threads of their connections."),
    row("num.network.threads", Integer(1, INT), "3", "It has no effect: there are as many threads for connections as processors, or as the command line says."),
    row("num.partitions", Integer(1, INT), "1", "How many partitions a topic gets whose creator does not say."),
    row("num.recovery.threads.per.data.dir", Integer(1, INT), "2", "It has no effect: logs are recovered side by side on all processors."),
    row("num.replica.fetchers", Integer(i32::MIN as i64, INT), "1", "It has no effect: one connection to each leader fetches."),
    row("offset.metadata.max.bytes", Integer(0, INT), "4096", "The most bytes of metadata that a committed offset may have."),
    row("offsets.commit.timeout.ms", Integer(1, INT), "5000", "How long a commit of offsets, or what else a group coordinator writes, may take to be replicated before the client is told to ask again."),
    row("offsets.retention.check.interval.ms", Integer(1, LONG), "600000", "How often it is looked for offsets and groups that nobody needs any more."),
    row("offsets.retention.minutes", Integer(1, INT), "10080", "How long the offsets of a group are kept once it is empty; those committed without a group, from their commit on."),
    row("offsets.topic.num.partitions", Integer(1, INT), "50", "How many partitions the topic of committed offsets gets."),
    row("offsets.topic.replication.factor", Integer(1, 32_767), "", "How many replicas the topic of committed offsets gets. Unset, as many as the cluster is to have brokers, three at most."),
    row("offsets.topic.segment.bytes", Integer(1_048_576, INT), "104857600", "The size of the segments of the topic of committed offsets."),
    row("producer.id.expiration.ms", Integer(1, INT), "86400000", "How long a partition remembers an idempotent producer that writes nothing."),
    of_topics("record.validation", Choice(&["full", "header"]), "full", "record.validation"),
    row("replica.fetch.backoff.ms", Integer(0, INT), "100", "How long a follower leaves a partition alone whose fetch failed. Apache Kafka's default is 1000."),
    row("replica.fetch.max.bytes", Integer(0, INT), "1048576", "How much a follower fetches of one partition at a time; a larger batch is fetched all the same."),
    row("replica.fetch.min.bytes", Integer(0, INT), "1", "How much a leader waits for before it answers a follower, for as long as replica.fetch.wait.max.ms allows."),
    row("replica.fetch.response.max.bytes", Integer(0, INT), "10485760", "How much a follower fetches at a time."),
    row("replica.fetch.wait.max.ms", Integer(0, INT), "500", "How long a leader that has nothing new waits before it answers a follower."),
    row("replica.lag.time.max.ms", Integer(0, LONG), "30000", "A follower that has not caught up with its leader for this long leaves the ISR."),
    row("socket.request.max.bytes", Integer(1, INT), "104857600", "The largest request that the broker reads; a larger one closes the connection."),
    row("transaction.max.timeout.ms", Integer(1, INT), "900000", "The longest time after which a producer may ask to have its open transaction aborted."),
    row("transaction.partition.verification.enable", Boolean, "true", "It has no effect: that a partition belongs to a transaction is always verified."),
    row("transaction.state.log.min.isr", Integer(1, INT), "2", "What min.insync.replicas is for the topic of transactions."),
    row("transaction.state.log.num.partitions", Integer(1, INT), "50", "How many partitions the topic of transactions gets."),
    row("transaction.state.log.replication.factor", Integer(1, 32_767), "", "How many replicas the topic of transactions gets. Unset, as many as the cluster is to have brokers, three at most."),
    row("transaction.state.log.segment.bytes", Integer(1_048_576, INT), "104857600", "The size of the segments of the topic of transactions."),
    row("transactional.id.expiration.ms", Integer(1, INT), "604800000", "How long a transactional id is remembered that nobody uses."),
    of_topics("unclean.leader.election.enable", Boolean, "false", "unclean.leader.election.enable"),
];
