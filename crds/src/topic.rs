//! `Topic`: a topic exists because this resource exists, whether a user or a client created it.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::PartitionSummary;
use crate::topic_settings::TopicConfig;

/// The desired state of a topic.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "Topic",
    namespaced,
    status = "TopicStatus",
    shortname = "ktp",
    category = "kafka",
    derive = "PartialEq",
    doc = "A Kafka topic.",
    selectable = ".spec.clusterRef.name",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".spec.partitions"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Online", type_ = "integer", json_path = ".status.partitions.online"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Topic", type_ = "string", json_path = ".spec.topicName", priority = "1"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.bytes", priority = "1"),
    printcolumn(name = "Id", type_ = "string", json_path = ".status.topicId", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = "1"),
    validation = Rule::new("has(self.spec.topicName) || size(self.metadata.name) <= 249")
        .message("a topic's name has at most 249 characters: give a shorter metadata.name, or spec.topicName"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.topicName) == has(oldSelf.topicName) && (!has(self.topicName) || self.topicName == oldSelf.topicName)")
        .message("topicName cannot change: a topic cannot be renamed"),
    validation = Rule::new("!has(oldSelf.partitions) || !has(self.partitions) || self.partitions >= oldSelf.partitions")
        .message("partitions can only be raised: a partition cannot be taken away without its records"),
    validation = Rule::new(
        "!has(self.replicas) || !has(self.config) || !has(self.config.min__dot__insync__dot__replicas) || \
         int(self.config.min__dot__insync__dot__replicas) <= self.replicas")
        .message("config's min.insync.replicas must not be greater than replicas"),
)]
pub struct TopicSpec {
    /// The cluster of the topic. It cannot change.
    #[x_kube(validation = Rule::new("self == oldSelf").message("clusterRef cannot change: a topic cannot move to another cluster"))]
    pub cluster_ref: ClusterRef,

    /// The topic's name in Kafka, if that is not a legal Kubernetes name (upper-case letters,
    /// underscores). Default: metadata.name. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    #[x_kube(validation = Rule::new("self != '.' && self != '..' && self != '__cluster_metadata'").message("'.', '..' and '__cluster_metadata' are no topic names"))]
    pub topic_name: Option<String>,

    /// The number of partitions. It can only increase. Default: the cluster's num.partitions when
    /// the topic is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub partitions: Option<i32>,

    /// The replication factor. Default: the cluster's default.replication.factor when the topic is
    /// created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32_767))]
    pub replicas: Option<i16>,

    /// Settings of the topic, with Kafka's names.
    #[serde(default, skip_serializing_if = "TopicConfig::is_empty")]
    pub config: TopicConfig,

    /// What a deletion does. Delete: the topic is deleted with its data. Retain: deletions by this
    /// resource or by a Kafka client are refused until the policy is Delete. The chart's policy
    /// refuses those of the resource (deletionProtection.enabled). Without that policy the operator
    /// creates the resource again, and the topic keeps its id and its records. Default: Delete.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Whether the API server refuses to delete this Topic while it holds records, by status.bytes.
    /// The chart's policy enforces it (deletionProtection.enabled). With false the Topic can be
    /// deleted, unless deletionPolicy is Retain. It does not stop a Kafka client from deleting the
    /// topic; only the deletionPolicy Retain does. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protection: Option<bool>,
}

/// A reference to a `KafkaCluster`.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterRef {
    /// The cluster's metadata.name.
    #[schemars(length(max = 37), regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,

    /// The cluster's namespace, which must allow this one (spec.allowedNamespaces of the
    /// KafkaCluster). Default: the namespace of this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
}

impl ClusterRef {
    /// The cluster's namespace for a resource in the namespace `own`.
    pub fn namespace_from<'a>(&'a self, own: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(own)
    }
}

/// The effect of deleting a topic.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum DeletionPolicy {
    /// The topic is deleted with its data.
    #[default]
    Delete,
    /// Deletions by the resource or by a Kafka client are refused until the policy is Delete. The
    /// operator creates a resource that is deleted nevertheless again.
    Retain,
}

/// The observed state of a topic. It is a summary for people, and the operator never reads it back.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {"observedGeneration": -1}))]
pub struct TopicStatus {
    /// The generation of the spec that this status describes.
    pub observed_generation: Option<i64>,
    /// The topic's immutable id in Kafka's form (KIP-516).
    pub topic_id: Option<String>,
    /// The partitions by state.
    pub partitions: Option<PartitionSummary>,
    /// The size of its records in bytes, counting only one replica. It is updated once it has
    /// changed by a tenth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// `Ready`: every partition has a leader. `Healthy`: all replicas are in sync. `Accepted`, if
    /// the cluster is in another namespace: the cluster accepts Topics of this namespace.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

impl Topic {
    /// The topic's name in Kafka.
    pub fn topic_name(&self) -> &str {
        self.spec.topic_name.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}
