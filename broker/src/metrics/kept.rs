//! What coordinators keep for their clients, each with its bound (`broker/src/memory.rs`).

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A part of the broker's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The bytes that are counted.
    pub used_bytes: usize,
    /// The bound, beyond which clients are refused.
    pub bytes_max: usize,
}

/// The parts of coordinators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptReadings {
    /// What the members of groups say, and are assigned.
    pub group_members: Part,
    /// The committed offsets of groups.
    pub committed_offsets: Part,
    /// Transactional ids, and the partitions of their transactions.
    pub transactional_ids: Part,
}

/// The gauges: for each part what is used, and the bound.
#[derive(Debug, Default)]
pub(super) struct KeptGauges {
    group_members: [Gauge; 2],
    committed_offsets: [Gauge; 2],
    transactional_ids: [Gauge; 2],
}

impl KeptGauges {
    pub(super) fn register(&self, registry: &mut Registry) {
        let gauges = [
            (
                ["group_member_memory_bytes", "group_member_memory_max_bytes"],
                [
                    "Memory of what the members of groups say and are assigned",
                    "The bound of that memory, beyond which members are told to come again",
                ],
                &self.group_members,
            ),
            (
                ["committed_offset_memory_bytes", "committed_offset_memory_max_bytes"],
                [
                    "Memory of the committed offsets of groups",
                    "The bound of that memory, beyond which commits are told to come again",
                ],
                &self.committed_offsets,
            ),
            (
                ["transactional_id_memory_bytes", "transactional_id_memory_max_bytes"],
                [
                    "Memory of transactional ids and of the partitions of their transactions",
                    "The bound of that memory, beyond which new transactional ids are refused",
                ],
                &self.transactional_ids,
            ),
        ];
        for (names, help, gauges) in gauges {
            for ((name, help), gauge) in names.into_iter().zip(help).zip(gauges) {
                registry.register(name, help, gauge.clone());
            }
        }
    }

    pub(super) fn set(&self, readings: KeptReadings) {
        let parts = [
            (&self.group_members, readings.group_members),
            (&self.committed_offsets, readings.committed_offsets),
            (&self.transactional_ids, readings.transactional_ids),
        ];
        for (gauges, part) in parts {
            for (gauge, bytes) in gauges.iter().zip([part.used_bytes, part.bytes_max]) {
                gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
        }
    }
}
