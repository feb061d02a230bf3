//! Topics and partitions: what goes in and out of them, and how they are replicated. Read when
//! Prometheus asks.
//!
//! Topics have names that clients choose. So the series are bounded: by `replica::traffic` for what
//! is counted, and here for what is looked at.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::replica::{Counted, Led, Observed};

/// The label of topics that are not counted by themselves. No topic is called so.
const OTHERS: &str = "";

/// What is known of all topics and partitions at a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct PartitionReadings {
    /// Partitions of which series are shown, at most: the first by topic and index.
    pub(crate) partitions_max: usize,
    pub(crate) topics: Vec<Counted>,
    pub(crate) partitions: Vec<Observed>,
    pub(crate) isr_shrinks: u64,
    pub(crate) isr_expansions: u64,
}

type OfTopic = (&'static str, &'static str, fn(&Counted) -> u64);
type OfPartition = (&'static str, &'static str, fn(&Observed) -> i64);
type OfBroker = (&'static str, &'static str, fn(Led) -> bool);

const COUNTERS: [OfTopic; 7] = [
    ("topic_appended_records", "Records appended as a leader, by topic.", |topic| {
        topic.appended_records
    }),
    ("topic_appended_bytes", "Bytes of records appended as a leader, by topic.", |topic| {
        topic.appended_bytes
    }),
    ("topic_fetched_bytes", "Bytes of records sent to consumers, by topic.", |topic| {
        topic.fetched_bytes
    }),
    ("topic_produces", "Produces to a partition, by topic.", |topic| topic.produces),
    (
        "topic_produce_errors",
        "Produces to a partition that were answered with an error, by topic.",
        |topic| topic.failed_produces,
    ),
    ("topic_fetches", "Fetches of consumers from a partition, by topic.", |topic| topic.fetches),
    (
        "topic_fetch_errors",
        "Fetches of consumers from a partition that were answered with an error, by topic.",
        |topic| topic.failed_fetches,
    ),
];

const GAUGES: [OfPartition; 4] = [
    ("partition_size_bytes", "Bytes of the log of a partition on this broker.", |partition| {
        i64::try_from(partition.size_bytes).unwrap_or(i64::MAX)
    }),
    (
        "partition_log_start_offset",
        "The first offset of a partition on this broker.",
        |partition| partition.log_start_offset,
    ),
    (
        "partition_log_end_offset",
        "The offset behind the last record of a partition on this broker.",
        |partition| partition.log_end_offset,
    ),
    (
        "partition_lag_records",
        "Committed records of a partition that this broker, a follower, does not have yet.",
        |partition| partition.lag,
    ),
];

const STATES: [OfBroker; 3] = [
    (
        "under_replicated_partitions",
        "Partitions led by this broker of which a replica is not in sync.",
        Led::is_under_replicated,
    ),
    (
        "under_min_isr_partitions",
        "Partitions led by this broker that have fewer replicas in sync than min.insync.replicas: nothing is committed.",
        Led::is_under_min_isr,
    ),
    (
        "at_min_isr_partitions",
        "Partitions led by this broker that have just min.insync.replicas replicas in sync.",
        Led::is_at_min_isr,
    ),
];

impl PartitionReadings {
    fn shown(&self) -> Vec<&Observed> {
        let mut shown: Vec<_> = self.partitions.iter().collect();
        shown.sort_by(|a, b| (&a.topic, a.index).cmp(&(&b.topic, b.index)));
        shown.truncate(self.partitions_max);
        shown
    }

    fn encode_topics(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let seen = |topic: &&Counted| topic.topic.is_some() || **topic != Counted::default();
        for (name, help, value) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for topic in self.topics.iter().filter(seen) {
                let labels = [("topic", topic.topic.as_deref().unwrap_or(OTHERS))];
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, f64>(&value(topic), None)?;
            }
        }
        Ok(())
    }

    fn encode_partitions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let shown = self.shown();
        for (name, help, value) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for partition in &shown {
                let index = partition.index.to_string();
                let labels = [("topic", &*partition.topic), ("partition", index.as_str())];
                ConstGauge::new(value(partition)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_broker(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, is_so) in STATES {
            let count = self
                .partitions
                .iter()
                .filter_map(|partition| partition.led)
                .filter(|led| is_so(*led))
                .count();
            gauge(encoder, name, help, i64::try_from(count).unwrap_or(i64::MAX))?;
        }
        let lag = self.partitions.iter().map(|partition| partition.lag).max().unwrap_or(0);
        gauge(
            encoder,
            "follower_lag_records_max",
            "The most committed records that a partition lacks which this broker follows.",
            lag,
        )?;
        let unseen = self.partitions.len().saturating_sub(self.partitions_max);
        let help = "Partitions of this broker that have no series of their own: --metrics-partitions-max is reached.";
        gauge(
            encoder,
            "partitions_without_series",
            help,
            i64::try_from(unseen).unwrap_or(i64::MAX),
        )?;
        for (name, help, count) in [
            (
                "isr_shrinks",
                "How often the ISR of a partition led by this broker became smaller.",
                self.isr_shrinks,
            ),
            (
                "isr_expansions",
                "How often the ISR of a partition led by this broker became larger.",
                self.isr_expansions,
            ),
        ] {
            let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count).encode(counter)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}

impl Collector for PartitionReadings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_broker(&mut encoder)?;
        self.encode_topics(&mut encoder)?;
        self.encode_partitions(&mut encoder)
    }
}
