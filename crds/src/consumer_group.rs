//! `ConsumerGroup`: what is wanted of a group of consumers, and how it does. The group itself is
//! made by its members, as in Kafka.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]
#![allow(clippy::duplicated_attributes, reason = "columns have the same fields, as they must")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::consumer_group_status::ConsumerGroupStatus;
use crate::topic::ClusterRef;

/// What is wanted of a consumer group.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "ConsumerGroup",
    namespaced,
    status = "ConsumerGroupStatus",
    shortname = "kcg",
    category = "kafka",
    derive = "PartialEq",
    doc = "A group of Kafka consumers: how far behind it is, and what is to be done about it.",
    selectable = ".spec.clusterRef.name",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Members", type_ = "integer", json_path = ".status.members"),
    printcolumn(name = "Lag", type_ = "integer", json_path = ".status.lag.messages"),
    printcolumn(name = "Lag-Seconds", type_ = "integer", json_path = ".status.lag.seconds"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Group", type_ = "string", json_path = ".status.groupId", priority = "1"),
    printcolumn(
        name = "Coordinator",
        type_ = "integer",
        json_path = ".status.coordinator",
        priority = "1"
    ),
    printcolumn(
        name = "Last-Commit",
        type_ = "date",
        json_path = ".status.lastCommit",
        priority = "1"
    ),
    printcolumn(
        name = "Last-Reset",
        type_ = "string",
        json_path = ".status.lastReset.id",
        priority = "1"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = "1"
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.groupId) == has(oldSelf.groupId) && (!has(self.groupId) || self.groupId == oldSelf.groupId)")
        .message("groupId cannot change: make another ConsumerGroup"),
)]
pub struct ConsumerGroupSpec {
    /// The cluster that the group belongs to. It cannot change.
    #[x_kube(validation = Rule::new("self == oldSelf").message("clusterRef cannot change: a group cannot move to another cluster"))]
    pub cluster_ref: ClusterRef,

    /// The group's id in Kafka (`group.id`), where it is no name that Kubernetes allows. Default:
    /// metadata.name. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249))]
    pub group_id: Option<String>,

    /// The topics that count for lag, resets and scaling. A partition of theirs that the group
    /// never committed counts from its beginning. Default: those of which the group has committed
    /// offsets or assigned partitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$")), extend("x-kubernetes-list-type" = "set"))]
    pub topics: Vec<String>,

    /// How far behind the group may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_policy: Option<LagPolicy>,

    /// A workload that gets as many replicas as the lag asks for. On Kubernetes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,

    /// Sets the group's committed offsets, once for each id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Reset>,

    /// What the deletion of this resource does to the group. Retain: the group goes on, with its
    /// offsets. Delete: it goes with its committed offsets, as soon as it has no members. Default:
    /// Retain.
    #[serde(default)]
    pub deletion_policy: GroupDeletionPolicy,
}

/// How far behind a group may be. One of the two bounds at least.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.maxSeconds) || has(self.maxMessages)").message("give maxSeconds or maxMessages, or both"),
)]
pub struct LagPolicy {
    /// The greatest age of the oldest record that the group has not consumed, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub max_seconds: Option<i64>,

    /// The most records that the group has not consumed, over all partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_messages: Option<i64>,

    /// How long a bound has to be exceeded before the policy counts as broken, in seconds. Default:
    /// at once.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86_400))]
    pub for_seconds: i64,
}

/// A workload that is scaled by lag.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.max) || self.min <= self.max").message("min must not be greater than max"),
)]
pub struct Scaling {
    /// What is scaled: anything in this namespace that has the scale subresource.
    pub target_ref: TargetRef,

    /// The fewest replicas. With 0 the workload rests while there is nothing to consume. Default:
    /// 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10_000))]
    pub min: i32,

    /// The most replicas. It is never more than there are partitions: further members would be
    /// idle. Default: as many as there are partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max: Option<i32>,

    /// The lag in seconds that replicas are added to stay below.
    #[schemars(range(min = 1, max = 86_400))]
    pub target_lag_seconds: i64,

    /// How long the lag has to be under half of its target before one replica is taken away, in
    /// seconds. Default: 300.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 0, max = 86_400))]
    pub scale_down_after_seconds: i64,
}

const fn one() -> i32 {
    1
}

const fn five_minutes() -> i64 {
    300
}

/// A workload in the same namespace, as in a HorizontalPodAutoscaler.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    /// Its group and version. Default: apps/v1.
    #[serde(default = "apps")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^([a-z0-9.-]+/)?v[a-z0-9]+$"))]
    pub api_version: String,

    /// Its kind. Default: Deployment.
    #[serde(default = "deployment")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Z][A-Za-z0-9]*$"))]
    pub kind: String,

    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn apps() -> String {
    "apps/v1".to_owned()
}

fn deployment() -> String {
    "Deployment".to_owned()
}

/// Sets committed offsets, once for each id. The offsets before are kept in the status, so that it
/// can be undone.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reset {
    /// What this reset is called. One that was carried out on the group is not carried out again,
    /// also when this resource is deleted and made again: another reset has another id.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    )]
    pub id: String,

    /// Where the group shall go on.
    pub to: ResetTarget,

    /// Only these topics. Default: spec.topics, else all of which the group has committed offsets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$")), extend("x-kubernetes-list-type" = "set"))]
    pub topics: Vec<String>,

    /// What happens while the group has members: offsets can only be set while it has none. Wait:
    /// the reset waits until there are none; stop the consumers, and start them again when it is
    /// done. Evict: members are removed; consumers that run join again by themselves, and go on
    /// from the new offsets. Default: Wait.
    #[serde(default)]
    pub members: MembersPolicy,
}

/// Where a group shall go on: one of these.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("[has(self.position), has(self.timestamp), has(self.offsets), has(self.shift), has(self.undo)].filter(one, one).size() == 1")
        .message("give exactly one of position, timestamp, offsets, shift and undo"),
)]
pub struct ResetTarget {
    /// At an end of each partition. Earliest: the oldest record that is there. Latest: what is
    /// written next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,

    /// At the first record that is not older than this; at the end where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Time>,

    /// At these offsets. Partitions that are not named stay as they are; what lies outside of the
    /// log is moved to its nearest end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10_000))]
    pub offsets: Option<Vec<PartitionOffset>>,

    /// So many records after (or before, if negative) the committed offset, within the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<i64>,

    /// Where the group was before the reset of this id, one of the last two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub undo: Option<String>,
}

/// An end of a log.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Position {
    /// The oldest record that is there.
    Earliest,
    /// What is written next.
    Latest,
}

/// An offset of a partition.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionOffset {
    /// The topic.
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub topic: String,
    /// The partition.
    #[schemars(range(min = 0))]
    pub partition: i32,
    /// The offset of the next record that the group is to get.
    #[schemars(range(min = 0))]
    pub offset: i64,
}

/// What a reset does while the group has members.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum MembersPolicy {
    /// It waits until there are none: stop the consumers, and start them again when it is done.
    #[default]
    Wait,
    /// It removes them. Consumers that run join again by themselves, and go on from the new
    /// offsets.
    Evict,
}

/// What the deletion of a `ConsumerGroup` does.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum GroupDeletionPolicy {
    /// The group goes on, with its offsets.
    #[default]
    Retain,
    /// The group goes with its committed offsets, as soon as it has no members.
    Delete,
}

impl ConsumerGroup {
    /// The group's id in Kafka.
    pub fn group_id(&self) -> &str {
        self.spec.group_id.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}
