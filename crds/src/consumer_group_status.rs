//! The status of a `ConsumerGroup`: the group's state, its lag, and the results of resets.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The observed state of a group. The operator reads back only `lastReset` and `undo`, because a
/// reset is carried out once.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {"observedGeneration": -1}))]
pub struct ConsumerGroupStatus {
    /// The generation of the spec that this status describes.
    pub observed_generation: Option<i64>,
    /// The group's id in Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// The group's state in Kafka: `Stable`, `PreparingRebalance`, `CompletingRebalance`,
    /// `Assigning`, `Reconciling`, `Empty` or `Dead`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The protocol of its members: `Classic` or `Consumer` (KIP-848).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The assignor of its partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignor: Option<String>,
    /// The id of the broker that coordinates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<i32>,
    /// The number of its members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<i32>,
    /// Members without a partition, because the group has more members than partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_members: Option<i32>,
    /// The group's lag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<Lag>,
    /// When the operator last saw a committed offset change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit: Option<Time>,
    /// The rebalances that the operator saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalances: Option<Rebalances>,
    /// The state of the scaled workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
    /// The last requested reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reset: Option<ResetStatus>,
    /// The offsets before the last two resets, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undo: Vec<SavedOffsets>,
    /// `Ready`: the group exists and no other condition reports a problem. `Active`,
    /// `LagWithinPolicy`, `Rebalancing`, `OffsetsValid`, `ScalingActive`, `ResetDone`.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The lag of a group.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    /// Records that the group has not consumed, over all partitions.
    pub messages: i64,
    /// The age of the oldest of these records in seconds, rounded down to two significant digits.
    /// Absent while it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
    /// The partitions that count for the lag.
    pub partitions: i32,
    /// Partitions with unconsumed records.
    pub partitions_behind: i32,
    /// The partition with the most unconsumed records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst: Option<WorstPartition>,
}

/// The partition with the largest lag of a group.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorstPartition {
    /// Its topic.
    pub topic: String,
    /// Its index.
    pub partition: i32,
    /// Its unconsumed records.
    pub messages: i64,
    /// The client id of the member that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

/// The rebalances that the operator saw. It misses one between two observations after which every
/// member has its previous partitions.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebalances {
    /// In the last hour, or since the operator started to observe the group.
    pub last_hour: i32,
    /// The time of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Time>,
}

/// The state of a scaled workload.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// The replicas in the spec of the workload's scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<i32>,
    /// The replicas for the current lag.
    pub desired: i32,
    /// When `desired` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change: Option<Time>,
}

/// The state of a reset.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetStatus {
    /// Its id.
    pub id: String,
    /// The phase of the reset. Waiting: it cannot be carried out yet; the condition ResetDone has
    /// the reason. Committing: the previous offsets are saved, and the reset is being carried out.
    /// Done: it is done and never repeated.
    pub phase: ResetPhase,
    /// The number of partitions whose offsets it sets.
    pub partitions: i32,
    /// When this phase began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// The phase of a reset.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum ResetPhase {
    /// It cannot be carried out yet; the condition `ResetDone` has the reason.
    #[default]
    Waiting,
    /// The previous offsets are saved, and the reset is being carried out.
    Committing,
    /// It is done and never repeated.
    Done,
}

/// Offsets that a reset replaced.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedOffsets {
    /// The id of the reset that replaced them.
    pub id: String,
    /// One line per topic: its name, `=`, and the offsets of its partitions from 0 on, separated by
    /// commas. `-` means no committed offset; an empty field means that the reset did not change
    /// the partition.
    pub offsets: String,
}
