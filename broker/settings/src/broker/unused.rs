//! Broker configurations that can change while an Apache Kafka broker runs, but have no effect in
//! Weir. Weir accepts and returns them, because existing scripts set them, and the documentation of
//! each says that it has no effect.

use super::super::Check::{Any, AtLeast, Between};
use super::super::ConfigKey;
use super::super::ConfigType::{Boolean, Double, Int, List, String};
use super::super::Scope::Dynamic;
use super::super::key::row as broker;

/// In the order of their names.
pub(super) const ROWS: &[ConfigKey] = &[
    broker(
        "background.threads",
        Int,
        Some("10"),
        AtLeast(1),
        Dynamic,
        "It has no effect: what runs beside requests has threads of its own.",
    ),
    broker(
        "log.cleaner.io.buffer.load.factor",
        Double,
        Some("0.9"),
        Between(0, 1),
        Dynamic,
        "It has no effect: compaction counts the keys that it has room for.",
    ),
    broker(
        "log.cleaner.io.buffer.size",
        Int,
        Some("524288"),
        AtLeast(0),
        Dynamic,
        "It has no effect: compaction reads batch by batch.",
    ),
    broker(
        "log.cleaner.io.max.bytes.per.second",
        Double,
        Some("1.7976931348623157e308"),
        Any,
        Dynamic,
        "It has no effect: compaction is not throttled.",
    ),
    broker(
        "log.cleaner.threads",
        Int,
        Some("1"),
        AtLeast(0),
        Dynamic,
        "It has no effect: one thread compacts.",
    ),
    broker(
        "max.connection.creation.rate",
        Int,
        Some("2147483647"),
        AtLeast(0),
        Dynamic,
        "It has no effect: connections are limited by their number.",
    ),
    broker(
        "max.connections.per.ip",
        Int,
        Some("2147483647"),
        AtLeast(0),
        Dynamic,
        "It has no effect: connections are limited by their number over all addresses.",
    ),
    broker(
        "max.connections.per.ip.overrides",
        String,
        Some(""),
        Any,
        Dynamic,
        "It has no effect: connections are limited by their number over all addresses.",
    ),
    broker(
        "metric.reporters",
        List,
        Some("org.apache.kafka.common.metrics.JmxReporter"),
        Any,
        Dynamic,
        "It has no effect: metrics are told to Prometheus.",
    ),
    broker(
        "num.io.threads",
        Int,
        Some("8"),
        AtLeast(1),
        Dynamic,
        "It has no effect: requests are carried out on the threads of their connections.",
    ),
    broker(
        "num.network.threads",
        Int,
        Some("3"),
        AtLeast(1),
        Dynamic,
        "It has no effect: there are as many threads for connections as processors, or as the command line says.",
    ),
    broker(
        "num.recovery.threads.per.data.dir",
        Int,
        Some("2"),
        AtLeast(1),
        Dynamic,
        "It has no effect: logs are recovered side by side on all processors.",
    ),
    broker(
        "num.replica.fetchers",
        Int,
        Some("1"),
        Any,
        Dynamic,
        "It has no effect: one connection to each leader fetches.",
    ),
    broker(
        "transaction.partition.verification.enable",
        Boolean,
        Some("true"),
        Any,
        Dynamic,
        "It has no effect: that a partition belongs to a transaction is always verified.",
    ),
];
