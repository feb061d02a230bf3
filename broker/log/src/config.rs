//! The settings of a log: a topic's configuration, parsed once from Kafka's text forms and shared
//! by all logs with equal settings.

use std::collections::BTreeMap;

use weir_protocol::batch::Codec;

/// The largest array of Kafka's Java (`Records.SOFT_MAX_ARRAY_LENGTH`): the value of
/// `max.decompressed.message.bytes` that means no limit.
const DECOMPRESSED_MESSAGE_BYTES_MAX: u32 = 2_147_483_639;

/// When records count as durable. Ours; Kafka knows only `none`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlushMode {
    /// After a flush; one flush serves all waiting appends.
    #[default]
    Group,
    /// In the page cache, before any flush.
    None,
}

/// The source of a record's timestamp (`message.timestamp.type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer sets it.
    #[default]
    CreateTime,
    /// The leader sets it to the time of the append.
    LogAppendTime,
}

/// What the leader validates before an append. Ours; Kafka knows only `full`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordValidation {
    /// Every record.
    #[default]
    Full,
    /// Header and checksum; the records only if another setting needs it.
    Header,
}

/// How old records are removed (`cleanup.policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleanup {
    /// Old segments are deleted.
    pub delete: bool,
    /// Only the last record of each key is kept.
    pub compact: bool,
}

/// How batches are compressed (`compression.type` and the level of its codec).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As the producer compressed them.
    #[default]
    Producer,
    /// With this codec, whatever the producer used.
    Always {
        /// The codec.
        codec: Codec,
        /// Its level; codecs without levels ignore it.
        level: i32,
    },
}

/// The settings of a topic that its logs need. Times are in milliseconds, sizes in bytes. `None`
/// means no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`
    pub segment_bytes: u32,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `segment.jitter.ms`
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`
    pub index_bytes_max: u32,
    /// `index.interval.bytes`
    pub index_interval_bytes: u32,
    /// `min.insync.replicas`: the log does not use it. It is here because topics set it alike.
    pub insync_replicas_min: u32,
    /// `file.delete.delay.ms`, for logs deleted as a whole
    pub delete_delay_ms: u64,
    /// `retention.ms`
    pub retention_ms: Option<i64>,
    /// `retention.bytes`
    pub retention_bytes: Option<u64>,
    /// `cleanup.policy`
    pub cleanup: Cleanup,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`
    pub compaction_lag_ms_min: i64,
    /// `max.compaction.lag.ms`
    pub compaction_lag_ms_max: i64,
    /// `min.cleanable.dirty.ratio`
    pub dirty_ratio_min: f64,
    /// `max.message.bytes`
    pub message_bytes_max: u32,
    /// `compression.type` and its levels
    pub compression: Compression,
    /// `message.timestamp.type`
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`
    pub timestamp_before_ms_max: i64,
    /// `message.timestamp.after.max.ms`
    pub timestamp_after_ms_max: i64,
    /// `flush.mode`
    pub flush_mode: FlushMode,
    /// `flush.messages`: records after which the log requests a flush, also with `flush.mode=none`.
    pub flush_records: i64,
    /// `flush.ms`: likewise, by time.
    pub flush_ms: i64,
    /// `max.decompressed.message.bytes`: the largest record in a compressed batch. It is checked
    /// when the batch is decompressed.
    pub decompressed_message_bytes_max: u32,
    /// `preallocate`
    pub preallocate: bool,
    /// `record.validation`
    pub record_validation: RecordValidation,
    /// `producer.id.expiration.ms` of the broker
    pub producer_expiration_ms: i64,
}

/// A value that the settings tables should have refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid value {value:?} for {key}")]
pub struct InvalidConfig {
    key: &'static str,
    value: String,
}

impl Default for LogConfig {
    /// Kafka's defaults, and `flush.mode=group`.
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            segment_jitter_ms: 0,
            index_bytes_max: 10 << 20,
            index_interval_bytes: 4096,
            insync_replicas_min: 1,
            delete_delay_ms: 60_000,
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            cleanup: Cleanup { delete: true, compact: false },
            delete_retention_ms: 86_400_000,
            compaction_lag_ms_min: 0,
            compaction_lag_ms_max: i64::MAX,
            dirty_ratio_min: 0.5,
            message_bytes_max: 1_048_588,
            compression: Compression::Producer,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_ms_max: i64::MAX,
            timestamp_after_ms_max: 3_600_000,
            flush_mode: FlushMode::Group,
            flush_records: i64::MAX,
            flush_ms: i64::MAX,
            decompressed_message_bytes_max: DECOMPRESSED_MESSAGE_BYTES_MAX,
            preallocate: false,
            record_validation: RecordValidation::Full,
            producer_expiration_ms: 86_400_000,
        }
    }
}

impl LogConfig {
    /// The settings that `parse` reads, by Kafka's names.
    pub const KEYS: [&'static str; 29] = [
        "segment.bytes",
        "segment.ms",
        "segment.jitter.ms",
        "segment.index.bytes",
        "index.interval.bytes",
        "min.insync.replicas",
        "file.delete.delay.ms",
        "retention.ms",
        "retention.bytes",
        "cleanup.policy",
        "delete.retention.ms",
        "min.compaction.lag.ms",
        "max.compaction.lag.ms",
        "min.cleanable.dirty.ratio",
        "max.message.bytes",
        "compression.type",
        "compression.gzip.level",
        "compression.lz4.level",
        "compression.zstd.level",
        "message.timestamp.type",
        "message.timestamp.before.max.ms",
        "message.timestamp.after.max.ms",
        "flush.mode",
        "flush.messages",
        "flush.ms",
        "max.decompressed.message.bytes",
        "preallocate",
        "record.validation",
        "producer.id.expiration.ms",
    ];

    /// The longest time that a segment stays active (`LogConfig.maxSegmentMs`). A segment must be
    /// sealed in time to be compacted in time.
    pub fn segment_lives_ms(&self) -> i64 {
        if self.cleanup.compact {
            self.segment_ms.min(self.compaction_lag_ms_max)
        } else {
            self.segment_ms
        }
    }

    /// Returns whether records in compressed batches have a size limit, so that each batch must be
    /// decompressed.
    pub fn limits_decompressed_records(&self) -> bool {
        self.decompressed_message_bytes_max < DECOMPRESSED_MESSAGE_BYTES_MAX
    }

    /// Parses the settings in `set`; the others have their defaults. Ignores keys that are not in
    /// [`LogConfig::KEYS`].
    ///
    /// Returns the values that cannot be parsed as well. Whoever accepts settings has checked them
    /// already, so these come from another version of Weir. They have their defaults, but where
    /// that would remove or acknowledge what the topic's owner may not want it to: without a known
    /// retention or cleanup policy nothing is removed, and without a known `min.insync.replicas`
    /// no `acks=all` is answered.
    pub fn parse(set: &BTreeMap<String, String>) -> (Self, Vec<InvalidConfig>) {
        let mut text = Text { set, invalid: Vec::new() };
        let mut config = text.config();
        let invalid = |keys: &[&str]| text.invalid.iter().any(|it| keys.contains(&it.key));
        if invalid(&["retention.ms", "retention.bytes", "cleanup.policy"]) {
            (config.retention_ms, config.retention_bytes) = (None, None);
        }
        if invalid(&["cleanup.policy"]) {
            config.cleanup = Cleanup { delete: false, compact: false };
        }
        if invalid(&["min.insync.replicas"]) {
            config.insync_replicas_min = u32::MAX;
        }
        (config, text.invalid)
    }
}

/// Settings as text, by Kafka's names.
struct Text<'a> {
    set: &'a BTreeMap<String, String>,
    invalid: Vec<InvalidConfig>,
}

impl Text<'_> {
    fn config(&mut self) -> LogConfig {
        let mut config = LogConfig::default();
        let text = self;
        text.number("segment.bytes", &mut config.segment_bytes);
        text.number("segment.ms", &mut config.segment_ms);
        text.number("segment.jitter.ms", &mut config.segment_jitter_ms);
        text.number("segment.index.bytes", &mut config.index_bytes_max);
        text.number("index.interval.bytes", &mut config.index_interval_bytes);
        text.number("min.insync.replicas", &mut config.insync_replicas_min);
        text.number("file.delete.delay.ms", &mut config.delete_delay_ms);
        text.limit("retention.ms", &mut config.retention_ms);
        text.limit("retention.bytes", &mut config.retention_bytes);
        text.parse("cleanup.policy", &mut config.cleanup, cleanup);
        text.number("delete.retention.ms", &mut config.delete_retention_ms);
        text.number("min.compaction.lag.ms", &mut config.compaction_lag_ms_min);
        text.number("max.compaction.lag.ms", &mut config.compaction_lag_ms_max);
        text.number("min.cleanable.dirty.ratio", &mut config.dirty_ratio_min);
        text.number("max.message.bytes", &mut config.message_bytes_max);
        config.compression = text.compression();
        text.parse("message.timestamp.type", &mut config.timestamp_type, |value| match value {
            "CreateTime" => Some(TimestampType::CreateTime),
            "LogAppendTime" => Some(TimestampType::LogAppendTime),
            _ => None,
        });
        text.number("message.timestamp.before.max.ms", &mut config.timestamp_before_ms_max);
        text.number("message.timestamp.after.max.ms", &mut config.timestamp_after_ms_max);
        text.parse("flush.mode", &mut config.flush_mode, |value| match value {
            "group" => Some(FlushMode::Group),
            "none" => Some(FlushMode::None),
            _ => None,
        });
        text.number("flush.messages", &mut config.flush_records);
        text.number("flush.ms", &mut config.flush_ms);
        text.number("max.decompressed.message.bytes", &mut config.decompressed_message_bytes_max);
        text.number("preallocate", &mut config.preallocate);
        text.parse("record.validation", &mut config.record_validation, |value| match value {
            "full" => Some(RecordValidation::Full),
            "header" => Some(RecordValidation::Header),
            _ => None,
        });
        text.number("producer.id.expiration.ms", &mut config.producer_expiration_ms);
        config
    }

    fn parse<T>(
        &mut self,
        key: &'static str,
        target: &mut T,
        parse: impl FnOnce(&str) -> Option<T>,
    ) {
        let Some(value) = self.set.get(key) else { return };
        match parse(value.trim()) {
            Some(parsed) => *target = parsed,
            None => self.invalid.push(InvalidConfig { key, value: value.clone() }),
        }
    }

    fn number<T: std::str::FromStr>(&mut self, key: &'static str, target: &mut T) {
        self.parse(key, target, |value| value.parse().ok());
    }

    /// Parses a number; any below zero means no limit (`LogConfig`, `UnifiedLog`).
    fn limit<T: TryFrom<i64>>(&mut self, key: &'static str, target: &mut Option<T>) {
        self.parse(key, target, |value| {
            let value: i64 = value.parse().ok()?;
            if value < 0 { Some(None) } else { T::try_from(value).ok().map(Some) }
        });
    }

    fn compression(&mut self) -> Compression {
        let (mut gzip, mut lz4, mut zstd) = (-1, 9, 3);
        self.number("compression.gzip.level", &mut gzip);
        self.number("compression.lz4.level", &mut lz4);
        self.number("compression.zstd.level", &mut zstd);
        let mut compression = Compression::Producer;
        self.parse("compression.type", &mut compression, |value| {
            let (codec, level) = match value {
                "producer" => return Some(Compression::Producer),
                "uncompressed" | "none" => (Codec::None, 0),
                "gzip" => (Codec::Gzip, gzip),
                "snappy" => (Codec::Snappy, 0),
                "lz4" => (Codec::Lz4, lz4),
                "zstd" => (Codec::Zstd, zstd),
                _ => return None,
            };
            Some(Compression::Always { codec, level })
        });
        compression
    }
}

fn cleanup(value: &str) -> Option<Cleanup> {
    let mut cleanup = Cleanup { delete: false, compact: false };
    for policy in value.split(',').map(str::trim).filter(|policy| !policy.is_empty()) {
        match policy {
            "delete" => cleanup.delete = true,
            "compact" => cleanup.compact = true,
            _ => return None,
        }
    }
    Some(cleanup)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> (LogConfig, Vec<InvalidConfig>) {
        let set = pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
        LogConfig::parse(&set.collect())
    }

    fn understood(pairs: &[(&str, &str)]) -> LogConfig {
        let (config, invalid) = parse(pairs);
        assert_eq!(invalid, []);
        config
    }

    #[test]
    fn kafkas_text_forms_are_understood() {
        assert_eq!(understood(&[("somebody.elses", "2")]), LogConfig::default());
        let config = understood(&[
            ("retention.ms", "-1"),
            ("retention.bytes", "1000"),
            ("cleanup.policy", "compact,delete"),
            ("compression.type", "zstd"),
            ("compression.zstd.level", "7"),
            ("flush.mode", "none"),
            ("record.validation", "header"),
            ("message.timestamp.type", "LogAppendTime"),
        ]);
        assert_eq!((config.retention_ms, config.retention_bytes), (None, Some(1000)));
        assert_eq!(config.cleanup, Cleanup { delete: true, compact: true });
        assert_eq!(config.compression, Compression::Always { codec: Codec::Zstd, level: 7 });
        assert_eq!(
            (config.flush_mode, config.timestamp_type, config.record_validation),
            (FlushMode::None, TimestampType::LogAppendTime, RecordValidation::Header)
        );
        assert_eq!(understood(&[("retention.bytes", "-2")]), LogConfig::default());
        for (key, value) in [
            ("segment.bytes", "-7"),
            ("retention.ms", "soon"),
            ("cleanup.policy", "compress"),
            ("flush.mode", "maybe"),
        ] {
            let (_, invalid) = parse(&[(key, value)]);
            assert_eq!(invalid.len(), 1);
            assert_eq!(invalid[0].to_string(), format!("invalid value {value:?} for {key}"));
        }
    }

    #[test]
    fn what_is_not_understood_removes_and_acknowledges_nothing() {
        let careful = |unknown: &str| {
            let (config, invalid) =
                parse(&[("segment.ms", "5"), ("retention.bytes", "7"), (unknown, "?")]);
            assert_eq!((config.segment_ms, invalid.len()), (5, 1), "the rest stays");
            config
        };
        for key in ["retention.ms", "cleanup.policy"] {
            let config = careful(key);
            assert_eq!((config.retention_ms, config.retention_bytes), (None, None), "{key}");
        }
        assert_eq!(careful("cleanup.policy").cleanup, Cleanup { delete: false, compact: false });
        assert_eq!(careful("min.insync.replicas").insync_replicas_min, u32::MAX);
        let config = careful("flush.ms");
        assert_eq!((config.flush_ms, config.retention_bytes), (i64::MAX, Some(7)));
    }
}
