//! What a `ConsumerGroup` shows: how the group does, how far behind it is, and what became of
//! resets.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a group does. Of all this only `lastReset` and `undo` are read back: a reset is carried out
/// once.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {"observedGeneration": -1}))]
pub struct ConsumerGroupStatus {
    /// The generation of the spec that this speaks of.
    pub observed_generation: Option<i64>,
    /// The group's id in Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// Kafka's word for what the group does: `Stable`, `PreparingRebalance`, `CompletingRebalance`,
    /// `Assigning`, `Reconciling`, `Empty` or `Dead`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The protocol of its members: `Classic` or `Consumer` (KIP-848).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// How partitions are assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignor: Option<String>,
    /// The broker that coordinates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<i32>,
    /// Its members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<i32>,
    /// Members that have no partition: there are more of them than partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_members: Option<i32>,
    /// How far behind it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<Lag>,
    /// When a committed offset was last seen to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit: Option<Time>,
    /// Rebalances that were seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalances: Option<Rebalances>,
    /// The workload that is scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
    /// The last reset that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reset: Option<ResetStatus>,
    /// The offsets before the last two resets, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undo: Vec<SavedOffsets>,
    /// `Ready`: the group is there and nothing below is wrong. `Active`, `LagWithinPolicy`,
    /// `Rebalancing`, `OffsetsValid`, `ScalingActive`, `ResetDone`.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How far behind a group is.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    /// Records that it has not consumed, over all partitions.
    pub messages: i64,
    /// The age of the oldest of them in seconds, rounded to two digits. Absent while it is not
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
    /// The partitions that count.
    pub partitions: i32,
    /// Those of them in which it is behind.
    pub partitions_behind: i32,
    /// The partition with the most records that were not consumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst: Option<WorstPartition>,
}

/// The partition in which a group is furthest behind.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorstPartition {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// Records in it that were not consumed.
    pub messages: i64,
    /// The client id of the member that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

/// Rebalances, as far as they were seen: one between two looks after which everybody has what they
/// had is not.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebalances {
    /// In the last hour, or since the operator began to look.
    pub last_hour: i32,
    /// The last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Time>,
}

/// A workload that is scaled.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// The replicas that it has been told to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<i32>,
    /// The replicas that the lag asks for.
    pub desired: i32,
    /// When that last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change: Option<Time>,
}

/// What became of a reset.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetStatus {
    /// Its id.
    pub id: String,
    /// How far it is. Waiting: it cannot be carried out yet; the condition ResetDone says why.
    /// Committing: the offsets before it are kept, and it is being carried out. Done: it is done,
    /// and is never done again.
    pub phase: ResetPhase,
    /// The partitions whose offsets it sets.
    pub partitions: i32,
    /// Since when it is in this phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// How far a reset is.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum ResetPhase {
    /// It cannot be carried out yet; the condition `ResetDone` says why.
    #[default]
    Waiting,
    /// The offsets before it are kept, and it is being carried out.
    Committing,
    /// It is done, and is never done again.
    Done,
}

/// Offsets that were replaced.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedOffsets {
    /// The reset that replaced them.
    pub id: String,
    /// One text: for each topic a line of its name, `=`, and the offsets of its partitions from 0
    /// on with commas between; `-` where there was none, and nothing where the reset did not touch
    /// it.
    pub offsets: String,
}
