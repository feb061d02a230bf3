//! `ConsumerGroup`: the desired and the observed state of a consumer group. As in Kafka, the
//! members create the group itself.

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

/// The desired state of a consumer group.
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
    /// The cluster of the group. It cannot change.
    #[x_kube(validation = Rule::new("self == oldSelf").message("clusterRef cannot change: a group cannot move to another cluster"))]
    pub cluster_ref: ClusterRef,

    /// The group's id in Kafka (`group.id`), if that is not a legal Kubernetes name. Default:
    /// metadata.name. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249))]
    pub group_id: Option<String>,

    /// The topics that count for lag, resets and scaling. A partition of these topics without a
    /// committed offset counts from its beginning. Default: the topics with committed offsets or
    /// assigned partitions of the group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$")), extend("x-kubernetes-list-type" = "set"))]
    pub topics: Vec<String>,

    /// The limits of the group's lag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_policy: Option<LagPolicy>,

    /// A workload that the operator scales by the group's lag. Only on Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,

    /// Sets the group's committed offsets, once for each id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Reset>,

    /// What the deletion of this resource does to the group. Retain: the group stays, with its
    /// offsets. Delete: the group and its committed offsets are deleted once it has no members.
    /// Default: Retain.
    #[serde(default)]
    pub deletion_policy: GroupDeletionPolicy,
}

/// The limits of a group's lag; at least one of the two.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.maxSeconds) || has(self.maxMessages)").message("give maxSeconds or maxMessages, or both"),
)]
pub struct LagPolicy {
    /// The maximum age of the oldest record that the group has not consumed, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub max_seconds: Option<i64>,

    /// The maximum number of records that the group has not consumed, over all partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_messages: Option<i64>,

    /// How long a limit must be exceeded before the policy counts as violated, in seconds. Default:
    /// 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86_400))]
    pub for_seconds: i64,
}

/// A workload that the operator scales by lag.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.max) || self.min <= self.max").message("min must not be greater than max"),
)]
pub struct Scaling {
    /// The workload: any object in this namespace with the scale subresource.
    pub target_ref: TargetRef,

    /// The minimum number of replicas. With 0 the workload stops while there is nothing to consume.
    /// Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10_000))]
    pub min: i32,

    /// The maximum number of replicas. It never exceeds the number of partitions, because further
    /// members would be idle. Default: the number of partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max: Option<i32>,

    /// The target lag in seconds. The operator adds replicas to stay below it.
    #[schemars(range(min = 1, max = 86_400))]
    pub target_lag_seconds: i64,

    /// How long the lag must be below half of its target before the operator removes one replica,
    /// in seconds. Default: 300.
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

/// Sets committed offsets, once for each id. The status keeps the previous offsets, so that the
/// reset can be undone.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reset {
    /// The id of this reset. The group remembers it and never carries it out twice, even if this
    /// resource is deleted and created again. Another reset needs another id.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    )]
    pub id: String,

    /// The new offsets.
    pub to: ResetTarget,

    /// Only these topics. Default: spec.topics, else all topics with committed offsets of the
    /// group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$")), extend("x-kubernetes-list-type" = "set"))]
    pub topics: Vec<String>,

    /// What happens while the group has members: offsets can only be set while it has none. Wait:
    /// the reset waits until there are none; stop the consumers, and start them again when it is
    /// done. Evict: the operator removes the members; running consumers rejoin and continue at the
    /// new offsets. Default: Wait.
    #[serde(default)]
    pub members: MembersPolicy,
}

/// The new offsets of a group; exactly one of these.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("[has(self.position), has(self.timestamp), has(self.offsets), has(self.shift), has(self.undo)].filter(one, one).size() == 1")
        .message("give exactly one of position, timestamp, offsets, shift and undo"),
)]
pub struct ResetTarget {
    /// One end of each partition. Earliest: the oldest existing record. Latest: the next record
    /// that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,

    /// The first record that is not older than this time; the end of the partition if there is
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Time>,

    /// These offsets. Other partitions stay as they are; an offset outside of the log moves to the
    /// nearest end of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10_000))]
    pub offsets: Option<Vec<PartitionOffset>>,

    /// This many records after (or, if negative, before) the committed offset, within the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<i64>,

    /// The offsets before the reset with this id, which must be one of the last two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub undo: Option<String>,
}

/// One end of a log.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Position {
    /// The oldest existing record.
    Earliest,
    /// The next record that is written.
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
    /// The offset of the next record for the group.
    #[schemars(range(min = 0))]
    pub offset: i64,
}

/// The behaviour of a reset while the group has members.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum MembersPolicy {
    /// The reset waits until there are none: stop the consumers, and start them again when it is
    /// done.
    #[default]
    Wait,
    /// The operator removes the members; running consumers rejoin and continue at the new offsets.
    Evict,
}

/// The effect of deleting a `ConsumerGroup`.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum GroupDeletionPolicy {
    /// The group stays, with its offsets.
    #[default]
    Retain,
    /// The group and its committed offsets are deleted once it has no members.
    Delete,
}

impl ConsumerGroup {
    /// The group's id in Kafka.
    pub fn group_id(&self) -> &str {
        self.spec.group_id.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}
