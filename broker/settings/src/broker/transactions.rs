//! The broker configurations of transactions (`TransactionLogConfig`,
//! `TransactionStateManagerConfig`).

use super::super::Check::AtLeast;
use super::super::ConfigKey;
use super::super::ConfigType::{Int, Short};
use super::super::Scope::Cluster;
use super::super::key::row as broker;

/// In the order of their names.
pub(super) const ROWS: &[ConfigKey] = &[
    broker(
        "transaction.max.timeout.ms",
        Int,
        Some("900000"),
        AtLeast(1),
        Cluster,
        "The longest time after which a producer may ask to have its open transaction aborted.",
    ),
    broker(
        "transaction.state.log.min.isr",
        Int,
        Some("2"),
        AtLeast(1),
        Cluster,
        "What `min.insync.replicas` is for the topic of transactions.",
    ),
    broker(
        "transaction.state.log.num.partitions",
        Int,
        Some("50"),
        AtLeast(1),
        Cluster,
        "How many partitions the topic of transactions gets.",
    ),
    broker(
        "transaction.state.log.replication.factor",
        Short,
        Some("3"),
        AtLeast(1),
        Cluster,
        "How many replicas the topic of transactions gets; no more than the cluster is to have brokers.",
    ),
    broker(
        "transaction.state.log.segment.bytes",
        Int,
        Some("104857600"),
        AtLeast(1_048_576),
        Cluster,
        "The size of the segments of the topic of transactions.",
    ),
    broker(
        "transactional.id.expiration.ms",
        Int,
        Some("604800000"),
        AtLeast(1),
        Cluster,
        "How long a transactional id is remembered that nobody uses.",
    ),
];
